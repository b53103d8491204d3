"""Frames that show nothing, and those that show little."""

import numpy as np
import pytest
import torch

from lightning_cells.instances.emptiness import is_empty
from lightning_cells.methods.building import Preprocessing


def prepared(frame: np.ndarray, normalisation: str = "zscore", scale: float = 1.0) -> torch.Tensor:
    return Preprocessing(normalisation, scale).prepare([frame.clip(0, 65535).astype(np.uint16)])[0, 0]


def discs(diameter: int, count: int, deviations: float, size: int = 256, seed: int = 0) -> np.ndarray:
    """Discs that are brighter than the noise around them by some of its standard deviations."""
    rng = np.random.default_rng(seed)
    frame = rng.normal(300, 10, (size, size))
    rows, columns = np.indices(frame.shape)
    inside = np.zeros(frame.shape, bool)
    for y, x in rng.integers(diameter // 2, size - diameter // 2, (count, 2)):
        inside |= (rows - y) ** 2 + (columns - x) ** 2 <= (diameter / 2) ** 2
    return frame + 10 * deviations * inside


@pytest.mark.parametrize("normalisation", ["zscore", "log_zscore", "percentile"])
@pytest.mark.parametrize("value", [0, 7, 65535])
def test_one_value(normalisation, value):
    assert is_empty(prepared(np.full((50, 70), value), normalisation))
    assert is_empty(prepared(np.full((5, 7), value), normalisation))


@pytest.mark.parametrize("normalisation", ["zscore", "log_zscore", "percentile"])
@pytest.mark.parametrize("scale", [0.3, 0.5, 0.75, 1.0, 1.7, 2.0])
@pytest.mark.parametrize("photons", [3, 30, 1000])
def test_noise_of_a_camera(normalisation, scale, photons):
    rng = np.random.default_rng(int(10 * photons))
    for size in ((128, 160), (500, 400)):
        assert is_empty(prepared(rng.poisson(photons, size), normalisation, scale))
        assert is_empty(prepared(rng.normal(5000, photons, size), normalisation, scale))


def test_few_photons():
    assert is_empty(prepared(np.random.default_rng(0).poisson(0.5, (512, 512))))


@pytest.mark.parametrize("diameter", [10, 13, 25, 60])
@pytest.mark.parametrize("count", [1, 3, 30, 300])
@pytest.mark.parametrize("normalisation", ["zscore", "percentile"])
def test_dim_cells(diameter, count, normalisation):
    for seed in range(5):
        assert not is_empty(prepared(discs(diameter, count, 1.5, seed=seed), normalisation))


def test_a_background_that_is_not_even_is_left_to_the_network():
    noise = np.random.default_rng(0).normal(300, 10, (200, 200))
    assert not is_empty(prepared(noise + 0.2 * np.arange(200)))


def test_frames_too_small_to_tell():
    assert not is_empty(prepared(np.random.default_rng(0).poisson(30, (31, 200))))
