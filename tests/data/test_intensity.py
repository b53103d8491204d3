"""Normalising and resampling single frames."""

import numpy as np
import pytest
from data_cases import complaint

from lightning_cells.data.intensity import noise, normalise, rescale, rescale_labels, resize_labels

RNG = np.random.default_rng(0)
FRAMES = [
    RNG.integers(0, 255, (40, 50)).astype(np.uint8),
    RNG.poisson(900, (33, 71)).astype(np.uint16),
    RNG.gamma(2.0, 300.0, (33, 71)).astype(np.float32),
]


@pytest.mark.parametrize("frame", FRAMES)
def test_zscore(frame: np.ndarray) -> None:
    result = normalise(frame, "zscore")
    assert result.dtype == np.float32
    exact = frame.astype(float)
    np.testing.assert_allclose(result, (exact - exact.mean()) / exact.std(), atol=1e-5)


@pytest.mark.parametrize("frame", FRAMES)
def test_log_zscore(frame: np.ndarray) -> None:
    exact = np.log(1 + frame.astype(float))
    np.testing.assert_allclose(normalise(frame, "log_zscore"), (exact - exact.mean()) / exact.std(), atol=1e-4)


@pytest.mark.parametrize("frame", FRAMES)
def test_percentiles_become_minus_one_and_one(frame: np.ndarray) -> None:
    result = normalise(frame, "percentile")
    low, high = np.percentile(frame.astype(float), (0.1, 99.9))
    np.testing.assert_allclose(result, 2 * (frame - low) / (high - low) - 1, atol=1e-5)


def test_percentiles_do_not_clip() -> None:
    frame = np.tile(np.arange(100, dtype=np.uint16), (100, 1))
    frame[0, 0] = 10000
    assert normalise(frame, "percentile").max() > 100


@pytest.mark.parametrize("normalisation", ["zscore", "log_zscore", "percentile", "signal"])
@pytest.mark.parametrize("value", [0, 1, 777, 65535])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_constant_frames_become_zero(normalisation, value: int, dtype: type) -> None:
    result = normalise(np.full((37, 41), value, dtype), normalisation)
    np.testing.assert_array_equal(result, np.zeros((37, 41)))


def test_nearly_constant_frame_is_not_lost() -> None:
    frame = np.full((100, 100), 500, np.uint16)
    frame[3, 4] = 501  # both percentiles are 500
    result = normalise(frame, "percentile")
    assert (result[3, 4], result[0, 0]) == (1, -1)
    assert np.isfinite(normalise(frame, "zscore")).all()


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_light_above_the_background_is_compressed(dtype: type) -> None:
    frame = RNG.normal(500, 10, (100, 100))
    frame[40:60, 40:60] += 3000
    frame[70:80, 40:60] += 300
    frame = frame.round().astype(dtype)
    low, high = np.percentile(frame.astype(float), (5, 99.9))
    result = normalise(frame, "signal")
    np.testing.assert_allclose(result, np.arcsinh((frame - low) / (0.1 * (high - low))), atol=1e-4)
    assert result[75, 50] > 0.25 * result[50, 50], "dim cells are not lost beside bright ones"


def test_noise_alone_is_not_lifted_to_full_contrast() -> None:
    empty = RNG.poisson(400, (128, 128)).astype(np.uint16)
    assert normalise(empty, "signal").std() == pytest.approx(1 / 6, rel=0.1)
    cells = empty.copy()
    cells[30:90, 30:90] += 2000
    assert normalise(cells, "signal").std() > 1
    assert normalise(empty, "zscore").std() == pytest.approx(1)


@pytest.mark.parametrize("sigma", [1.0, 5.0, 40.0])
def test_noise_is_measured_beside_cells_and_slopes(sigma: float) -> None:
    rows, columns = np.mgrid[:200, :201]
    scene = 3 * columns + 800 * ((rows - 90) ** 2 + (columns - 70) ** 2 < 900)
    assert noise(scene + sigma * RNG.standard_normal(scene.shape)) == pytest.approx(sigma, rel=0.05)
    assert noise(np.zeros((1, 9))) == noise(np.full((8, 8), 7, np.uint8)) == 0


def test_unknown_normalisation() -> None:
    complaint(lambda: normalise(FRAMES[0], "minmax"), "minmax", "zscore, log_zscore, percentile, signal")


@pytest.mark.parametrize("factor", [2, 4])
def test_shrinking_takes_block_means(factor: int) -> None:
    frame = FRAMES[1][:32, :68]
    blocks = frame.astype(float).reshape(32 // factor, factor, 68 // factor, factor).mean(axis=(1, 3))
    np.testing.assert_allclose(rescale(frame, 1 / factor), blocks, rtol=1e-6)


def test_shrinking_by_an_odd_factor_keeps_the_mean() -> None:
    frame = FRAMES[1][:30, :70]
    small = rescale(frame, 0.7)
    assert small.shape == (21, 49)
    assert small.mean() == pytest.approx(frame.mean(), rel=1e-4)


def test_sizes_are_rounded_and_never_zero() -> None:
    assert rescale(np.zeros((5, 7), np.uint8), 0.5).shape == (2, 4)
    assert rescale(np.zeros((3, 3), np.uint8), 0.01).shape == (1, 1)
    assert rescale(np.zeros((10, 13), np.uint8), 1.5).shape == (15, 20)
    assert rescale_labels(np.zeros((2, 5, 7), np.int32), 0.5).shape == (2, 2, 4)


def test_no_scale_no_copy() -> None:
    assert rescale(FRAMES[0], 1.0) is FRAMES[0]
    assert rescale_labels(FRAMES[0], 1.0) is FRAMES[0]


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_scales(scale: float) -> None:
    complaint(lambda: rescale(FRAMES[0], scale), "scale", scale)


@pytest.mark.parametrize("size", [(4, 4), (3, 10), (12, 18), (5, 9), (1, 1)])
def test_labels_are_taken_at_pixel_centres(size: tuple[int, int]) -> None:
    labels = RNG.integers(-9, 70000, (2, 6, 9)).astype(np.int32)
    result = resize_labels(labels, size)
    assert result.dtype == np.int32
    for y in range(size[0]):
        for x in range(size[1]):
            row, column = int((y + 0.5) * 6 / size[0]), int((x + 0.5) * 9 / size[1])
            np.testing.assert_array_equal(result[:, y, x], labels[:, row, column])


def test_labels_return_from_twice_the_size() -> None:
    labels = RNG.integers(0, 9, (6, 9))
    np.testing.assert_array_equal(resize_labels(resize_labels(labels, (12, 18)), (6, 9)), labels)


@pytest.mark.parametrize("scale", [0.5, 0.25, 2.0])
def test_frames_and_labels_stay_aligned(scale: float) -> None:
    labels = np.zeros((64, 64), np.int32)
    labels[16:40, 8:32] = 5
    frame = rescale((labels * 100).astype(np.uint16), scale)
    np.testing.assert_array_equal(frame > 250, rescale_labels(labels, scale) == 5)
