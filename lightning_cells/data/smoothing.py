"""Smooth outlines of cells."""

import math

import cv2
import numpy as np
from scipy.ndimage import find_objects


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
