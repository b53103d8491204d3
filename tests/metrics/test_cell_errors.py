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


def loops(result: np.ndarray, seg: np.ndarray) -> dict[tuple[str, int], str]:
    """The kinds by their definition, one pair of cells after the other."""
    true, found = (sorted(set(mask[mask > 0].tolist())) for mask in (seg, result))
    covers = {(t, r): 2 * ((seg == t) & (result == r)).sum() > (seg == t).sum() for t in true for r in found}
    inside = {(t, r): 2 * ((seg == t) & (result == r)).sum() > (result == r).sum() for t in true for r in found}
    merged = [r for r in found if sum(covers[t, r] for t in true) > 1]
    split = [t for t in true if sum(inside[t, r] for r in found) > 1]
    kinds = {}
    for t in true:
        matched = [r for r in found if covers[t, r]]
        kinds["truth", t] = "matched" if matched else "missed"
        if t in split:
            kinds["truth", t] = "split"
        if set(matched) & set(merged):
            kinds["truth", t] = "merged"
    for r in found:
        kinds["result", r] = "unknown" if 2 * ((result == r) & (seg < 0)).sum() > (result == r).sum() else "spurious"
        if any(covers[t, r] for t in true):
            kinds["result", r] = "matched"
        if any(inside[t, r] for t in split):
            kinds["result", r] = "split"
        if r in merged:
            kinds["result", r] = "merged"
    return kinds


def test_kinds_are_those_of_plain_loops():
    rng, seen = np.random.default_rng(0), set()
    for _ in range(200):
        coarse = rng.integers(-1, 5, (2, 3, 3))
        seg, result = np.repeat(np.repeat(coarse, 3, axis=1), 3, axis=2)
        result = np.roll(np.maximum(result, 0), rng.integers(0, 4, 2), (0, 1))
        seg = np.where(rng.random(seg.shape) < 0.1, 0, seg)
        expected = loops(result, seg)
        assert {(error.side, error.label): error.kind for error in frame_errors(result, seg)} == expected
        seen |= set(expected.values())
    assert seen == {"matched", "missed", "spurious", "split", "merged", "unknown"}
