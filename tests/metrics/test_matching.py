"""Matching of one frame's cells against the definitions."""

import numpy as np
import pytest

from lightning_cells.errors import InputError
from lightning_cells.metrics.counts import CTCCounts
from lightning_cells.metrics.matcher import CTCMatcher


def one_frame(truth: np.ndarray, result: np.ndarray) -> CTCCounts:
    matcher = CTCMatcher()
    matcher.update(0, result, truth, truth)
    return matcher.compute(None, None)


def plain_loop(truth: np.ndarray, result: np.ndarray) -> tuple[float, int, int, int]:
    """SEG sum, missed, spurious and shared cells by the definitions, cell by cell."""
    total, missed, hits = 0.0, 0, []
    for r in np.unique(truth[truth > 0]):
        region = truth == r
        found = [s for s in np.unique(result[result > 0]) if 2 * (region & (result == s)).sum() > region.sum()]
        missed += not found
        for s in found:
            hits.append(s)
            total += (region & (result == s)).sum() / (region | (result == s)).sum()
    return total, missed, len(np.unique(result[result > 0])) - len(set(hits)), len(hits) - len(set(hits))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64, np.uint8])
@pytest.mark.parametrize("background", [True, False])
def test_frames_equal_a_plain_loop(dtype, background):
    # Among them what py-ctcmetrics gets wrong: no background in a mask, and labels near the end of the type.
    top = min(np.iinfo(dtype).max, 65535)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        choices = np.array([0, 1, 2, top - 1, top][0 if background else 1 :], dtype)
        truth = np.kron(rng.choice(choices, (6, 6)), np.ones((3, 3), dtype))
        result = np.roll(np.where(rng.random(truth.shape) < 0.3, rng.choice(choices, truth.shape), truth), 1, 0)
        counts = one_frame(truth, result)
        total, fn, fp, ns = plain_loop(truth, result)
        assert (counts.seg_sum, counts.fn, counts.fp, counts.ns) == (
            pytest.approx(total, abs=1e-12),
            fn,
            fp,
            ns,
        )


def test_many_labels():
    truth = np.arange(1, 64 * 64 + 1).reshape(64, 64)  # table of 16 million entries: counted by sorting
    result = 65536 - truth
    result[0] = 0
    counts = one_frame(truth, result)
    assert counts == CTCCounts(seg_sum=63 * 64, seg_cells=64 * 64, fn=64, vertices=64 * 64, tra_frames=1)


def test_exactly_half_does_not_count():
    truth = np.array([[1, 1, 1, 1, 0, 0]])
    assert one_frame(truth, np.array([[3, 3, 0, 0, 0, 0]])).fn == 1
    more = one_frame(truth, np.array([[3, 3, 3, 0, 0, 0]]))
    assert (more.fn, more.SEG) == (0, 0.75)


def test_bad_frames():
    matcher = CTCMatcher(result="01_RES")
    with pytest.raises(InputError, match=r"01_RES, frame 0: the result mask is 1 x 6 but the truth mask is 1 x 3"):
        matcher.update(0, np.ones((1, 6), int), None, np.ones((1, 3), int))
    with pytest.raises(InputError, match="label 65536"):
        matcher.update(0, np.array([[65536]]), None, None)
    matcher.update(0, np.ones((2, 2), int), None, None)
    with pytest.raises(InputError, match="frame 0 is given twice"):
        matcher.update(0, np.ones((2, 2), int), None, None)
