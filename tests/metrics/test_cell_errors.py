"""What is told about each cell of a frame."""

import numpy as np

from lightning_cells.metrics.cells import CellError, frame_errors


def test_frame_errors():
    seg = np.zeros((9, 12), np.int32)
    result = np.zeros((9, 12), np.uint16)
    seg[0, :4], result[0, :3] = 1, 11  # matched, 3 of 4 pixels
    seg[1, :4], seg[1, 4:10], result[1, :10] = 2, 3, 12  # merged
    seg[2, :6], result[2, :4], result[2, 4:6] = 4, 13, 14  # split, one part covers it
    seg[3, :4], result[3, :2], result[3, 2:4] = 5, 15, 16  # split, neither does
    seg[4, :4], result[4, :2] = 6, 17  # missed: exactly half
    result[6, :3] = 18  # spurious
    seg[7] = -1
    result[7, :3] = 19  # where nothing is known
    truth = {e.label: e for e in frame_errors(result, seg) if e.side == "truth"}
    found = {e.label: e for e in frame_errors(result, seg) if e.side == "result"}
    assert [truth[k].kind for k in range(1, 7)] == ["matched", "merged", "merged", "split", "split", "missed"]
    kinds = ["matched", "merged", *["split"] * 4, "spurious", "spurious", "unknown"]
    assert [found[k].kind for k in range(11, 20)] == kinds
    assert truth[1] == CellError("truth", 1, 4, 11, 0.75, "matched")
    assert found[12] == CellError("result", 12, 10, 3, 0.6, "merged")  # shares most with 3
    assert truth[2] == CellError("truth", 2, 4, 12, 0.4, "merged")
    assert (truth[4].partner, truth[4].iou, truth[5].partner, truth[6].iou) == (13, 4 / 6, 0, 0)
    assert frame_errors(np.zeros((3, 3), int), np.zeros((3, 3), int)) == []
