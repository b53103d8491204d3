import numpy as np
import pytest
from scipy import ndimage

from lightning_cells.errors import InputError
from lightning_cells.instances.regions import (
    connected_components,
    fill_labels,
    fill_mask,
    grow_labels,
    select_labels,
)


def random_mask(seed, density=0.55, size=(37, 53)):
    return np.random.default_rng(seed).random(size) < density


@pytest.mark.parametrize(
    ("connectivity", "structure"), [(4, ndimage.generate_binary_structure(2, 1)), (8, np.ones((3, 3)))]
)
def test_components_are_those_of_scipy(connectivity, structure):
    mask = random_mask(0)
    labels = connected_components(mask, connectivity)
    expected, count = ndimage.label(mask, structure)
    assert labels.dtype == np.int32
    assert (
        len(set(zip(labels.ravel().tolist(), expected.ravel().tolist(), strict=True))) == count + 1 == labels.max() + 1
    )


@pytest.mark.parametrize("seed", range(5))
def test_filled_mask_is_that_of_scipy(seed):
    mask = random_mask(seed)
    filled = fill_mask(mask)
    np.testing.assert_array_equal(filled, ndimage.binary_fill_holes(mask))
    assert filled.sum() > mask.sum()


def test_only_holes_within_one_label_are_filled():
    labels = np.zeros((9, 14), np.int32)
    labels[1:8, 1:8] = 1
    labels[1:8, 8:13] = 2
    labels[2, 2] = 0  # a hole of 1
    labels[3, 7:9] = 0  # between 1 and 2
    labels[5:8, 4:7] = 0
    labels[6, 5] = 3  # a cell in a hole of 1, apart from it
    labels[8, 5] = 1  # closes the hole at the bottom
    labels[7, 4:7] = [0, 1, 0]
    labels[8, 4:7] = 1
    labels[4, 10] = 0  # a hole of 2
    labels[7, 11] = labels[8, 11] = 0  # open to the border
    before = labels.copy()
    filled = fill_labels(labels)
    expected = labels.copy()
    expected[2, 2] = 1
    expected[4, 10] = 2
    np.testing.assert_array_equal(filled, expected)
    np.testing.assert_array_equal(labels, before)  # the argument is untouched
    assert filled.dtype == np.int32


@pytest.mark.parametrize("seed", range(5))
def test_filled_labels_are_those_of_a_loop(seed):
    labels = np.where(random_mask(seed, 0.7, (30, 31)), 1 + (np.arange(31) > 14), 0).astype(np.int32)
    holes, count = ndimage.label(labels == 0)
    expected = labels.copy()
    for hole in range(1, count + 1):
        where = holes == hole
        ring = ndimage.binary_dilation(where) & ~where
        at_border = where[0].any() or where[-1].any() or where[:, 0].any() or where[:, -1].any()
        if not at_border and len(np.unique(labels[ring])) == 1:
            expected[where] = labels[ring][0]
    np.testing.assert_array_equal(fill_labels(labels), expected)
    assert (expected != labels).any()


@pytest.mark.parametrize("distance", [0, 1, 1.5, 2, 5, 7.2])
def test_growth_gives_the_nearest_label(distance):
    rng = np.random.default_rng(1)
    labels = np.where(rng.random((24, 31)) < 0.02, rng.integers(1, 9, (24, 31)), 0).astype(np.int32)
    into = rng.random((24, 31)) < 0.7
    grown = grow_labels(labels, into, distance)
    sources = np.argwhere(labels > 0)
    assert grown.shape == labels.shape
    for y, x in np.ndindex(labels.shape):
        if labels[y, x] > 0 or not into[y, x]:
            assert grown[y, x] == labels[y, x]
            continue
        lengths = np.hypot(*(sources - (y, x)).T)
        if lengths.min() >= distance:
            assert grown[y, x] == 0
        else:  # among equally near ones any
            nearest = sources[lengths == lengths.min()]
            assert grown[y, x] in labels[tuple(nearest.T)]


def test_selection_by_size_and_place_renumbers():
    labels = np.zeros((10, 10), np.int32)
    labels[0, 0:3] = 2  # 3 px in the margin
    labels[1:3, 1:3] = 4  # 4 px, one of them inside a margin of 2
    labels[5, 5:7] = 7  # 2 px
    labels[7:9, 3:9] = 9  # 12 px
    assert np.bincount(select_labels(labels).ravel()).tolist() == [79, 3, 4, 2, 12]
    assert np.bincount(select_labels(labels, min_size=3, max_size=4).ravel()).tolist() == [93, 3, 4]
    inside = select_labels(labels, border=2)
    assert [inside[0, 0], inside[1, 1], inside[5, 5], inside[7, 3]] == [0, 1, 2, 3]
    assert inside.dtype == np.int32
    with pytest.raises(InputError, match="border: 5 px leave nothing of a 10x10 frame"):
        select_labels(labels, border=5)
