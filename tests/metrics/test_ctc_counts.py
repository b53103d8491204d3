"""Sums, measures that cannot be computed, and JSON."""

import json
import math

import numpy as np
import pytest

from lightning_cells.data.tracks import Track
from lightning_cells.metrics.counts import CTCCounts
from lightning_cells.metrics.matcher import CTCMatcher


def test_what_cannot_be_computed_is_nan_and_none():
    seg_only = CTCCounts(seg_sum=1.5, seg_cells=2)
    assert seg_only.SEG == 0.75
    assert all(math.isnan(value) for name, value in seg_only.values().items() if name != "SEG")
    text = json.loads(json.dumps(seg_only.as_dict(), allow_nan=False))
    assert text["SEG"] == 0.75
    assert {text[name] for name in ("DET", "TRA", "LNK", "OP_CSB", "OP_CTB", "NS", "EC")} == {None}
    matcher = CTCMatcher()
    matcher.update(0, np.array([[1, 2]]), None, np.array([[1, 0]]))
    unlinked = matcher.compute(None, {1: Track(1, 0, 0, 0)})
    assert (unlinked.DET, unlinked.as_dict()["FP"], unlinked.as_dict()["EA"]) == (pytest.approx(0.9), 1, None)
    assert math.isnan(unlinked.TRA)


def test_sums_over_videos():
    first = CTCCounts(1.0, 2, 1, 2, 3, 4, 5, 6, 20, 10, 3, 3)
    both = sum([first, CTCCounts(seg_sum=0.5, seg_cells=1)], CTCCounts())
    assert both == CTCCounts(1.5, 3, 1, 2, 3, 4, 5, 6, 20, 10, 3, 3)
    assert both.TRA == first.TRA
    # Edges of one video only do not make a TRA of two.
    assert math.isnan((first + CTCCounts(vertices=4, tra_frames=2)).TRA)
    assert pytest.approx(1 - (5 + 60 + 3) / 240) == (first + CTCCounts(fn=4, vertices=4, tra_frames=2)).DET
