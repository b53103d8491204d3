import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from lightning_cells.data.augment import Augmentation, ClipAugmentation


def intensity(clip: np.ndarray, seed: int = 0, **settings) -> np.ndarray:
    frames = ClipAugmentation(Augmentation(crop=None, flip=False, rot90=False, **settings))(
        clip, None, None, range(len(clip)), None, seed
    )[0]
    return frames.astype(np.float64)


@pytest.fixture
def clip():
    return np.random.default_rng(5).normal(size=(4, 40, 40)).astype(np.float32) * 3


def test_scale_and_shift_are_one_draw_per_clip_and_do_not_clip(clip):
    scales, shifts = [], []
    for seed in range(100):
        changed = intensity(clip, seed, intensity_scale=(0.5, 1.5), intensity_shift=0.6)
        scale, offset = np.polyfit(clip.ravel(), changed.ravel(), 1)
        np.testing.assert_allclose(changed, clip * scale + offset, atol=1e-4)
        scales.append(scale)
        shifts.append(offset / scale)
    assert 0.5 <= min(scales) < 0.6
    assert 1.4 < max(scales) <= 1.5
    assert -0.601 <= min(shifts) < -0.5
    assert 0.5 < max(shifts) <= 0.601


def test_frame_jitter_changes_each_frame_by_itself(clip):
    changed = intensity(clip, frame_jitter=0.1)
    fits = np.array([np.polyfit(before.ravel(), after.ravel(), 1) for before, after in zip(clip, changed, strict=True)])
    assert len(np.unique(fits[:, 0].round(6))) == len(clip)
    assert np.abs(fits[:, 0] - 1).max() <= 0.1
    assert 0 < np.abs(fits[:, 1]).max() <= 0.11 + 1e-6


def test_gamma_keeps_the_range_and_follows_its_formula(clip):
    changed = intensity(clip, gamma=(0.6, 0.6))
    low, high = clip.min(), clip.max()
    expected = ((clip.astype(np.float64) - low) / (high - low)) ** 0.6 * (high - low) + low
    np.testing.assert_allclose(changed, expected, atol=1e-4)


def test_gamma_leaves_a_constant_clip_alone():
    assert (intensity(np.full((2, 8, 8), 3.0, np.float32), gamma=(0.6, 0.6)) == 3).all()


def test_noise_is_gaussian_independent_and_no_stronger_than_asked(clip):
    added = [intensity(clip, seed, noise=0.5) - clip for seed in range(20)]
    deviations = [noise.std() for noise in added]
    assert max(deviations) < 0.52
    assert min(deviations) < 0.3 < max(deviations)
    noise = added[int(np.argmax(deviations))]
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1
    assert np.mean(np.abs(noise) < noise.std()) == pytest.approx(0.683, abs=0.02)


def test_blur_is_gaussian(clip):
    point = np.zeros((1, 41, 41), np.float32)
    point[0, 20, 20] = 1
    widths = []
    for seed in range(20):
        spread = intensity(point, seed, blur=2.0)[0]
        sigma = np.sqrt((spread * (np.mgrid[:41, :41][0] - 20) ** 2).sum())
        widths.append(sigma)
        if sigma > 1:
            expected = [gaussian_filter(frame.astype(np.float64), sigma, mode="mirror") for frame in clip]
            np.testing.assert_allclose(intensity(clip, seed, blur=2.0), expected, atol=0.05)
    assert max(widths) <= 2
    assert max(widths) > 1.5


def test_shading_is_a_smooth_factor_on_what_lies_above_the_background_and_the_same_in_all_frames():
    field = np.zeros((2, 40, 40), np.float32)
    field[:, 5:35, 5:35] = 4.0
    strengths = []
    for seed in range(20):
        shaded = intensity(field, seed, shading=1.0)
        np.testing.assert_array_equal(shaded[0], shaded[1])
        assert (shaded[0][field[0] == 0] == 0).all()
        factor = np.log(shaded[0, 5:35, 5:35] / 4.0)
        assert np.abs(np.diff(factor, axis=0)).max() < 0.8
        strengths.append(factor.std())
    assert max(strengths) > 0.5
    assert min(strengths) < 0.2
    np.testing.assert_allclose(intensity(field + 3, 1, shading=1.0), intensity(field, 1, shading=1.0) + 3, rtol=1e-5)
