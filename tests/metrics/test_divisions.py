"""Divisions found, missed and false, by hand."""

import numpy as np
import pytest

from lightning_cells.data.tracks import Lineage, Track
from lightning_cells.metrics.ctc_measures import CTCMatcher
from lightning_cells.metrics.divisions import Division, compare_divisions, count_divisions, divisions


def lineage(*rows: tuple[int, int, int, int]) -> Lineage:
    return {row[0]: Track(*row) for row in rows}


TRUTH = lineage((1, 0, 4, 0), (2, 5, 9, 1), (3, 5, 9, 1))
HERE = {**{f: {1: 11} for f in range(5)}, **{f: {2: 12, 3: 13} for f in range(5, 10)}}


def test_single_child_is_no_division() -> None:
    assert divisions(lineage((1, 0, 4, 0), (2, 5, 9, 1))) == []
    assert divisions(lineage((7, 0, 4, 0), (2, 5, 9, 7), (3, 6, 9, 7))) == [Division(7, (2, 3), 5)]


def test_same_frame() -> None:
    assert count_divisions(lineage((11, 0, 4, 0), (12, 5, 9, 11), (13, 5, 9, 11)), TRUTH, HERE) == (1, 1, 0)


@pytest.mark.parametrize(("begin", "expected"), [(3, (1, 0, 1)), (4, (1, 1, 0)), (6, (1, 1, 0)), (7, (1, 0, 1))])
def test_a_frame_early_or_late(begin: int, expected: tuple[int, int, int]) -> None:
    result = lineage((11, 0, begin - 1, 0), (12, begin, 9, 11), (13, begin, 9, 11))
    partners = {f: dict(cells) for f, cells in HERE.items()}
    for frame in range(begin, 5):  # an early daughter covers most of the mother that still is
        partners[frame] = {1: 12}
    for frame in range(5, begin):  # the mother still covers both
        partners[frame] = {2: 11, 3: 11}
    assert count_divisions(result, TRUTH, partners) == expected


def test_missed_false_and_wrong_daughter() -> None:
    assert count_divisions(lineage((11, 0, 9, 0)), TRUTH, HERE) == (1, 0, 0)
    assert count_divisions(lineage((5, 0, 4, 0), (6, 5, 9, 5), (7, 5, 9, 5)), TRUTH, HERE) == (1, 0, 1)
    wrong = lineage((11, 0, 4, 0), (12, 5, 9, 11), (14, 5, 9, 11), (13, 5, 9, 0))
    assert count_divisions(wrong, TRUTH, HERE) == (1, 0, 1)


def test_daughters_under_one_cell_are_not_found() -> None:
    merged = {**HERE, 5: {2: 12, 3: 12}}
    result = lineage((11, 0, 4, 0), (12, 5, 9, 11), (13, 5, 9, 11))
    assert count_divisions(result, TRUTH, merged) == (1, 0, 1)


def test_divisions_of_frames_without_markers_do_not_count() -> None:
    result = lineage((11, 0, 4, 0), (12, 5, 9, 11), (13, 5, 9, 11))
    assert count_divisions(result, TRUTH, {f: cells for f, cells in HERE.items() if f != 4}) == (0, 0, 0)


def test_matcher_counts_them_from_masks() -> None:
    before, after = np.zeros((2, 8, 12), np.int32)
    before[2:6, 2:10] = 1
    after[2:6, 1:5], after[2:6, 7:11] = 2, 3
    matcher = CTCMatcher()
    for frame in range(10):
        truth = before if frame < 5 else after
        matcher.update(frame, np.where(truth > 0, truth + 10, 0), None, truth)
    counts = matcher.compute(lineage((11, 0, 4, 0), (12, 5, 9, 11), (13, 5, 9, 11)), TRUTH)
    assert (counts.divisions, counts.divisions_found, counts.divisions_false) == (1, 1, 0)
    assert counts.TRA == 1
    assert (counts + counts).as_dict()["divisions_found"] == 2


def test_which_are_found_missed_and_false() -> None:
    truth = TRUTH | lineage((4, 0, 3, 0), (5, 4, 9, 4), (6, 4, 9, 4))
    partners = {f: cells | ({4: 14} if f < 4 else {5: 14, 6: 0}) for f, cells in HERE.items()}
    result = lineage((11, 0, 4, 0), (12, 5, 9, 11), (13, 5, 9, 11), (14, 0, 9, 0))
    result |= lineage((20, 0, 6, 0), (21, 7, 9, 20), (22, 7, 9, 20))
    found, missed, false = compare_divisions(result, truth, partners)
    assert found == [(Division(1, (2, 3), 5), Division(11, (12, 13), 5))]
    assert missed == [Division(4, (5, 6), 4)]
    assert false == [Division(20, (21, 22), 7)]


@pytest.mark.parametrize("gap", [0, 1, 3])
def test_frames_without_mother_and_daughters(gap: int) -> None:
    """A cell that rounds up and is out of focus while it divides: the truth itself has all its divisions."""
    first = 5 + gap
    truth = lineage((1, 0, 4, 0), (2, first, 19, 1), (3, first + 1, 19, 1))
    partners: dict[int, dict[int, int]] = {f: {} for f in range(5, first)} | {f: {1: 1} for f in range(5)}
    partners |= {f: {2: 2, 3: 3} if f > first else {2: 2} for f in range(first, 20)}
    assert count_divisions(truth, truth, partners) == (1, 1, 0)
    later = truth | lineage((3, first + 3, 19, 1))
    assert count_divisions(later, truth, partners) == (1, 0, 1)


def random_division(rng: np.random.Generator, label: int) -> list[tuple[int, int, int, int]]:
    end = int(rng.integers(2, 6))
    daughters = range(label + 1, label + 1 + int(rng.choice([2, 2, 2, 3])))
    return [(label, 0, end, 0), *((n, end + 1 + int(rng.integers(0, 3)), 12, label) for n in daughters)]


def test_equals_py_ctcmetrics() -> None:
    bc = pytest.importorskip("ctc_metrics.metrics.biological.bc")
    rng = np.random.default_rng(0)
    seen = np.zeros(3, int)
    for _ in range(600):
        rows = [row for label in (1, 5) for row in random_division(rng, label)]
        truth = lineage(*rows)
        result = lineage(*rows)
        for row in rows:  # a little earlier or later
            begin, end = (max(0, n + int(rng.choice([0, 0, 0, 0, 1, -1, 2]))) for n in row[1:3])
            result[row[0]] = Track(row[0], begin if row[3] else 0, min(end, 12), row[3])
        partners = {}
        for frame in range(13):
            there = [t.label for t in truth.values() if t.begin <= frame <= t.end]
            here = [t.label for t in result.values() if t.begin <= frame <= t.end]
            partners[frame] = {n: n if n in here else 0 for n in there}
            if here and there and rng.random() < 0.1:
                partners[frame][int(rng.choice(there))] = int(rng.choice(here))
        mapped = [[list(partners[f]) for f in range(13)], [list(partners[f].values()) for f in range(13)]]
        found, false, missed = bc.raw_division_metrics(
            np.array(list(result.values())), np.array(list(truth.values())), *mapped, i=1
        )
        assert count_divisions(result, truth, partners) == (found + missed, found, false)
        seen += (found, false, missed)
    assert seen.min() > 50
