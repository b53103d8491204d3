"""Optics, textures and label clean-up of the simulators."""

import numpy as np
import pytest
from scipy import ndimage

from lightning_cells.data.simulation.optics import blur, camera, haze, illumination, smooth_field
from lightning_cells.data.simulation.shapes import TextureBank, check_labels, largest_parts, speckle
from lightning_cells.errors import InputError


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("size", [(32, 32), (33, 61), (200, 40)])
@pytest.mark.parametrize("scale", [1.5, 7.0, 40.0, 500.0])
def test_smooth_field(size: tuple[int, int], scale: float) -> None:
    field = smooth_field(rng(), size, scale)
    assert field.shape == size
    assert np.isfinite(field).all()
    steps = np.abs(np.diff(field, axis=0)).max()
    assert steps < 12 / scale, "no structure below the scale"


def test_smooth_field_varies_like_a_standard_normal() -> None:
    field = smooth_field(rng(), (600, 600), 6.0)
    assert abs(field.mean()) < 0.1
    assert 0.5 < field.std() < 1.1


def test_illumination_spans_its_depth() -> None:
    light = illumination(rng(), (50, 70), 0.4)
    assert light.shape == (50, 70)
    assert light.min() == pytest.approx(0.6)
    assert light.max() == pytest.approx(1.0)


def test_blur_and_haze_spread_light() -> None:
    image = np.zeros((61, 61))
    image[30, 30] = 100
    assert blur(image, 2.0).sum() == pytest.approx(100)
    assert blur(image, 2.0)[30, 30] == pytest.approx(100 / (2 * np.pi * 4), rel=0.05)
    hazy = haze(image, 0.5, 9.0)
    assert hazy.sum() == pytest.approx(150, rel=0.1)
    assert 0 < hazy[30, 36] < 1
    assert haze(np.ones((45, 32)), 0.5, 9.0) == pytest.approx(np.full((45, 32), 1.5))


def test_camera_has_shot_and_read_noise() -> None:
    image = camera(rng(), np.full((300, 300), 50.0), gain=4.0, offset=300.0, read_noise=8.0)
    assert image.dtype == np.uint16
    assert image.mean() == pytest.approx(300 + 4 * 50, rel=0.01)
    assert image.var() == pytest.approx(16 * 50 + 64, rel=0.05)
    dark = camera(rng(), np.full((300, 300), -5.0), gain=4.0, offset=300.0, read_noise=8.0)
    assert dark.mean() == pytest.approx(300, abs=0.5)
    assert camera(rng(), np.full((4, 4), 1e6), 4.0, 0.0, 1.0).min() == 65535
    assert camera(rng(), np.zeros((4, 4)), 4.0, -100.0, 1.0).max() == 0


def test_largest_parts_keeps_one_piece_of_each_label() -> None:
    labels = rng().integers(0, 4, (40, 40)).astype(np.int32)
    labels[5:20, 5:20], labels[22:30, 22:30] = 3, 2
    kept = largest_parts(labels)
    for label in (1, 2, 3):
        parts, count = ndimage.label(labels == label)
        areas = ndimage.sum_labels(labels == label, parts, np.arange(1, count + 1))
        mine, pieces = ndimage.label(kept == label)
        assert pieces == 1
        assert mine.sum() == areas.max()
        assert (labels[kept == label] == label).all()
    assert not largest_parts(np.zeros((5, 5), np.int32)).any()


def test_texture_bank_interpolates_linearly() -> None:
    textures = speckle(rng(), 5, 17, 1.5)
    assert textures.std(axis=(1, 2)) == pytest.approx(np.ones(5))
    u, v = rng().uniform(-1, 1, (2, 200))
    which = rng().integers(0, 1000, 200)
    found = TextureBank(textures).sample(which, u, v)
    wanted = ndimage.map_coordinates(textures, [which % 5, (v + 1) * 8, (u + 1) * 8], order=1)
    assert found == pytest.approx(wanted, abs=1e-5)
    assert np.isfinite(TextureBank(textures).sample(np.zeros(2, int), np.array([-1.0, 1]), np.ones(2))).all()


def test_labels_fit_16_bits() -> None:
    check_labels(65535)
    with pytest.raises(InputError, match="65535"):
        check_labels(65536)
