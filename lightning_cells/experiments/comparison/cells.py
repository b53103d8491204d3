"""The cells that a test compared, one by one, as its run keeps them."""

import json
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Run
from numpy.typing import NDArray

from lightning_cells.callbacks.findings import CELLS, CellRow
from lightning_cells.experiments.comparison.artifacts import read_file

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
        places = [table["columns"].index(column) for column in CellRow._fields]
        return _cells([[row[place] for place in places] for row in table["data"]])
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def common(a: Cells, b: Cells) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Returns the places of the true cells that two tests share: in the first, and in the second."""
    in_b = {cell: place for place, cell in enumerate(b.truth)}
    pairs = [(place, in_b[cell]) for place, cell in enumerate(a.truth) if cell in in_b]
    first, second = np.array(pairs, np.intp).reshape(-1, 2).T
    return first, second


def _cells(rows: Iterable[list]) -> Cells:
    truth: list[TrueCell] = []
    ious: list[float] = []
    predicted: dict[tuple[str, int, int], float] = {}
    for video, frame, truth_label, label, area, iou, kind in rows:
        if truth_label > 0:
            truth.append((str(video), int(frame), int(truth_label), int(area)))
            ious.append(float(iou))
        if label > 0 and kind != "unknown":
            key = (str(video), int(frame), int(label))
            predicted[key] = max(predicted.get(key, 0.0), float(iou))
    iou = np.array(ious, np.float64)
    best = np.array(list(predicted.values()), np.float64)
    return Cells(truth, iou, (iou > _BELONG).astype(np.float64), (best > _BELONG).astype(np.float64))
