"""The process of a trial, as its worker sees it."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path

from lightning_cells.experiments.tuning.link import Link, Message
from lightning_cells.experiments.tuning.places import Place

_END_S = 60  # that a process may take to end by itself


class Child:
    """A process of its own, in a group of its own: what is typed at the terminal does not reach it.

    It ends when this process does.

    Args:
        module: run by Python, with the descriptor of its end of the link as argument.
        place: what it may use.
        log: file that gets what it prints.
    """

    def __init__(self, module: str, place: Place, log: Path) -> None:
        ours, theirs = Pipe()
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                env=place.environment(),
                start_new_session=True,
            )
        theirs.close()
        place.pin(self._process.pid)
        self.link = Link(ours)

    def send(self, message: Message) -> None:
        """Sends a message; nothing happens if the process has ended."""
        self.link.send(message)

    def end(self) -> str:
        """Waits for a process that has closed its link; returns what it died of."""
        try:
            status = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            status = 0
        self.kill()
        if status < 0:
            name = signal.Signals(-status).name
            return f"killed by {name}" + (": out of memory?" if name == "SIGKILL" else "")
        return f"ended with status {status}: {last_line(self.log)}"

    def kill(self) -> None:
        """Ends the process, and all that it has started, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.link.connection.close()


def kill_all(children: Sequence[Child]) -> None:
    """Ends several processes."""
    for child in children:
        child.kill()


def last_line(log: Path) -> str:
    """The last line of a file that says anything."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
