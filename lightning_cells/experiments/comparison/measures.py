"""The measures of tests with their confidence intervals, and what can be said of two runs."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from lightning_cells.experiments.comparison.cells import Cells, common
from lightning_cells.metrics.bootstrap import Interval, difference, interval

MEASURES = ("SEG", "DET", "TRA", "LNK", "OP_CSB", "OP_CTB", "P", "R", "F")
_OVER_CELLS = {"SEG": "iou", "R": "found", "P": "right"}
_COMPARED = ("SEG", "R")  # means over the true cells, which two tests can share
_TOLERANCE = 5e-4  # between a logged measure, in single precision, and the mean of the table
_ENOUGH = 0.5  # of the cells of the smaller test, that both must share


class Measure(NamedTuple):
    """A measure of a test.

    Attributes:
        value: as it was logged.
        interval: of the mean over the cells; None for a measure that is no mean over cells, or without their table.
        whole: whether the table's mean is the logged value; otherwise the table lacks cells, or has other ones.
    """

    value: float
    interval: Interval | None = None
    whole: bool = True

    def __str__(self) -> str:
        return f"{self.value:.3f}" + (f" [{self.interval.low:.3f}, {self.interval.high:.3f}]" if self.interval else "")


class Verdict(NamedTuple):
    """What two tests say of two runs.

    Attributes:
        measure: ``SEG`` or ``R``.
        first: label of a run.
        second: label of the other one.
        cells: how many true cells both were scored on.
        difference: the first one's mean minus the second one's, on these cells; None for different data.
        words: that one beats the other, or what prevents to say so.
    """

    measure: str
    first: str
    second: str
    cells: int
    difference: Interval | None
    words: str


def measured(metrics: Mapping[str, float], cells: Cells | None) -> dict[str, Measure]:
    """Returns the measures of a test.

    SEG, precision and recall are means over cells, and get an interval. DET, TRA, LNK, F and what is made of them are
    no means over cells: they have none.

    Args:
        metrics: of the run, ``test/SEG`` and so on.
        cells: those of the same test.
    """
    known = {name: metrics[f"test/{name}"] for name in MEASURES if math.isfinite(metrics.get(f"test/{name}", math.nan))}
    return {name: _with_interval(name, value, cells) for name, value in known.items()}


def same_data(a: Cells, b: Cells) -> bool:
    """Whether two tests share most true cells of the smaller one: some may agree by chance."""
    return len(common(a, b)[0]) >= _ENOUGH * min(len(a.truth), len(b.truth))


def verdict(measure: str, first: tuple[str, Cells], second: tuple[str, Cells]) -> Verdict:
    """Compares two tests on the cells that both were scored on.

    Args:
        measure: ``SEG`` or ``R``.
        first: label and cells of a run.
        second: the same of the other one.
    """
    (a, a_cells), (b, b_cells) = first, second
    a_places, b_places = common(a_cells, b_cells)
    count = len(a_places)
    if count < 2 or not same_data(a_cells, b_cells):
        return Verdict(measure, a, b, count, None, "cannot be compared: scored on different cells")
    field = _OVER_CELLS[measure]
    gap = difference(getattr(a_cells, field)[a_places], getattr(b_cells, field)[b_places])
    words = f"{a} beats {b}" if gap.low > 0 else f"{b} beats {a}" if gap.high < 0 else "undecided"
    return Verdict(measure, a, b, count, gap, words)


def verdicts(tests: list[tuple[str, Cells]]) -> list[Verdict]:
    """Compares each test with each that comes after it, by SEG and by recall."""
    pairs = [(a, b) for place, a in enumerate(tests) for b in tests[place + 1 :]]
    return [verdict(measure, a, b) for measure in _COMPARED for a, b in pairs]


def _with_interval(name: str, value: float, cells: Cells | None) -> Measure:
    values = None if cells is None or name not in _OVER_CELLS else getattr(cells, _OVER_CELLS[name])
    if values is None or len(values) < 2:
        return Measure(value)
    sure = interval(values)
    return Measure(value, sure, abs(sure.mean - value) < _TOLERANCE)
