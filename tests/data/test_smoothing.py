"""Smooth outlines of cells."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from lightning_cells.data.augment import Augmentation, ClipAugmentation
from lightning_cells.data.intensity import smooth_labels


def cells(seed: int = 0) -> np.ndarray:
    """Jagged cells that touch, frames apart."""
    rng = np.random.default_rng(seed)
    fields = gaussian_filter(rng.normal(size=(3, 5, 48, 56)), (0, 0, 4, 4))
    labels = fields.argmax(1) * 7
    jags = rng.random(labels.shape) < 0.2
    return np.where(jags, np.roll(labels, 1, -1), labels).astype(np.int32)


@pytest.mark.parametrize("sigma", [0.7, 2.0])
def test_each_pixel_is_of_what_is_most_around_it(sigma):
    """Against a blur of every label over the whole frame."""
    labels = cells()
    smooth = smooth_labels(labels, sigma)
    assert smooth.dtype == np.int32
    for before, after in zip(labels, smooth, strict=True):
        ids = np.unique(before)
        blurred = np.stack([gaussian_filter((before == k).astype(float), sigma, mode="nearest") for k in ids])
        ranked = np.sort(blurred, 0)
        clear = ranked[-1] - ranked[-2] > 1e-3
        assert clear.mean() > 0.97
        np.testing.assert_array_equal(after[clear], ids[blurred.argmax(0)][clear])
    assert (smooth != labels).any()


def edges(labels: np.ndarray) -> int:
    return int((np.diff(labels, axis=-1) != 0).sum() + (np.diff(labels, axis=-2) != 0).sum())


def test_outlines_get_shorter_and_cells_stay():
    labels = cells()
    before = labels.copy()
    smooth = smooth_labels(labels, 2.0)
    assert edges(smooth) < 0.85 * edges(labels)
    np.testing.assert_array_equal(labels, before)
    assert smooth_labels(labels, 0) is labels
    none = labels[:0]
    assert smooth_labels(none, 1.0).shape == none.shape


def test_unknown_pixels_markers_and_tiny_cells_stay():
    labels = cells()
    labels[:, :, 40:] = -1
    labels[:, 10:14, 10:14] = -5
    labels[:, 30, 20] = 60000  # a single pixel
    smooth = smooth_labels(labels, 3.0)
    np.testing.assert_array_equal(smooth < 0, labels < 0)
    np.testing.assert_array_equal(smooth[labels < 0], labels[labels < 0])
    np.testing.assert_array_equal(smooth == 60000, labels == 60000)
    only = np.full((1, 5, 5), -1, np.int32)
    np.testing.assert_array_equal(smooth_labels(only, 2.0), only)


def test_clips_have_smooth_outlines():
    labels = cells()
    frames = np.random.default_rng(0).random(labels.shape).astype(np.float32)
    plain, smooth = (
        ClipAugmentation(Augmentation(crop=32, label_smoothing=sigma))(frames, labels, None, [0, 2], None, 7)
        for sigma in (0.0, 1.5)
    )
    np.testing.assert_array_equal(plain[0], smooth[0])
    np.testing.assert_array_equal(smooth[1], smooth_labels(plain[1], 1.5))
    assert ClipAugmentation(Augmentation(crop=32, label_smoothing=1.5))(frames, None, None, [0], None, 7)[1] is None
