"""What a test leaves in its run, and in which form: for those who write it, and those who read it again."""

from typing import NamedTuple

CELLS = "test/cells.json"
"""The table of cells, an artifact; its columns are those of `CellRow`."""
FRAMES = "test/frames"
"""Folder of the artifacts ``<video>/<number>.png``: a frame's panels in a row."""
PANELS = ("Frame", "Truth", "Prediction", "Errors")
GAP = 8
"""White pixels between two panels."""


class CellRow(NamedTuple):
    """A true cell, or a cell of the result that covers none.

    Attributes:
        video: `findings.VideoFindings.key`.
        frame: number of the frame.
        truth_label: the true cell, or 0.
        label: the cell of the result that covers more than half of it, or 0; without a true cell, the cell itself.
        area: pixels of the true cell; without one, of the cell of the result.
        iou: Jaccard index of the two, 0 if one is missing.
        kind: what became of it, see `metrics.cells.frame_errors`.
    """

    video: str
    frame: int
    truth_label: int
    label: int
    area: int
    iou: float
    kind: str
