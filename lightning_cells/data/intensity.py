"""Prepares single frames and masks: normalised intensities, other sizes, and smooth outlines of cells."""

import math
from typing import Literal, get_args

import cv2
import numpy as np
from scipy.ndimage import find_objects

from lightning_cells.errors import InputError

Normalisation = Literal["zscore", "log_zscore", "percentile", "signal"]

LOW, HIGH = 0.001, 0.999
"""Quantiles that become -1 and 1 (Payer et al. 2019)."""
GROUND = 0.05
"""Quantile that stands for the background in "signal"."""
FAINT, NOISE = 0.1, 6.0
"""What "signal" counts as one unit of light: that part of the frame's range, or so many deviations of its noise."""
_WIDEST = 100  # smoothing, in pixels
_LARGEST_SCALED = 2**26  # pixels that a frame is enlarged to

_LARGEST = float(np.finfo(np.float16).max)


def normalise(frame: np.ndarray, normalisation: Normalisation) -> np.ndarray:
    """Normalises the intensities of one frame.

    Args:
        frame: (H, W) or (Z, H, W) of any real type, not negative for "log_zscore".
        normalisation: "zscore" subtracts the mean and divides by the standard deviation; "log_zscore" does so
            to log(1 + intensity); "percentile" takes the 0.1 and 99.9 percentiles to -1 and 1, without
            clipping; "signal" takes asinh((intensity - g) / u), with g the 5th percentile, and u a tenth of what the
            99.9th lies above it or six standard deviations of the camera's noise, whichever is more: dim cells are
            not lost beside bright ones, and a frame without cells stays faint.

    Returns:
        float32 of that shape. All zeros for a constant frame; if only the two percentiles agree, minimum and maximum
        take their place.

    Raises:
        InputError: for an unknown normalisation.
    """
    if normalisation == "percentile":
        low, high = _quantiles(frame)
        if low == high:
            low, high = float(frame.min()), float(frame.max())
        centre, spread = (low + high) / 2, (high - low) / 2
    elif normalisation == "signal":
        return _signal(frame)
    elif normalisation in ("zscore", "log_zscore"):
        if normalisation == "log_zscore":
            frame = np.log1p(frame, dtype=np.float32)
        centre, spread = float(frame.mean(dtype=np.float64)), float(frame.std(dtype=np.float64))
        # rounding alone must not make a pattern of a constant frame
        spread = spread if spread > 1e-6 * abs(centre) else 0.0
    else:
        options = ", ".join(get_args(Normalisation))
        raise InputError(f"data.normalisation={normalisation}: is not known: choose one of {options}")
    if spread == 0:
        return np.zeros(frame.shape, np.float32)
    result = frame.astype(np.float32)
    result -= np.float32(centre)
    result /= np.float32(spread)
    return result


def _signal(frame: np.ndarray) -> np.ndarray:
    low, high = _quantiles(frame, (GROUND, HIGH))
    if low == high:
        high = float(frame.max())
    unit = max(FAINT * (high - low), NOISE * noise(frame))
    if unit <= 1e-6 * abs(low):  # rounding alone must not make a pattern of a constant frame
        return np.zeros(frame.shape, np.float32)
    result = frame.astype(np.float32)
    result -= np.float32(low)
    result /= np.float32(unit)
    return np.arcsinh(result, out=result)


def prepare(frame: np.ndarray, normalisation: Normalisation, scale: float = 1.0, smoothing: float = 0.0) -> np.ndarray:
    """What networks see of a frame: resampled, smoothed, normalised.

    The planes of a volume are resampled and smoothed one by one, and normalised together: planes below and above the
    cells stay dim.

    Args:
        frame: (H, W) or (Z, H, W), uint8 or uint16.
        normalisation: as `normalise`.
        scale: as `rescale`.
        smoothing: standard deviation of a Gaussian in pixels of the resampled frame; 0 for none. Payer et al. 2019,
            section 3.1, smooth every input image with 1.

    Returns:
        (h, w) or (Z, h, w) float32 of `scaled_size`, within the range of half precision.

    Raises:
        InputError: for a value out of range.
    """
    if not 0 <= smoothing <= _WIDEST:
        raise InputError(f"data.smoothing={smoothing}: must be a number of pixels, from 0 to {_WIDEST}")
    planes = [_smoothed(rescale(plane, scale), smoothing) for plane in (frame if frame.ndim > 2 else frame[None])]
    ready = normalise(np.stack(planes) if frame.ndim > 2 else planes[0], normalisation)
    return ready.clip(-_LARGEST, _LARGEST, out=ready)


def _smoothed(frame: np.ndarray, sigma: float) -> np.ndarray:
    if not sigma:
        return frame
    return cv2.GaussianBlur(frame.astype(np.float32), (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)


def noise(frame: np.ndarray) -> float:
    """Standard deviation of white noise in a frame, from what changes at random from pixel to pixel.

    It is the median size of the finest diagonal wavelet coefficients (D. Donoho & I. Johnstone, Biometrika 81 (1994)).

    Args:
        frame: (H, W) or (Z, H, W) of any real type.

    Returns:
        In grey levels; 0 for frames with a side of a single pixel, and where most neighbours are equal.
    """
    height, width = (side // 2 * 2 for side in frame.shape[-2:])
    if not height or not width:
        return 0.0
    even = frame[..., :height, :width].astype(np.float32)
    rows = even[..., ::2, :] - even[..., 1::2, :]
    return float(np.median(np.abs(rows[..., ::2] - rows[..., 1::2]))) / 2 / 0.6745


def _quantiles(frame: np.ndarray, which: tuple[float, float] = (LOW, HIGH)) -> tuple[float, float]:
    """Two linearly interpolated quantiles; whole numbers by counting, twenty times faster."""
    if frame.dtype not in (np.uint8, np.uint16):
        low, high = np.quantile(frame, which)
        return float(low), float(high)
    upto = np.cumsum(np.bincount(frame.ravel()))
    rank = np.array(which) * (frame.size - 1)
    below = np.searchsorted(upto, np.floor(rank), side="right")
    above = np.searchsorted(upto, np.ceil(rank), side="right")
    low, high = below + (rank % 1) * (above - below)
    return float(low), float(high)


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width after resampling by ``scale``, rounded, at least 1.

    Raises:
        InputError: unless ``scale`` is positive and finite, and for frames that it would enlarge beyond all reason.
    """
    if not 0 < scale < float("inf"):
        raise InputError(f"data.scale={scale}: must be a positive number, such as 0.5")
    if scale > 1 and size[0] * size[1] * scale**2 > _LARGEST_SCALED:
        raise InputError(
            f"data.scale={scale:g}: makes more than {_LARGEST_SCALED} pixels of a frame of {size[0]} x {size[1]}: "
            "choose a smaller one, or a larger --diameter"
        )
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def rescale(frame: np.ndarray, scale: float) -> np.ndarray:
    """Resamples one frame: by the mean over each pixel's area to shrink it, bilinearly to enlarge it.

    Args:
        frame: (H, W) uint8, uint16 or float32.
        scale: factor of both sides.

    Returns:
        The frame itself where the size stays, else float32 of `scaled_size`.
    """
    height, width = scaled_size((frame.shape[0], frame.shape[1]), scale)
    if (height, width) == frame.shape:
        return frame
    shrinks = height <= frame.shape[0] and width <= frame.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(frame.astype(np.float32), (width, height), interpolation=method)


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resamples labels or classes: each pixel takes the value at its centre.

    Args:
        labels: (..., H, W) of any type.
        size: new height and width.

    Returns:
        The array itself where the size stays, else a new one of the same type.
    """
    if labels.shape[-2:] == tuple(size):
        return labels
    rows, columns = (
        (np.arange(new) * 2 + 1) * old // (2 * new) for new, old in zip(size, labels.shape[-2:], strict=True)
    )
    return labels[..., rows[:, None], columns]


def rescale_labels(labels: np.ndarray, scale: float) -> np.ndarray:
    """`resize_labels` by the factor that `rescale` applies to frames."""
    return resize_labels(labels, scaled_size((labels.shape[-2], labels.shape[-1]), scale))


def smooth_labels(labels: np.ndarray, sigma: float) -> np.ndarray:
    """Smooths the outlines of cells: each pixel goes to the cell, or the background, that is the most around it.

    What is around is weighted by a Gaussian. Outlines drawn by hand lose their jags, and so do those that were
    resampled at the nearest pixels (public code of Payer et al. 2019, which does it for DIC-C2DH-HeLa).

    Args:
        labels: (T, H, W) int32 in the label convention. Unknown pixels and markers stay as they are, and so does a cell
            that would lose all of its pixels.
        sigma: standard deviation in pixels; 0 changes nothing.

    Returns:
        (T, H, W) int32.
    """
    return np.stack([_smooth(frame, sigma) for frame in labels]) if sigma > 0 and len(labels) else labels


def _smooth(labels: np.ndarray, sigma: float) -> np.ndarray:
    known = labels >= 0
    reach = math.ceil(4 * sigma)
    best = _blur(labels == 0, sigma, reach)
    smooth = np.zeros_like(labels)
    ids, places = np.unique(labels, return_inverse=True)
    places = places.reshape(labels.shape)
    for place, box in enumerate(find_objects(places + 1)):
        if ids[place] <= 0:
            continue
        window = tuple(slice(max(side.start - reach, 0), side.stop + reach) for side in box)
        share = _blur(places[window] == place, sigma, reach)
        wins = share > best[window]
        best[window][wins] = share[wins]
        smooth[window][wins] = ids[place]
    smooth[~known] = labels[~known]
    lost = np.isin(labels, np.setdiff1d(ids[ids > 0], smooth))
    smooth[lost] = labels[lost]
    return smooth


def _blur(mask: np.ndarray, sigma: float, reach: int) -> np.ndarray:
    side = 2 * reach + 1
    return cv2.GaussianBlur(mask.astype(np.float32), (side, side), sigma, borderType=cv2.BORDER_REPLICATE)
