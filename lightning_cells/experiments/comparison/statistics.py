"""The cells and measures of tests, their confidence intervals, and what can be said of two runs."""

import json
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from numpy.typing import NDArray

from lightning_cells.callbacks.findings import CELLS
from lightning_cells.experiments.comparison.runs import read_file
from lightning_cells.metrics.bootstrap import Interval, difference, interval
from lightning_cells.metrics.measures import MEASURES

_BELONG = 0.5  # Jaccard index above which a true and a predicted cell are one and the same

TrueCell = tuple[str, int, int, int]
"""Video, frame, label and area of a true cell: one that has the same in two tests is the same cell."""


class Cells(NamedTuple):
    """The cells of a test.

    Attributes:
        truth: the true cells.
        iou: (N,) float64, Jaccard index of each with the predicted cell that covers more than half of it, else 0. Its
            mean is SEG.
        found: (N,) float64, 1 for each that belongs to a predicted cell, else 0. Its mean is the recall.
        right: (M,) float64, 1 for each predicted cell that belongs to a true one, else 0. Its mean is the precision;
            where the truth is unknown, predicted cells are left out.
    """

    truth: list[TrueCell]
    iou: NDArray[np.float64]
    found: NDArray[np.float64]
    right: NDArray[np.float64]

    def of_frame(self, video: str, frame: int) -> NDArray[np.float64]:
        """The Jaccard indices of the true cells of one frame."""
        return self.iou[[cell[:2] == (video, frame) for cell in self.truth]]


def read_cells(client: MlflowClient, run: Run) -> Cells | None:
    """Returns the cells of a test, or None if its run has no table of them that can be read."""
    try:
        table = json.loads(read_file(client, run, CELLS) or b"")
        return _cells(pd.DataFrame(table["data"], columns=table["columns"]))
    except (ValueError, KeyError, TypeError):
        return None


def common(a: Cells, b: Cells) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Returns the places of the true cells that two tests share: in the first, and in the second."""
    in_b = {cell: place for place, cell in enumerate(b.truth)}
    pairs = [(place, in_b[cell]) for place, cell in enumerate(a.truth) if cell in in_b]
    first, second = np.array(pairs, np.intp).reshape(-1, 2).T
    return first, second


def _cells(table: pd.DataFrame) -> Cells:
    kinds = {"video": str, "frame": int, "truth_label": int, "label": int, "area": int, "iou": float}
    table = table[[*kinds, "kind"]].astype(kinds)
    true = table[table.truth_label > 0]
    truth = list(true[["video", "frame", "truth_label", "area"]].itertuples(index=False, name=None))
    predicted = table[(table.label > 0) & (table.kind != "unknown")]
    best = predicted.groupby(["video", "frame", "label"]).iou.max().to_numpy()
    iou = true.iou.to_numpy()
    return Cells(truth, iou, (iou > _BELONG).astype(np.float64), (best > _BELONG).astype(np.float64))


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
