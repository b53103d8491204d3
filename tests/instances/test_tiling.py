from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lightning_cells.errors import InputError
from lightning_cells.instances.tiling import Tiling


def spans(tiles):
    return [(t.rows.start, t.rows.stop, t.columns.start, t.columns.stop) for t in tiles]


def numbered(labels, rng=None):
    """The labels numbered 1..N, by chance if there is an rng."""
    known = np.flatnonzero(np.bincount(labels.ravel())[1:]) + 1
    table = np.zeros(labels.max() + 1, np.int32)
    table[known] = np.arange(1, len(known) + 1) if rng is None else rng.permutation(len(known)) + 1
    return table[labels]


def crops(labels, tiling, rng=None):
    """What a method that sees (T, H, W) labels tile by tile would find."""
    layout = tiling.layout(labels.shape[1:])
    return [numbered(labels[:, tile.rows, tile.columns], rng) for tile in layout]


def cells(labels):
    """The instances as sets of pixels; they must be numbered 1..N."""
    found = {frozenset(map(tuple, np.argwhere(labels == v).tolist())) for v in range(1, labels.max() + 1)}
    assert len(found) == labels.max()
    assert frozenset() not in found
    return found


def box(labels, value, top, left, height, width):
    labels[:, top : top + height, left : left + width] = value


def plain_merge(tiles, layout, size, margin, dispute):
    """The rules by sets and loops, for cells small enough: pixels of the instances that stay."""
    held = []  # [pixels it holds, area it was seen with]
    for tile, local in zip(layout, tiles, strict=True):
        top, bottom, left, right = tile.rows.start, tile.rows.stop, tile.columns.start, tile.columns.stop
        y0, y1 = (0, margin)[top > 0] + top, bottom - (0, margin)[bottom < size[0]]
        x0, x1 = (0, margin)[left > 0] + left, right - (0, margin)[right < size[1]]
        candidates = []
        for value in sorted(set(local.ravel().tolist()) - {0}):
            pixels = {(t, y + top, x + left) for t, y, x in np.argwhere(local == value).tolist()}
            touching = any(
                (y == top > 0) or (y == bottom - 1 < size[0] - 1) or (x == left > 0) or (x == right - 1 < size[1] - 1)
                for _, y, x in pixels
            )
            if not touching and any(y0 <= y < y1 and x0 <= x < x1 for _, y, x in pixels):
                candidates.append(pixels)
        before = [(set(pixels), area) for pixels, area in held]
        won = []
        for pixels in sorted(candidates, key=lambda p: -len(p)):
            rivals = [n for n, (old, area) in enumerate(before) if len(old & pixels) > dispute * min(area, len(pixels))]
            if len(pixels) > sum(held[n][1] for n in rivals):
                for n in rivals:
                    held[n] = [set(), 0]
                won.append(pixels)
        taken = set().union(*(pixels for pixels, _ in held))
        held += [[pixels - taken, len(pixels)] for pixels in won]
    return {frozenset(pixels) for pixels, _ in held if pixels}


def test_layout():
    tiling = Tiling(tile=8, overlap=4, margin=2)
    assert spans(tiling.layout((8, 18))) == [(0, 8, 0, 8), (0, 8, 4, 12), (0, 8, 8, 16), (0, 8, 10, 18)]
    assert spans(tiling.layout((12, 5))) == [(0, 8, 0, 5), (4, 12, 0, 5)]  # narrower than a tile
    assert spans(tiling.layout((3, 2))) == [(0, 3, 0, 2)]
    assert spans(Tiling().layout((690, 256)))[-2:] == [(384, 640, 0, 256), (434, 690, 0, 256)]
    assert spans(Tiling(tile=4, overlap=0, margin=0).layout((4, 8))) == [(0, 4, 0, 4), (0, 4, 4, 8)]


@given(st.integers(1, 40), st.integers(1, 16), st.integers(0, 15))
def test_tiles_overlap_and_cover(length, tile, overlap):
    overlap = min(overlap, tile - 1)
    rows = [t.rows for t in Tiling(tile=tile, overlap=overlap, margin=0).layout((length, 1))]
    assert rows[0].start == 0
    assert rows[-1].stop == length
    assert {row.stop - row.start for row in rows} == {min(tile, length)}
    for row, following in pairwise(rows):
        assert row.start < following.start <= row.stop - overlap


def test_options_that_lose_cells_are_refused():
    for options, message in (
        ({"overlap": 256}, "overlap: 256 does not fit tiles of 256 px; choose 0 to 255"),
        ({"overlap": 64}, "margin: 48 px lose cells at an overlap of 64; choose 0 to 32"),
        ({"dispute": 1.5}, "dispute: 1.5 is no fraction"),
    ):
        with pytest.raises(InputError, match=message):
            Tiling(**options)


def test_one_tile_keeps_everything():
    labels = np.random.default_rng(0).integers(0, 4, (2, 30, 40)).astype(np.int32)
    assert cells(Tiling().merge([labels], (30, 40))) == cells(labels)
    assert Tiling().merge([np.zeros((2, 3, 3), np.int32)], (3, 3)).max() == 0


def test_a_cell_cut_by_a_tile_comes_from_the_other_whole():
    tiling = Tiling(tile=8, overlap=4, margin=2, dispute=0)
    left, right = np.zeros((2, 2, 8, 8), np.int32)
    left[:, 3:5, 6:8] = 5  # at the inner side
    right[:, 3:5, 2:5] = 9  # whole
    right[0, 6:8, 4:6] = 3  # at a side of the frame, which is no matter
    merged = tiling.merge([left, right], (8, 12))
    assert merged.dtype == np.int32
    expected = np.zeros((2, 8, 12), np.int32)
    expected[:, 3:5, 6:9], expected[0, 6:8, 8:10] = 1, 2
    assert cells(merged) == cells(expected)


def test_a_touch_in_either_frame_counts():
    tiling = Tiling(tile=8, overlap=4, margin=2)
    left = np.zeros((2, 8, 8), np.int32)
    left[0, 3, 5:7], left[1, 3, 6:8] = 1, 1
    assert tiling.merge([left, np.zeros_like(left)], (8, 12)).max() == 0


def test_cells_in_the_margin_are_left_to_the_neighbour():
    left, right = np.zeros((2, 2, 8, 8), np.int32)
    left[0, 3, 6] = 1  # a pixel that the right tile does not see
    assert Tiling(tile=8, overlap=4, margin=2).merge([left, right], (8, 12)).max() == 0
    assert Tiling(tile=8, overlap=4, margin=1).merge([left, right], (8, 12)).max() == 1
    left[1, 3, 5] = 1  # not wholly in it
    assert Tiling(tile=8, overlap=4, margin=2).merge([left, right], (8, 12)).max() == 1


def test_the_larger_of_rivals_stays():
    tiling = Tiling(tile=8, overlap=4, margin=0, dispute=0)
    for width, expected in ((2, [(0, 5, 7)]), (4, [(1, 6, 10)])):  # 2 x 1 + 2 x 2 pixels against 2 x width
        left, right = np.zeros((2, 2, 8, 8), np.int32)
        left[0, 3:5, 5:7] = 1
        right[1, 3:5, 2 : 2 + width] = 1
        left[1, 3, 6] = 1
        merged = tiling.merge([left, right], (8, 12))
        assert [
            (t, x.min(), x.max() + 1) for t, x in [(expected[0][0], np.nonzero(merged[expected[0][0]])[1])]
        ] == expected
        assert len(cells(merged)) == 1
    # it must be larger than all rivals together
    left, right = np.zeros((2, 2, 8, 8), np.int32)
    left[:, 1:3, 5:7], left[:, 5:7, 5:7] = 1, 2
    right[:, 2:6, 2:3] = 1
    right[:, 2:6, 3:4] = 1
    assert len(cells(tiling.merge([left, right], (8, 12)))) == 2
    right[0, 4, 4] = 1
    assert len(cells(tiling.merge([left, right], (8, 12)))) == 1


def test_outlines_that_differ_by_a_pixel_lose_no_cell():
    left, right = np.zeros((2, 2, 8, 8), np.int32)
    left[:, 2:6, 2:6] = 1  # the left tile gives the disputed column to the left cell
    right[:, 2:6, 1:5] = 1  # a quarter of it
    kept = Tiling(tile=8, overlap=4, margin=0).merge([left, right], (8, 12))
    assert len(cells(kept)) == 2
    assert (kept[:, 2:6, 2:6] == kept[0, 2, 2]).all()  # the earlier one keeps it
    assert (kept[:, 2:6, 6:9] == kept[0, 2, 8]).all()
    assert len(cells(Tiling(tile=8, overlap=4, margin=0, dispute=0).merge([left, right], (8, 12)))) == 1


def test_the_wrong_number_or_size_of_tiles_is_refused():
    tiling = Tiling(tile=8, overlap=4, margin=0)
    tile = np.zeros((2, 8, 8), np.int32)
    for tiles in ([], [tile], [tile] * 3, [tile, tile[:, :, :5]]):
        with pytest.raises(ValueError):  # noqa: PT011
            tiling.merge(tiles, (8, 12))


@st.composite
def small_cells(draw):
    """Tiles of a frame with boxes of at most 2 x 2 pixels, on which the tiles agree or not."""
    size = draw(st.integers(4, 21)), draw(st.integers(4, 21))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tiling = Tiling(tile=8, overlap=4, margin=draw(st.integers(0, 2)), dispute=draw(st.sampled_from([0, 0.25, 0.5, 1])))
    number = draw(st.integers(1, 30))
    labels = np.zeros((2, *size), np.int32)

    def place(target, value):
        top, left = rng.integers(0, target.shape[1] - 1), rng.integers(0, target.shape[2] - 1)
        for frame in (0, 1):
            if rng.random() < 0.8:
                height, width = rng.integers(1, 3, 2)
                target[frame, top : top + height, left : left + width] = value

    for value in range(1, number):
        place(labels, value)
    tiles = crops(labels, tiling, rng)
    for tile in tiles:
        for extra in range(draw(st.integers(0, 6))):
            place(tile, int(tile.max()) + 1 + extra)
    return tiling, tiles, size


@settings(max_examples=150, deadline=None, database=None)
@given(small_cells())
def test_merging_follows_the_rules(case):
    tiling, tiles, size = case
    copies = [tile.copy() for tile in tiles]
    merged = tiling.merge(iter(tiles), size)
    assert cells(merged) == plain_merge(tiles, tiling.layout(size), size, tiling.margin, tiling.dispute)
    for tile, copy in zip(tiles, copies, strict=True):
        np.testing.assert_array_equal(tile, copy)


@settings(max_examples=100, deadline=None, database=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.integers(1, 30), st.integers(0, 2))
@example(20, 32, 39, 15, 0)  # a cell of which the first tiles see a row of pixels only
def test_boxes_of_any_size_come_back_where_tiles_agree(seed, height, width, largest, margin):
    rng = np.random.default_rng(seed)
    tiling = Tiling(tile=8, overlap=4, margin=margin)
    labels = np.zeros((2, height, width), np.int32)
    for value in range(1, 12):
        top, left = rng.integers(0, height), rng.integers(0, width)
        bottom, right = (min(a + rng.integers(1, largest + 1), n) for a, n in ((top, height), (left, width)))
        if not labels[:, top:bottom, left:right].any():
            labels[:, top:bottom, left:right] = value
    merged = tiling.merge(crops(labels, tiling, rng), (height, width))
    assert cells(merged) == cells(numbered(labels))


def test_a_cell_larger_than_a_tile_is_whole_and_its_neighbours_stay():
    y, x = np.mgrid[:60, :60]
    labels = np.zeros((2, 60, 60), np.int32)
    labels[:, (np.hypot(y - 30, x - 30) < 22) & (np.hypot(y - 30, x - 30) > 15)] = 7  # a ring
    box(labels, 3, 28, 28, 5, 5)
    box(labels, 4, 2, 2, 5, 5)
    tiling = Tiling(tile=16, overlap=8, margin=4)
    merged = tiling.merge(crops(labels, tiling), (60, 60))
    assert cells(merged) >= cells(numbered(labels * (labels < 7)))
    ring = merged[labels == 7]
    assert (ring > 0).all()
    assert np.bincount(ring).max() > 0.5 * ring.size


def test_a_large_cell_that_tiles_do_not_agree_on_is_not_lost():
    tiling = Tiling(tile=8, overlap=4, margin=2)
    left, right = np.zeros((2, 2, 8, 8), np.int32)
    right[:, 2:6, 0:5] = 1  # wider than the overlap; the left tile does not see it
    assert cells(tiling.merge([left, right], (8, 12))) == cells(np.pad(right, ((0, 0), (0, 0), (4, 0))))
