"""How far something is: a bar at a terminal; without one, as in the log of a job, a line now and then."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from tqdm import tqdm

_PARTS = 10  # of the work, each of which is told
_LONGEST_S = 30.0
_SHORTEST_S = 10.0  # between two lines: what is quick says nothing


class Progress(tqdm):
    """A bar on stderr, or lines where stderr is no terminal: one for every tenth of the work, and at least every 30 s.

    Args:
        what: what is going on, such as ``"tracking"``.
        total: how much there is to do; None if that is not known.
        unit: of what, in the singular.
        shown: whether to say anything at all.
        over: what is iterated over; None if `update` is called.
        more: further arguments of tqdm.
    """

    monitor_interval = 0  # no thread: processes are forked from here

    def __init__(
        self,
        what: str,
        total: int | None = None,
        unit: str = "frame",
        shown: bool = True,
        over: Iterable | None = None,
        **more: Any,
    ) -> None:
        self._lines = not sys.stderr.isatty()
        self._told = 0.0, 0.0  # seconds since the start, and share of the work
        super().__init__(
            over, what, total, unit=unit, file=sys.stderr, disable=not shown, miniters=1, mininterval=0.5, **more
        )
        self._told = 0.0, self.n / (self.total or 1)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Called by the base class when there is something new to show."""
        if not self._lines:
            super().display(msg, pos)
            return
        state = self.format_dict
        seconds, share = state["elapsed"], state["n"] / state["total"] if state["total"] else 0.0
        since = seconds - self._told[0]
        if since >= _LONGEST_S or (since >= _SHORTEST_S and int(_PARTS * share) > int(_PARTS * self._told[1])):
            self._told = seconds, share
            print(self._line(state, share), file=sys.stderr, flush=True)

    def _line(self, state: Mapping[str, Any], share: float) -> str:
        def amount(number: float) -> str:
            if self.unit_scale:
                return f"{tqdm.format_sizeof(number, divisor=self.unit_divisor)}{self.unit}"
            return f"{number:.0f}"

        seconds, rate = state["elapsed"], (state["n"] - state["initial"]) / state["elapsed"]
        done, unit = amount(state["n"]), "" if self.unit_scale else f" {self.unit}s"
        if not state["total"]:
            return f"{self.desc.removesuffix(': ')}: {done}{unit}, {tqdm.format_interval(seconds)}"
        left = tqdm.format_interval((state["total"] - state["n"]) / rate) if rate else "?"
        of = f"{done} of {amount(state['total'])}{unit} ({share:.0%})"
        return f"{self.desc.removesuffix(': ')}: {of}, {tqdm.format_interval(seconds)}, {left} left"

    def clear(self, nolock: bool = False) -> None:
        """Called by the base class before another line is written."""
        if not self._lines:
            super().clear(nolock)

    def close(self) -> None:
        """Ends; a last line would only repeat what comes next."""
        if self._lines:
            self.disable = True
            type(self)._instances.discard(self)  # type: ignore[attr-defined]
        else:
            super().close()
