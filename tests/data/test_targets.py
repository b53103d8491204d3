"""Targets against scikit-image's morphology, brute-force distances and arrays written by hand."""

import pickle

import numpy as np
import pytest
from scipy import ndimage
from skimage import draw, morphology

from lightning_cells.data.targets import (
    ForegroundTarget,
    ThreeClassTarget,
    TwoClassTarget,
    border_weights,
    cell_ids,
    three_class,
    two_class,
)
from lightning_cells.errors import InputError

SQUARE = np.ones((3, 3), bool)


def cells(seed, number=25, size=(90, 70)):
    """Ellipses that touch, overlap, lie at the edge and have ids with gaps, painted in random order."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(size, np.int32)
    for label in rng.choice(60_000, number, replace=False) + 1:
        centre = rng.uniform(0, size)
        rows, columns = draw.ellipse(*centre, *rng.uniform(2, 9, 2), shape=size, rotation=rng.uniform(0, 3))
        labels[rows, columns] = label
    return labels


def inner_by_erosion(labels):
    classes = np.zeros(labels.shape, np.int8)
    for label in np.unique(labels[labels > 0]):
        cell = labels == label
        interior = morphology.erosion(cell, SQUARE)  # beyond the edge counts as cell
        classes[cell] = 2
        classes[interior] = 1
    return classes


def outer_by_dilation(labels):
    spread = morphology.dilation(labels, SQUARE)
    classes = (labels > 0).astype(np.int8)
    classes[(spread > 0) & (labels != spread)] = 2
    return classes


def grid(text):
    """Integers from rows of words."""
    return np.array([[int(word) for word in row.split()] for row in text.strip().splitlines()], np.int32)


def test_cell_ids_of_every_kind_of_pixel():
    labels = np.array([[7, 0, -1], [-2, -8, 65535]], np.int32)
    ids = cell_ids(labels)
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, [[7, 0, 0], [1, 7, 65535]])
    np.testing.assert_array_equal(cell_ids(np.array([0, 40_000], np.uint16)), [0, 40_000])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("contour", "oracle"), [("inner", inner_by_erosion), ("outer", outer_by_dilation)])
def test_three_classes_equal_morphology(seed, contour, oracle):
    clip = np.stack([cells(10 * seed), cells(10 * seed + 1, number=3), np.zeros((90, 70), np.int32)])
    classes = three_class(clip, contour)
    assert classes.dtype == np.int8
    for frame, labels in zip(classes, clip, strict=True):
        np.testing.assert_array_equal(frame, oracle(labels))
    np.testing.assert_array_equal(three_class(clip[0], contour), classes[0])  # without a time axis
    np.testing.assert_array_equal(three_class(clip.astype(np.uint16), contour), classes)


def test_touching_cells_by_hand():
    labels = grid("""
        0 0 0 0 0 0 0 0 0
        0 3 3 3 3 5 5 5 0
        0 3 3 3 3 5 5 5 0
        0 3 3 3 3 5 5 5 0
        0 0 0 0 0 0 0 0 0
    """)
    inner = grid("""
        0 0 0 0 0 0 0 0 0
        0 2 2 2 2 2 2 2 0
        0 2 1 1 2 2 1 2 0
        0 2 2 2 2 2 2 2 0
        0 0 0 0 0 0 0 0 0
    """)
    outer = grid("""
        2 2 2 2 2 2 2 2 2
        2 1 1 1 2 1 1 1 2
        2 1 1 1 2 1 1 1 2
        2 1 1 1 2 1 1 1 2
        2 2 2 2 2 2 2 2 2
    """)
    np.testing.assert_array_equal(three_class(labels), inner)
    np.testing.assert_array_equal(three_class(labels, "outer"), outer)
    np.testing.assert_array_equal(two_class(labels), (labels > 0) & (np.arange(9) != 4))


def test_the_edge_of_a_crop_is_no_contour():
    inside = three_class(np.full((6, 6), 4, np.int32))
    np.testing.assert_array_equal(inside, 1)
    whole = cells(5)
    crop = np.s_[20:60, 10:50]
    cut, uncut = three_class(whole[crop]), three_class(whole)[crop]
    np.testing.assert_array_equal(cut[1:-1, 1:-1], uncut[1:-1, 1:-1])
    assert not ((cut == 2) & (uncut != 2)).any()  # the cut adds no contour
    assert ((uncut == 2) & (cut == 1)).any()


def test_unknown_and_marker_pixels():
    labels = grid("""
        7 7 7 -1 0 0 0
        7 7 7 -1 0 0 9
        7 7 7 -8 0 9 9
        7 7 7 -3 0 0 9
        7 7 7  0 0 0 0
    """)
    inner = grid("""
        1 1  2 -1 0 0 0
        1 1  2 -1 0 0 2
        1 1  2 -1 0 2 2
        1 1  2 -1 0 0 2
        1 1  2  0 0 0 0
    """)
    # -8 is a marker of cell 7 itself and makes no contour; -3 is one of cell 2 and does
    np.testing.assert_array_equal(three_class(labels), inner)
    outer = grid("""
        1 1 -1 -1 -1 2 2
        1 1 -1 -1  2 2 1
        1 1 -1 -1  2 1 1
        1 1  1 -1  2 2 1
        1 1  1  2  2 2 2
    """)
    np.testing.assert_array_equal(three_class(labels, "outer"), outer)
    two = np.where(labels < 0, -1, labels > 0)
    np.testing.assert_array_equal(two_class(labels), two)


def test_a_cell_drawn_in_an_unknown_frame_has_its_contour():
    labels = np.where(cells(2, number=1) > 0, 3, -1)
    classes = three_class(labels)
    assert set(np.unique(classes)) == {-1, 1, 2}
    interior = morphology.erosion(labels == 3, SQUARE)
    np.testing.assert_array_equal(classes == 1, interior)
    np.testing.assert_array_equal(classes == 2, (labels == 3) & ~interior)


@pytest.mark.parametrize("seed", range(3))
def test_two_class_gap_separates_cells_and_takes_no_more(seed):
    labels = cells(seed, number=60)
    classes = two_class(labels)
    assert classes.dtype == np.int8
    kept = np.where(classes == 1, labels, 0)
    for down, right in [(0, 1), (1, 0), (1, 1)]:
        a = kept[: kept.shape[0] - down, : kept.shape[1] - right]
        b = kept[down:, right:]
        assert not ((a != b) & (a > 0) & (b > 0)).any()
    gap = (labels > 0) & (classes == 0)
    assert gap.any()
    for row, column in np.argwhere(gap):
        around = labels[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        assert (around > labels[row, column]).any()


def brute_border(labels, w0, sigma):
    """The border term on every pixel from one distance map of the whole frame per cell."""
    kept = np.where(two_class(labels) == 1, labels, 0)
    ids = np.unique(kept[kept > 0])
    if len(ids) < 2:
        return np.zeros(labels.shape)
    maps = np.sort([ndimage.distance_transform_edt(kept != label) for label in ids], axis=0)
    return w0 * np.exp(-((maps[0] + maps[1]) ** 2) / (2 * sigma**2)) * (two_class(labels) == 0)


@pytest.mark.parametrize(("seed", "w0", "sigma"), [(0, 10.0, 5.0), (1, 4.0, 2.5), (2, 10.0, 8.0)])
def test_border_weights_equal_brute_force(seed, w0, sigma):
    labels = cells(seed)
    weights = border_weights(labels, w0, sigma)
    assert weights.dtype == np.float32
    border = weights - border_weights(labels, 0.0, sigma)
    np.testing.assert_allclose(border, brute_border(labels, w0, sigma), atol=w0 * np.exp(-8) + 1e-5)
    assert border.max() > 0.7 * w0  # cells touch somewhere


def test_border_weights_by_hand():
    labels = np.zeros((1, 7), np.int32)
    labels[0, 0], labels[0, 6] = 1, 2
    weights = border_weights(labels, 10.0, 5.0)
    background, foreground = 7 / (2 * 5), 7 / (2 * 2)
    expected = background + 10 * np.exp(-36 / 50)  # d1 + d2 = 6 everywhere between the two
    np.testing.assert_allclose(weights[0, 1:6], expected, rtol=1e-6)
    np.testing.assert_allclose(weights[0, [0, 6]], foreground, rtol=1e-6)


def test_classes_are_balanced_over_the_known_pixels_of_the_clip():
    clip = np.stack([cells(3), cells(4, number=2)])
    clip[:, :20] = -1
    classes = two_class(clip)
    weights = border_weights(clip, w0=0.0)
    known = classes >= 0
    assert weights[known].mean() == pytest.approx(1, rel=1e-4)
    assert weights[classes == 0].sum() == pytest.approx(weights[classes == 1].sum(), rel=1e-4)
    assert not weights[~known].any()


def test_weights_of_empty_unknown_and_lone():
    np.testing.assert_array_equal(border_weights(np.zeros((2, 5, 5), np.int32)), 1)
    np.testing.assert_array_equal(border_weights(np.full((2, 5, 5), -1)), 0)
    np.testing.assert_array_equal(border_weights(np.full((5, 5), 9)), 1)
    lone = np.zeros((9, 9), np.int32)
    lone[:3] = 5
    np.testing.assert_array_equal(np.unique(border_weights(lone)), np.float32([0.75, 1.5]))


def test_border_term_is_of_the_own_frame_only():
    clip = np.stack([cells(6), cells(7)])
    border = border_weights(clip) - border_weights(clip, w0=0.0)
    for frame, labels in zip(border, clip, strict=True):
        alone = border_weights(labels) - border_weights(labels, w0=0.0)
        np.testing.assert_allclose(frame, alone, atol=1e-5)


def test_weights_are_the_same_to_the_last_bit_wherever_the_arrays_lie():
    clip = np.stack([cells(6), cells(7)])
    held = []  # so that each time the arrays made in between come to lie elsewhere
    weights = set()
    for size in range(1, 2000, 100):
        held.append(np.empty(size, np.uint8))
        weights.add(border_weights(clip).tobytes())
    assert len(weights) == 1


def test_turned_and_flipped_views():
    clip = np.stack([cells(8), cells(9)])
    weights, classes = border_weights(clip), three_class(clip)
    turned = np.rot90(clip, axes=(1, 2))[:, ::-1]
    assert not turned.flags.c_contiguous
    again = border_weights(turned)
    assert again.flags.c_contiguous
    np.testing.assert_array_equal(again, np.rot90(weights, axes=(1, 2))[:, ::-1])
    np.testing.assert_array_equal(three_class(turned), np.rot90(classes, axes=(1, 2))[:, ::-1])


def test_makers_pickle_and_give_named_arrays():
    clip = np.stack([cells(1), np.full((90, 70), -1, np.int32)])
    before = clip.copy()
    three = pickle.loads(pickle.dumps(ThreeClassTarget("outer")))(clip)
    assert list(three) == ["classes"]
    np.testing.assert_array_equal(three["classes"], three_class(clip, "outer"))
    plain = pickle.loads(pickle.dumps(ForegroundTarget()))(clip)
    assert list(plain) == ["classes"]
    assert plain["classes"].dtype == np.int8
    np.testing.assert_array_equal(plain["classes"], two_class(clip))
    two = pickle.loads(pickle.dumps(TwoClassTarget(w0=3.0, sigma=4.0)))(clip)
    assert list(two) == ["classes", "weights"]
    np.testing.assert_array_equal(two["classes"], two_class(clip))
    np.testing.assert_allclose(two["weights"], border_weights(clip, 3.0, 4.0), rtol=1e-6)
    assert {(v.dtype.name, v.shape) for v in two.values()} == {("int8", clip.shape), ("float32", clip.shape)}
    np.testing.assert_array_equal(clip, before)


def test_wrong_options_are_named():
    labels = np.zeros((4, 4), np.int32)
    with pytest.raises(InputError, match="contour 'middle'"):
        three_class(labels, "middle")
    with pytest.raises(InputError, match="sigma 0"):
        border_weights(labels, sigma=0)
    with pytest.raises(InputError, match="w0 -1"):
        border_weights(labels, w0=-1)
