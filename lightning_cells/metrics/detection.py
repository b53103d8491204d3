"""Precision, recall and F-measure of the cells of single frames (Arbelle & Riklin Raviv 2018, table 1)."""

from dataclasses import dataclass

import numpy as np

from lightning_cells.metrics.matching import Match, Regions


@dataclass(frozen=True)
class DetectionCounts:
    """What was found in frames with segmentation truth; ``DetectionCounts()`` is the zero of the addition.

    A truth cell and a result cell belong together if their Jaccard index is above 0.5. Then each covers more than half
    of the other, so no cell has two partners.

    Attributes:
        tp: pairs that belong together.
        fp: result cells without a partner.
        fn: truth cells without a partner.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: "DetectionCounts") -> "DetectionCounts":
        return DetectionCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)


def count_detections(truth: Regions, result: Regions, found: Match, complete: bool = True) -> DetectionCounts:
    """Counts on one frame.

    Args:
        truth: the segmented cells.
        result: the result's cells.
        found: how they match for SEG; who belongs together here is matched there, too.
        complete: all cells of the frame are in the truth. Otherwise a result cell more than half of which lies
            outside of them is neither right nor wrong.
    """
    judged = len(result.labels)
    if not complete:
        known = truth.flat[result.pixels] > 0
        inside = np.bincount(result.index[known], minlength=judged)
        judged = int((2 * inside >= result.areas).sum())
    tp = int((found.iou > 0.5).sum())
    return DetectionCounts(tp, judged - tp, len(truth.labels) - tp)
