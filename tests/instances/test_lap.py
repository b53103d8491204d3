"""Linking by assignment over a whole video, against all ways to link a few cells, and by the challenge's rules."""

import sys
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_cells.data.ctc import find_sequence
from lightning_cells.data.image_files import read_mask
from lightning_cells.data.tracks import read_tracks
from lightning_cells.errors import InputError
from lightning_cells.instances.lap import HeldFrames, LapLinker
from lightning_cells.instances.linkers import Lap, Overlap
from lightning_cells.metrics.ctc_measures import CTCMatcher
from lightning_cells.metrics.validity import VERTEX, check_masks, check_parents

pytest.importorskip("laptrack")

DIAMETER = 2 * np.sqrt(9 / np.pi)  # of the cells below, 3 x 3 pixels


def frame(*middles, size=(40, 40), labels=None):
    """Cells of 3 x 3 pixels around (row, column)."""
    image = np.zeros(size, np.int32)
    for label, (row, column) in enumerate(middles, 1):
        image[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = labels[label - 1] if labels else label
    return image


def link(*frames, first=0, **options):
    linker = LapLinker(**options, first_frame=first)
    assert [linker.push(image) for image in frames] == [[]] * len(frames)
    assert linker.lineage == {}
    linked = list(linker.finish())
    check_result(linked, linker.lineage, first)
    return linked, {tuple(track) for track in linker.lineage.values()}


def check_result(frames, lineage, first=0):
    """The rules of the challenge, by its own measures' checks and by plain ones."""
    vertices = [number * VERTEX + np.unique(image[image > 0]) for number, image in enumerate(frames, first)]
    check_parents(lineage, "result")
    check_masks(lineage, range(first, first + len(frames)), np.concatenate([np.empty(0), *vertices]).astype(int), "")
    for label, (own, begin, end, parent) in lineage.items():
        assert label == own
        assert [bool((image == label).any()) for image in frames] == [
            begin <= number <= end for number in range(first, first + len(frames))
        ]
        assert not parent or lineage[parent].end < begin


def test_cells_that_do_not_overlap_themselves_are_linked():
    places = [[(5, 5), (20, 30)], [(9, 5), (20, 26)], [(13, 5), (20, 22)]]
    frames = [frame(*middles, labels=labels) for middles, labels in zip(places, ([7, 2], [3, 9], [1, 2]), strict=True)]
    linked, lineage = link(*frames, first=4, max_distance=4.5 / DIAMETER)
    assert lineage == {(1, 4, 6, 0), (2, 4, 6, 0)}
    for image, ((down, _), (_, left)) in zip(linked, places, strict=True):
        assert image.dtype == np.int32
        # the lower label of the first frame is the first track
        np.testing.assert_array_equal(image, frame((20, left), (down, 5)))
    _, lineage = link(*frames, max_distance=3.9 / DIAMETER, division_distance=0, max_gap=0)
    assert len(lineage) == 6, "too far"


def test_distances_are_in_diameters_of_the_median_cell():
    places = [[(5, 5), (20, 30)], [(9, 5), (20, 26)]]
    small = [frame(*middles) for middles in places]
    large = [np.kron(image, np.ones((3, 3), np.int32)) for image in small]
    for frames in (small, large):
        assert len(link(*frames, max_distance=1.19)[1]) == 2
        assert len(link(*frames, max_distance=1.17, division_distance=0)[1]) == 4


def matchings(left, right):
    for count in range(min(left, right) + 1):
        for chosen in combinations(range(left), count):
            for partners in permutations(range(right), count):
                yield tuple(zip(chosen, partners, strict=True))


@settings(max_examples=60, deadline=None, database=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 4))
def test_of_all_ways_to_link_two_frames_the_cheapest(seed, left, right):
    """Cost of Jaqaman's assignment: squared distances, and for each cell left alone the square of the limit."""
    rng = np.random.default_rng(seed)
    grid = [(6 * row + 3, 6 * column + 3) for row in range(4) for column in range(4)]
    before, after = ([grid[k] for k in rng.permutation(16)[:count]] for count in (left, right))
    after = [(row + int(rng.integers(-2, 2)), column + int(rng.integers(-2, 2))) for row, column in after]
    squares = ((np.array(before)[:, None] - np.array(after)) ** 2).sum(-1)
    limit = 8.1
    allowed = squares < limit**2
    smallest = squares[allowed].min() if allowed.any() else 0

    def cost(pairs):
        alone = left + right - 2 * len(pairs)
        return sum(squares[pair] for pair in pairs) + limit**2 * alone + smallest * len(pairs)

    ways = sorted((w for w in matchings(left, right) if all(allowed[pair] for pair in w)), key=cost)
    linked, lineage = link(frame(*before), frame(*after), max_distance=limit / DIAMETER, division_distance=0, max_gap=0)
    found = {
        (a, b) for a, one in enumerate(before) for b, other in enumerate(after) if linked[0][one] == linked[1][other]
    }
    assert len(lineage) == left + right - len(found)
    assert cost(tuple(found)) <= cost(ways[0]) * (1 + 1e-5)


def test_division():
    frames = [frame((10, 10)), frame((10, 10)), frame((10, 7), (10, 13)), frame((10, 6), (10, 14))]
    linked, lineage = link(*frames, max_distance=1, division_distance=1)
    assert lineage == {(1, 0, 1, 0), (2, 2, 3, 1), (3, 2, 3, 1)}
    np.testing.assert_array_equal(linked[3], 2 * frame((10, 6)) + 3 * frame((10, 14)))
    _, lineage = link(*frames, max_distance=1, division_distance=0)
    assert sorted(row[1:] for row in lineage) == [(0, 3, 0), (2, 3, 0)], "one of them goes on"


def test_a_missing_cell_is_drawn():
    frames = [frame((10, 10), (30, 30)), frame((30, 30)), frame((30, 30)), frame((13, 16), (30, 30))]
    linked, lineage = link(*frames, max_distance=2.5, max_gap=2, first=8)
    assert lineage == {(1, 8, 11, 0), (2, 8, 11, 0)}
    np.testing.assert_array_equal(linked[1], frame((11, 12), (30, 30)))
    np.testing.assert_array_equal(linked[2], frame((12, 14), (30, 30)))
    _, lineage = link(*frames, max_distance=2.5, max_gap=1)
    assert lineage == {(1, 0, 0, 0), (2, 0, 3, 0), (3, 3, 3, 0)}


def test_a_missing_cell_without_room_has_itself_for_a_child():
    block = np.zeros((40, 40), np.int32)
    block[8:13, 8:31] = 1  # another cell lies on it
    frames = [frame((10, 10), (30, 30)), block, frame((10, 13), (30, 30))]
    linked, lineage = link(*frames, max_distance=1, max_gap=1, division_distance=0)
    rows = {row[1:] for row in lineage if linked[0][10, 10] in (row[0], row[3])}
    assert rows == {(0, 0, 0), (2, 2, linked[0][10, 10])}
    np.testing.assert_array_equal(linked[1] > 0, (block > 0) | (frame((30, 30)) > 0))
    half = block * (np.arange(40)[:, None] < 10)  # leaves six of its nine pixels
    linked, lineage = link(frames[0], half, frames[2], max_distance=1, max_gap=1, division_distance=0)
    assert (int(linked[0][10, 10]), 0, 2, 0) in lineage
    assert (linked[1][half == 0] == linked[0][10, 10]).sum() == 6


@pytest.mark.parametrize("frames", [[], [frame()], [frame()] * 3, [frame((5, 5))], [frame(), frame((5, 5)), frame()]])
def test_next_to_nothing(frames):
    linked, lineage = link(*frames)
    assert len(linked) == len(frames)
    assert len(lineage) == any(image.any() for image in frames)


def test_mistakes_are_named(monkeypatch):
    for name, value in {"max_distance": 0, "division_distance": -1, "max_gap": -2}.items():
        with pytest.raises(InputError, match=f"^{name}: {value}"):
            Lap(**{name: value}).start()
    linker = LapLinker(first_frame=4)
    linker.push(frame())
    with pytest.raises(InputError, match="frame 5: 40x39 pixels after frames of 40x40"):
        linker.push(frame()[:, 1:])
    monkeypatch.setitem(sys.modules, "laptrack", None)
    with pytest.raises(InputError, match=r"^[^\n]*pip install laptrack[^\n]*$"):
        Lap().start()


def test_more_tracks_than_sixteen_bits_hold():
    cells, none = np.arange(1, 401, dtype=np.int32).reshape(20, 20), np.zeros((20, 20), np.int32)

    def ended(frames):
        linker = LapLinker(max_distance=0.1, division_distance=0, max_gap=0, first_frame=1)
        for _ in range(frames):
            linker.push(cells)
            linker.push(none)
        linker.finish()
        return len(linker.lineage)

    assert ended(163) == 65200
    with pytest.raises(InputError, match="frame 327: more than 65535 tracks"):
        ended(164)


@st.composite
def videos(draw):
    """Cells of 3 x 3 pixels that move, vanish, come and touch."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    places = rng.integers(0, 24, (draw(st.integers(0, 6)), 2))
    frames = []
    for _ in range(draw(st.integers(1, 7))):
        places = np.clip(places + rng.integers(-2, 3, places.shape), 0, 23)
        if rng.random() < 0.3:
            places = np.vstack([places, rng.integers(0, 24, (1, 2))])
        there = places[rng.random(len(places)) < 0.8].tolist()
        frames.append(frame(*there, size=(24, 24)))
    return frames


@settings(max_examples=100, deadline=None, database=None)
@given(videos(), st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from([0.0, 1.0, 3.0]), st.integers(0, 3))
def test_every_video_gives_a_valid_result(frames, distance, division, gap):
    linked, lineage = link(*frames, max_distance=distance, division_distance=division, max_gap=gap)
    for image, result in zip(frames, linked, strict=True):
        cells = image > 0
        pairs = set(zip(image[cells].tolist(), result[cells].tolist(), strict=True))
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}), "the same cells"
        if not gap:
            np.testing.assert_array_equal(result > 0, cells)
    assert {row[0] for row in lineage} == set(range(1, len(lineage) + 1))


def test_missing_cells_cost_less_than_by_overlap(simulated):
    """Of the true cells a tenth is left out: assignment over gaps brings most of them back."""
    files = find_sequence(simulated, "01")
    rng = np.random.default_rng(0)
    shown = []
    for path in files.tra.values():
        image = read_mask(path).astype(np.int32)
        labels = np.unique(image[image > 0])
        shown.append(np.where(np.isin(image, labels[rng.random(len(labels)) < 0.1]), 0, image))
    score = {}
    for kind in (Overlap(), Lap()):
        linker, matcher = kind.start(), CTCMatcher()
        linked = [done for image in shown for done in linker.push(image)]
        linked += list(linker.finish())
        for number, result in enumerate(linked):
            matcher.update(number, result, None, read_mask(files.tra[number]))
        score[type(kind)] = matcher.compute(linker.lineage, read_tracks(files.tracks))
    assert score[Lap].fn < 0.5 * score[Overlap].fn
    assert score[Lap].TRA > score[Overlap].TRA + 0.02


def test_held_frames_are_what_went_in():
    rng = np.random.default_rng(0)
    held, shown = HeldFrames(), []
    for _ in range(20):
        image = rng.choice([0, 0, 3, 4, 9], (6, 7)).astype(np.int32)
        held.append(image)
        shown.append(np.select([image == 3, image == 4, image == 9], [1, 2, 3], 0))
    drawn = np.argwhere(shown[2] == 0)[:3]
    assert held.draw(2, drawn) == 3
    shown[2][tuple(drawn.T)] = 4
    for number in [*range(20), 2]:
        np.testing.assert_array_equal(held.labels(number), shown[number])
        for cell, area in enumerate(held.areas[number]):
            mask = shown[number] == cell + 1
            assert mask.sum() == area
            np.testing.assert_allclose(held.centroids[number][cell], np.argwhere(mask).mean(0))
