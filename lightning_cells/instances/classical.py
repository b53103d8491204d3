"""Classical baselines: a global threshold, then connected components or a watershed, as they are or to be tuned.

They need no training, so they say how hard a data set is: a trained network that does not beat both has learnt
nothing worth having.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from scipy.ndimage import binary_fill_holes, distance_transform_edt
from skimage.filters import threshold_otsu
from skimage.measure import label
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from lightning_cells.errors import InputError

Split = Literal["components", "watershed"]

NOISE_BLUR = 0.5  # pixels; more merges neighbours, less lets noise through
DISTANCE_BLUR = 1.0  # pixels; smooths the distance map, whose pixel steps would be maxima of their own
STEPS = 10  # per pixel of the distance map
DEPTH = 0.1  # pixels; a maximum of the distance map that rises less above its surroundings is no cell


def otsu(
    frame: np.ndarray,
    split: Split = "components",
    log: bool = True,
    min_size: int = 20,
) -> np.ndarray:
    """Segments bright cells on a dark background with Otsu's threshold.

    The labels do not change when the frame is multiplied by a positive number or a constant is added.

    Args:
        frame: (H, W) image of any integer or floating type.
        split: ``"components"`` calls each 4-connected part of the foreground a cell; ``"watershed"`` cuts the parts
            between the maxima of the distance to the background (those that rise by `DEPTH` pixels or more).
        log: threshold the logarithm of the light above background (see `log_image`), so that dim cells count
            beside bright ones.
        min_size: parts and cells of fewer pixels are dropped.

    Returns:
        (H, W) int32 labels 1..K in raster order of their first pixels, 0 background; all 0 for a constant frame.

    Raises:
        InputError: if the frame is not two-dimensional, or `split` is none of the two.

    Source:
        N. Otsu, IEEE Trans. Syst. Man Cybern. 9 (1979); F. Meyer, Signal Processing 38 (1994).
    """
    if frame.ndim != 2 or not frame.size:
        raise InputError(f"otsu: frame has shape {frame.shape}, give one grey frame (H, W)")
    if split not in ("components", "watershed"):
        raise InputError(f"otsu: split is '{split}', choose 'components' or 'watershed'")
    image = cv2.GaussianBlur(frame.astype(np.float64), (0, 0), NOISE_BLUR)
    if np.ptp(frame) == 0:
        return np.zeros(frame.shape, np.int32)
    if log:
        image = log_image(image)
    foreground = binary_fill_holes(image > threshold_otsu(image))
    cells = _drop_small(label(foreground, connectivity=1), min_size)
    if split == "watershed":
        cells = _drop_small(cut(cells > 0, DEPTH), min_size)
    return cells


@dataclass(frozen=True, kw_only=True)
class ThresholdWatershed:
    """Cells are the parts of a thresholded frame, cut between the maxima of the distance to the background.

    Attributes:
        dark: cells are darker than what surrounds them.
        level: threshold, as a factor of Otsu's; both are counted from the frame's first percentile.
        blur: standard deviation of the Gaussian before the threshold, in pixels.
        depth: a maximum that rises less above its surroundings is no cell, in pixels.
        min_size: cells of fewer pixels are dropped.

    Source:
        F. Meyer, Signal Processing 38 (1994); N. Otsu, IEEE Trans. Syst. Man Cybern. 9 (1979).
    """

    dark: bool = False
    level: float = 1.0
    blur: float = 1.0
    depth: float = 1.0
    min_size: int = 20

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Segments a frame, (H, W) of any number type: int32 labels 1..K, 0 background."""
        if np.ptp(frame) == 0:
            return np.zeros(frame.shape, np.int32)
        bright = frame.astype(np.float64) * (-1 if self.dark else 1)
        image = cv2.GaussianBlur(bright, (0, 0), self.blur)
        low = np.percentile(image, 1)
        foreground = binary_fill_holes(image > low + self.level * (threshold_otsu(image) - low))
        return _drop_small(cut(foreground, self.depth), self.min_size)


def cut(foreground: np.ndarray, depth: float) -> np.ndarray:
    """Cuts a foreground between the maxima of the distance to the background, by a watershed.

    Args:
        foreground: bool (H, W).
        depth: a maximum that rises less above its surroundings is none, in pixels; counts in steps of 0.1.

    Returns:
        (H, W) integer labels 1..K, 0 background.
    """
    distance = cv2.GaussianBlur(distance_transform_edt(foreground), (0, 0), DISTANCE_BLUR)
    # whole steps: h-maxima of float images are neither fast nor exact
    steps = np.rint(distance * STEPS).astype(np.uint16)
    markers = label(h_maxima(steps, max(1, round(depth * STEPS))))
    return watershed(-distance, markers, mask=foreground)


def log_image(image: np.ndarray) -> np.ndarray:
    """Logarithm of the light above background, in units of the frame's own spread.

    ``log(1 + (I - p1) / s)``: p1, the first percentile, stands for the background, and s, the median absolute
    deviation (the standard deviation where that is 0), for its noise.

    Args:
        image: (H, W) floating image.

    Returns:
        (H, W) float64, >= 0.
    """
    spread = np.median(np.abs(image - np.median(image))) or image.std() or 1.0
    return np.log1p(np.maximum(image - np.percentile(image, 1), 0) / spread)


def _drop_small(labels: np.ndarray, min_size: int) -> np.ndarray:
    """Removes labels of fewer than `min_size` pixels and numbers the others 1..K in raster order."""
    kept = np.bincount(labels.ravel()) >= min_size
    kept[0] = False
    labels = np.where(kept[labels], labels, 0)
    found, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.zeros(len(found), np.int32)
    order = np.argsort(np.where(found == 0, -1, first))
    rank[order] = np.arange(len(found)) + (found[order[0]] != 0)
    return rank[inverse.reshape(labels.shape)]
