"""The pixel classifier that stands for Ilastik."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from lightning_cells.errors import InputError
from lightning_cells.instances.pixel_forest import PixelForest


def discs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bright discs among bright rings that are no cells: no threshold tells them apart."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :96]
    frame, labels = np.zeros((96, 96)), np.zeros((96, 96), np.int32)
    for number, (row, column) in enumerate((r, c) for r in (16, 48, 80) for c in (16, 48, 80)):
        distance = np.hypot(y - row - rng.uniform(-4, 4), x - column - rng.uniform(-4, 4))
        if number % 2:
            frame[(distance < 9) & (distance > 6)] = 1
        else:
            frame[distance < 9] = 1
            labels[distance < 9] = number + 1
    return 1000 + 500 * gaussian_filter(frame, 0.7) + rng.normal(0, 40, frame.shape), labels


def test_it_learns_from_a_frame_what_a_cell_is() -> None:
    frame, labels = discs(0)
    forest = PixelForest([frame], [labels], seed=3)
    other, truth = discs(1)
    found = forest(other)
    assert found.dtype == np.int32
    for label in np.unique(truth)[1:]:
        inside = np.bincount(found[truth == label], minlength=2)
        inside[0] = 0
        best = found == inside.argmax()
        assert (best & (truth == label)).sum() / (best | (truth == label)).sum() > 0.7
    assert found.max() <= 6  # five discs, and at most one ring taken for one
    np.testing.assert_allclose(forest.probabilities(other).sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(PixelForest([frame], [labels], seed=3)(other), found)


def test_unknown_pixels_teach_nothing() -> None:
    frame, labels = discs(0)
    odd = frame.copy()
    odd[:40] = 5000
    unknown = labels.copy()
    unknown[:40] = -1
    with_odd = PixelForest([frame, odd], [labels, unknown])
    assert with_odd.probabilities(discs(1)[0])[0].mean() > 0.5
    with pytest.raises(InputError, match="needs background and segmented cells"):
        PixelForest([frame], [np.where(labels == 0, -1, labels)])
