"""What a microscope does to a specimen: uneven light, blur, haze and the camera.

Shared by all kinds of simulated data. Images are float64 (H, W) until `camera` digitises them.
"""

import cv2
import numpy as np

FULL_WELL = 65535  # 16-bit camera


def smooth_field(rng: np.random.Generator, size: tuple[int, int], scale: float) -> np.ndarray:
    """Random field without structure smaller than `scale`.

    Args:
        rng: source of randomness.
        size: (H, W) in pixels.
        scale: distance of the random grid's points in pixels, > 0.

    Returns:
        (H, W) float64 of about zero mean and unit variance at the grid's points, cubically interpolated.
    """
    # two more points than cover the field, because the interpolation is one-sided at its border
    grid = [int(np.ceil(n / scale)) + 3 for n in size]
    noise = rng.standard_normal(grid)
    tall, wide = (max(int(np.ceil(n * scale)), m + 2) for n, m in zip(grid, size, strict=True))
    field = cv2.resize(noise, (wide, tall), interpolation=cv2.INTER_CUBIC)
    top, left = (tall - size[0]) // 2, (wide - size[1]) // 2
    return field[top : top + size[0], left : left + size[1]]


def illumination(rng: np.random.Generator, size: tuple[int, int], depth: float) -> np.ndarray:
    """Uneven light: a vignette with a random centre and a slow random component.

    Args:
        rng: source of randomness.
        size: (H, W) in pixels.
        depth: fraction of light missing at the darkest place, 0..1.

    Returns:
        (H, W) float64 in [1 - depth, 1].
    """
    centre = rng.uniform(0.15, 0.85, 2)
    rows, cols = (np.linspace(0, 1, n) - c for n, c in zip(size, centre, strict=True))
    fall = rows[:, None] ** 2 + cols[None, :] ** 2
    fall = fall + 0.08 * smooth_field(rng, size, max(size) / 3)
    return 1 - depth * (fall - fall.min()) / (np.ptp(fall) + 1e-12)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian point spread function of `sigma` pixels; the field's border is mirrored."""
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)


def haze(image: np.ndarray, strength: float, sigma: float) -> np.ndarray:
    """Adds the light of what lies out of focus: a wide blur of the specimen itself.

    Args:
        image: (H, W) light from the focal plane.
        strength: fraction of the light that goes astray, >= 0.
        sigma: width of the haze in pixels.

    Returns:
        (H, W) float64.
    """
    # the wide blur is done on a coarse image: same result to the eye, and cost does not grow with sigma
    step = max(1, int(sigma // 3))
    coarse = cv2.resize(image, (-(-image.shape[1] // step), -(-image.shape[0] // step)), interpolation=cv2.INTER_AREA)
    wide = cv2.resize(blur(coarse, sigma / step), image.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return image + strength * wide


def camera(rng: np.random.Generator, photons: np.ndarray, gain: float, offset: float, read_noise: float) -> np.ndarray:
    """Digitises light with shot noise and read noise.

    Args:
        rng: source of randomness.
        photons: (H, W) expected photons per pixel; negative values count as none.
        gain: grey levels per photon.
        offset: grey level of the dark camera.
        read_noise: standard deviation in grey levels.

    Returns:
        (H, W) uint16.
    """
    electrons = rng.poisson(np.maximum(photons, 0))
    levels = offset + gain * electrons + read_noise * rng.standard_normal(photons.shape)
    return np.clip(np.rint(levels), 0, FULL_WELL).astype(np.uint16)
