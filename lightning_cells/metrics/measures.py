"""The measures that are logged, shown and compared: each is named here, once."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from lightning_cells.metrics.ctc_measures import CTCMeasures
from lightning_cells.metrics.detection import DetectionCounts

MEASURES: Mapping[str, str] = {
    "SEG": "mean Jaccard index of the true cells",
    "DET": "detection, by the cost of NS, FN and FP",
    "TRA": "tracking, by the cost of all operations",
    "LNK": "linking, by the cost of ED, EA and EC",
    "OP_CSB": "(SEG + DET) / 2",
    "OP_CTB": "(SEG + TRA) / 2",
    "P": "precision of the cells, Jaccard index above 0.5",
    "R": "recall of the cells",
    "F": "their harmonic mean",
}
"""What each measure of a video is, in the order in which they are shown; all are from 0 to 1, more is better."""
OPERATIONS: Mapping[str, str] = {
    "NS": "merged cells to split",
    "FN": "missed cells to add",
    "FP": "spurious cells to delete",
    "ED": "links to delete",
    "EA": "links to add",
    "EC": "links to correct: division or not",
}
"""What must be done to make the truth of a result: counts behind DET, TRA and LNK."""
FIRST = ("SEG", "DET", "TRA")
"""The measures that are shown where there is room for a few."""


class DetectionMeasures(Metric):
    """Pools the counts of found cells, over batches and processes."""

    full_state_update = False
    is_differentiable = False
    tp: Tensor
    fp: Tensor
    fn: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("tp", "fp", "fn"):
            self.add_state(name, default=torch.tensor(0, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, detections: DetectionCounts) -> None:
        """Adds the counts of one video or frame."""
        self.tp += detections.tp
        self.fp += detections.fp
        self.fn += detections.fn

    def compute(self) -> dict[str, Tensor]:
        """Returns precision ``P``, recall ``R`` and their harmonic mean ``F``, float32 scalars from 0 to 1.

        Precision is nan without a result cell, recall without a truth cell, ``F`` without either.
        """
        return {
            "P": self.tp / (self.tp + self.fp),
            "R": self.tp / (self.tp + self.fn),
            "F": 2 * self.tp / (2 * self.tp + self.fp + self.fn),
        }


_METRICS: tuple[type[Metric], ...] = (CTCMeasures, DetectionMeasures)


def video_measures() -> MetricCollection:
    """Returns all measures of videos, pooled over videos and processes.

    ``update`` is called once for each video, with ``counts`` (`CTCCounts`), ``detections`` (`DetectionCounts`) and the
    lineages ``result`` and ``truth``; each metric takes those that its own ``update`` names. ``compute`` returns all
    values by name.
    """
    return MetricCollection([metric() for metric in _METRICS], compute_groups=False)
