"""Precision, recall and F against a plain loop over all pairs of cells."""

import numpy as np
import pytest
import torch

from lightning_cells.metrics.detection import DetectionCounts
from lightning_cells.metrics.matcher import CTCMatcher
from lightning_cells.metrics.measures import DetectionMeasures


def counted(result: np.ndarray, seg: np.ndarray | None, tra: np.ndarray | None = None) -> tuple[int, int, int]:
    matcher = CTCMatcher()
    matcher.update(0, result, seg, tra)
    found = matcher.detections
    return found.tp, found.fp, found.fn


def plain_loop(result: np.ndarray, seg: np.ndarray, complete: bool = True) -> tuple[int, int, int]:
    truths, results = (np.unique(mask[mask > 0]) for mask in (seg, result))
    pairs = []
    for r in truths:
        for s in results:
            both, either = ((seg == r) & (result == s)).sum(), ((seg == r) | (result == s)).sum()
            if both > either - both:
                pairs.append((r, s))
    assert len({r for r, _ in pairs}) == len({s for _, s in pairs}) == len(pairs), "one to one"
    mates = {s for _, s in pairs}
    spurious = [s for s in results if s not in mates]
    if not complete:
        spurious = [s for s in spurious if 2 * ((result == s) & (seg > 0)).sum() >= (result == s).sum()]
    return len(pairs), len(spurious), len(truths) - len(pairs)


def scenes(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Blocks of cells, and the same with some moved, cut, merged, relabelled and dropped."""
    out = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        seg = np.kron(rng.choice([0, 0, 1, 2, 3, 4, 500], (6, 6)), np.ones((3, 3), int)).astype(np.uint16)
        result = np.roll(seg, rng.integers(0, 3), 0)
        other = rng.choice([0, 1, 2, 7, 65535], seg.shape)
        out.append((np.where(rng.random(seg.shape) < 0.2, other, result).astype(np.uint16), seg))
    return out


def test_counts_equal_a_plain_loop():
    found = [counted(result, seg) for result, seg in scenes(40)]
    assert found == [plain_loop(result, seg) for result, seg in scenes(40)]
    assert (np.array(found).sum(0) > 10).all(), "or it says little"


def test_in_frames_segmented_in_part_cells_outside_are_not_judged():
    """There are more markers than segmented cells."""
    found = []
    for result, seg in scenes(40):
        tra = np.kron(np.arange(1, 37).reshape(6, 6), np.ones((3, 3), int)).astype(np.uint16)
        found.append(counted(result, seg, tra))
        assert found[-1] == plain_loop(result, seg, complete=False)
    assert sum(fp for _, fp, _ in found) < sum(counted(result, seg)[1] for result, seg in scenes(40))


def test_a_frame_with_all_markers_segmented_is_judged_as_a_whole():
    for result, seg in scenes(10):
        assert counted(result, seg, seg) == plain_loop(result, seg)


def test_half_is_not_enough():
    seg = np.array([[1, 1, 1, 1, 0, 0]])
    assert counted(np.array([[3, 3, 0, 0, 0, 0]]), seg) == (0, 1, 1)  # 2 of 4
    assert counted(np.array([[3, 3, 3, 0, 0, 0]]), seg) == (1, 0, 0)  # 3 of 4
    assert counted(np.array([[0, 3, 3, 3, 3, 3]]), seg) == (0, 1, 1)  # 3 of 6, though it covers most of the cell
    assert counted(np.array([[3, 3, 3, 3, 3, 3]]), seg) == (1, 0, 0)  # 4 of 6


def test_a_cell_cut_in_two_counts_once():
    seg = np.array([[1] * 10])
    assert counted(np.array([[1] * 6 + [2] * 4]), seg) == (1, 1, 0)
    assert counted(np.array([[1] * 5 + [2] * 5]), seg) == (0, 2, 1)


def test_frames_without_cells():
    empty, cell = np.zeros((4, 4), int), np.ones((4, 4), int)
    assert counted(empty, empty) == (0, 0, 0)
    assert counted(cell, empty) == (0, 1, 0)
    assert counted(empty, cell) == (0, 0, 1)
    assert counted(cell, None, cell) == (0, 0, 0), "markers have no outline"


def test_frames_of_a_video_add_up():
    matcher = CTCMatcher()
    for frame, (result, seg) in enumerate(scenes(5)):
        matcher.update(frame, result, seg, None)
    total = np.sum([plain_loop(result, seg) for result, seg in scenes(5)], axis=0)
    assert matcher.detections == DetectionCounts(*total)


def test_measures_by_hand():
    measures = DetectionMeasures()
    measures.update(DetectionCounts(tp=3, fp=1, fn=4))
    measures.update(DetectionCounts(tp=3, fp=1, fn=0))
    found = {name: float(value) for name, value in measures.compute().items()}
    assert found == pytest.approx({"P": 6 / 8, "R": 6 / 10, "F": 2 * 0.75 * 0.6 / 1.35})


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((0, 0, 5), {"P": None, "R": 0, "F": 0}),
        ((0, 5, 0), {"P": 0, "R": None, "F": 0}),
        ((0, 0, 0), {"P": None, "R": None, "F": None}),
    ],
)
def test_what_cannot_be_measured_is_nan(counts, expected):
    measures = DetectionMeasures()
    measures.update(DetectionCounts(*counts))
    for name, value in measures.compute().items():
        assert value.dtype == torch.float32
        assert value.isnan() if expected[name] is None else value == expected[name]
