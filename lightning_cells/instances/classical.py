"""Classical baselines: a threshold, then connected components or a watershed, as they are or to be tuned.

They need no training, so they say how hard a data set is: a trained network that does not beat both has learnt
nothing worth having. Volumes are smoothed and filled plane by plane, and thresholded, labelled and cut as a whole.
"""

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from scipy.ndimage import binary_fill_holes, distance_transform_edt
from skimage.filters import threshold_otsu
from skimage.measure import label
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from lightning_cells.data.voxels import CUBE, Voxel
from lightning_cells.errors import InputError
from lightning_cells.instances.volumes import ball, cut_by_distance

Split = Literal["components", "watershed"]

NOISE_BLUR = 0.5  # pixels; more merges neighbours, less lets noise through
DISTANCE_BLUR = 1.0  # pixels; smooths the distance map, whose pixel steps would be maxima of their own
STEPS = 10  # per pixel of the distance map
DEPTH = 0.1  # pixels; a maximum of the distance map that rises less above its surroundings is no cell
DEPTH_OF_VOLUME = 1.0  # the same in volumes, where the distance is rough from plane to plane


def otsu(
    frame: np.ndarray,
    split: Split = "components",
    log: bool = True,
    min_size: int = 20,
    voxel: Voxel = CUBE,
) -> np.ndarray:
    """Segments bright cells on a dark background with Otsu's threshold.

    The labels do not change when the frame is multiplied by a positive number or a constant is added.

    Args:
        frame: (H, W) image or (Z, H, W) volume of any integer or floating type.
        split: ``"components"`` calls each part of the foreground a cell, whose pixels share sides; ``"watershed"`` cuts
            the parts between the maxima of the distance to the background (those that rise by `DEPTH` pixels or more,
            in volumes by `DEPTH_OF_VOLUME`).
        log: threshold the logarithm of the light above background (see `log_image`), so that dim cells count
            beside bright ones.
        min_size: parts and cells of fewer pixels, or voxels, are dropped.
        voxel: its sides, for the distances in volumes.

    Returns:
        int32 labels 1..K in raster order of their first pixels, 0 background; all 0 for a constant frame.

    Raises:
        InputError: if the frame is neither image nor volume, or `split` is none of the two.

    Source:
        N. Otsu, IEEE Trans. Syst. Man Cybern. 9 (1979); F. Meyer, Signal Processing 38 (1994).
    """
    if frame.ndim not in (2, 3) or not frame.size:
        raise InputError(f"otsu: frame has shape {frame.shape}, give one grey frame (H, W), or a volume (Z, H, W)")
    if split not in ("components", "watershed"):
        raise InputError(f"otsu: split is '{split}', choose 'components' or 'watershed'")
    image = blurred(frame.astype(np.float64), NOISE_BLUR)
    if np.ptp(frame) == 0:
        return np.zeros(frame.shape, np.int32)
    if log:
        image = log_image(image)
    foreground = filled(image > threshold_otsu(image))
    cells = _drop_small(label(foreground, connectivity=1), min_size)
    if split == "watershed":
        cells = _drop_small(cut(cells > 0, DEPTH if frame.ndim == 2 else DEPTH_OF_VOLUME, voxel), min_size)
    return cells


@dataclass(frozen=True, kw_only=True)
class ThresholdWatershed:
    """Cells are the parts of a thresholded frame, cut between the maxima of the distance to the background.

    All lengths are in units of a typical cell's diameter, so that with another `diameter` it is the same pipeline for
    cells of another size.

    Attributes:
        diameter: of a typical cell, in pixels.
        dark: cells are darker than what surrounds them.
        level: of the threshold: without a window, in units of Otsu's, both counted from the frame's first percentile;
            with one, in standard deviations of the frame, counted from the mean of the window.
        window: side of the square around each pixel with which it is compared; 0 for one threshold for all pixels.
        blur: standard deviation of the Gaussian before the threshold.
        depth: a maximum that rises less above its surroundings is no cell.
        min_size: cells of less than this share of a typical cell's area, or volume, are dropped.
        voxel: its sides, in volumes.

    Source:
        F. Meyer, Signal Processing 38 (1994); N. Otsu, IEEE Trans. Syst. Man Cybern. 9 (1979).
    """

    diameter: float = 16.0
    dark: bool = False
    level: float = 1.0
    window: float = 0.0
    blur: float = 0.06
    depth: float = 0.06
    min_size: float = 0.1
    voxel: Voxel = CUBE

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Segments a frame, (H, W) or (Z, H, W) of any number type: int32 labels 1..K, 0 background."""
        if np.ptp(frame) == 0:
            return np.zeros(frame.shape, np.int32)
        cells = cut(self.foreground(frame), self.depth * self.diameter, self.voxel)
        area = np.pi / 4 * self.diameter**2
        return _drop_small(cells, self.min_size * (area if frame.ndim == 2 else ball(area, self.voxel)))

    def foreground(self, frame: np.ndarray) -> np.ndarray:
        """Thresholds a frame, (H, W) or (Z, H, W) of any number type, and fills holes: bool of the same shape."""
        bright = frame.astype(np.float64) * (-1 if self.dark else 1)
        image = blurred(bright, self.blur * self.diameter)
        if self.window:
            threshold = local_mean(image, self.window * self.diameter) + self.level * image.std()
        else:
            low = np.percentile(image, 1)
            threshold = low + self.level * (threshold_otsu(image) - low)
        return filled(image > threshold)


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """Smooths an image, or each plane of a volume, by a Gaussian."""
    if image.ndim == 2:
        return cv2.GaussianBlur(image, (0, 0), sigma)
    return np.stack([blurred(plane, sigma) for plane in image])


def filled(foreground: np.ndarray) -> np.ndarray:
    """Fills the holes of a foreground, or of each plane of it."""
    return binary_fill_holes(foreground) if foreground.ndim == 2 else np.stack([filled(plane) for plane in foreground])


def local_mean(image: np.ndarray, side: float) -> np.ndarray:
    """The mean of the square around each pixel in its plane; beyond the border the image is mirrored.

    Args:
        image: float64 (H, W) or (Z, H, W).
        side: of the square, in pixels; the next odd number is taken, and no more than the image has.
    """
    if image.ndim == 3:
        return np.stack([local_mean(plane, side) for plane in image])
    odd = [2 * (min(math.ceil(side), length) // 2) + 1 for length in image.shape[::-1]]
    return cv2.blur(image, odd, borderType=cv2.BORDER_REFLECT)


def cut(foreground: np.ndarray, depth: float, voxel: Voxel = CUBE) -> np.ndarray:
    """Cuts a foreground between the maxima of the distance to the background, by a watershed.

    Args:
        foreground: bool (H, W) or (Z, H, W).
        depth: a maximum that rises less above its surroundings is none, in pixels; counts in steps of 0.1.
        voxel: its sides, in volumes.

    Returns:
        Integer labels 1..K, 0 background.
    """
    if foreground.ndim == 3:
        return cut_by_distance(foreground.astype(np.int32), depth, DISTANCE_BLUR, voxel)
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
        image: (H, W) or (Z, H, W) of floating numbers.

    Returns:
        float64, >= 0.
    """
    spread = np.median(np.abs(image - np.median(image))) or image.std() or 1.0
    return np.log1p(np.maximum(image - np.percentile(image, 1), 0) / spread)


def _drop_small(labels: np.ndarray, min_size: float) -> np.ndarray:
    """Removes labels of fewer than `min_size` pixels and numbers the others 1..K in raster order."""
    kept = np.bincount(labels.ravel()) >= min_size
    kept[0] = False
    labels = np.where(kept[labels], labels, 0)
    found, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.zeros(len(found), np.int32)
    order = np.argsort(np.where(found == 0, -1, first))
    rank[order] = np.arange(len(found)) + (found[order[0]] != 0)
    return rank[inverse.reshape(labels.shape)]
