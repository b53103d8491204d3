"""Cells from nuclei and cytoplasm."""

import numpy as np
import pytest
from scipy import ndimage

from lightning_cells.errors import InputError
from lightning_cells.instances.nuclei import NucleusDecoder


def probabilities(classes: np.ndarray, sure: float = 0.9) -> np.ndarray:
    """(3, H, W) that say `classes`."""
    rest = (1 - sure) / 2
    return np.where(np.arange(3)[:, None, None] == classes, sure, rest).astype(np.float32)


def two_cells() -> np.ndarray:
    """Cytoplasm 10 x 24 with nuclei about columns 7 and 18: equally far from column 12.5."""
    classes = np.zeros((14, 28), int)
    classes[2:12, 2:26] = 2
    classes[5:9, 5:9] = classes[5:9, 17:21] = 1
    return classes


def test_each_nucleus_is_a_cell_and_borders_lie_halfway() -> None:
    classes = two_cells()
    labels = NucleusDecoder()(probabilities(classes))
    assert labels.max() == 2
    np.testing.assert_array_equal(labels > 0, classes > 0)
    left, right = labels[7, 7], labels[7, 18]
    assert {int(left), int(right)} == {1, 2}
    to_left, to_right = (ndimage.distance_transform_edt(~mask) for mask in (classes == 1) & _halves(classes.shape))
    np.testing.assert_array_equal(labels[(classes > 0) & (to_left < to_right - 1)], left)
    np.testing.assert_array_equal(labels[(classes > 0) & (to_right < to_left - 1)], right)


def _halves(shape: tuple[int, ...]) -> np.ndarray:
    columns = np.arange(shape[1])
    return np.stack([np.broadcast_to(columns < 13, shape), np.broadcast_to(columns >= 13, shape)])


def test_distance_is_measured_within_the_cells() -> None:
    """A wall of background: what lies behind it belongs to the cell on its own side, though the other is nearer."""
    classes = np.zeros((20, 11), int)
    classes[:, 0:5] = classes[:, 6:11] = 2
    classes[0:3, 0:3] = 1
    classes[10:13, 8:11] = 1
    labels = NucleusDecoder()(probabilities(classes))
    assert len(np.unique(labels[:, :5])) == 1
    assert len(np.unique(labels[:, 6:])) == 1
    assert labels[0, 0] != labels[11, 9]


def test_cells_without_a_nucleus_and_small_nuclei() -> None:
    classes = np.zeros((10, 30), int)
    classes[1:9, 1:9] = 2
    classes[1:9, 11:29] = 2
    classes[3:6, 13:16] = 1  # nine pixels
    classes[4:6, 24:26] = 1  # four: too small
    labels = NucleusDecoder(nucleus_size=5)(probabilities(classes))
    assert labels.max() == 2
    assert len(np.unique(labels[1:9, 11:29])) == 1
    assert len(np.unique(NucleusDecoder(nucleus_size=4)(probabilities(classes))[1:9, 11:29])) == 2
    assert len(np.unique(NucleusDecoder(min_size=70)(probabilities(classes)))) == 2, "the first has 64 pixels"


def test_thresholds() -> None:
    classes = two_cells()
    weak = probabilities(classes, sure=0.5)  # the nucleus has two thirds of the cell's probability
    assert NucleusDecoder(nucleus_threshold=0.6)(weak).max() == 2
    assert NucleusDecoder(nucleus_threshold=0.7)(weak).max() == 1, "one cell without a nucleus"
    assert NucleusDecoder(background_threshold=0.2)(weak).max() == 0
    with pytest.raises(InputError, match="nucleus_threshold"):
        NucleusDecoder(nucleus_threshold=1.5)
    with pytest.raises(InputError, match="nucleus_size"):
        NucleusDecoder(nucleus_size=-1)


def test_no_cell_at_all() -> None:
    assert not NucleusDecoder()(probabilities(np.zeros((5, 6), int))).any()


def test_two_classes() -> None:
    """Of a network without cytoplasm every component is a cell."""
    classes = np.zeros((9, 20), int)
    classes[2:7, 2:8] = classes[2:7, 11:18] = 1
    both = np.where(np.arange(2)[:, None, None] == classes, 0.8, 0.2).astype(np.float32)
    np.testing.assert_array_equal(NucleusDecoder()(both), ndimage.label(classes)[0])


def test_many_cells_at_once() -> None:
    """Discs with a nucleus in their middle, apart: each comes back whole."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:128, :128]
    truth = np.zeros((128, 128), int)
    classes = np.zeros((128, 128), int)
    for number, (y, x) in enumerate(((y, x) for y in range(16, 128, 32) for x in range(16, 128, 32)), 1):
        radius = np.hypot(rows - y - rng.integers(-3, 4), columns - x - rng.integers(-3, 4))
        truth[radius < 12] = number
        classes[radius < 12] = 2
        classes[radius < 5] = 1
    labels = NucleusDecoder()(probabilities(classes))
    pairs = set(zip(truth[truth > 0].tolist(), labels[truth > 0].tolist(), strict=True))
    assert len(pairs) == 16
    np.testing.assert_array_equal(labels > 0, truth > 0)
