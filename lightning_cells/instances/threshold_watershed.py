"""Threshold, distance transform, watershed: the classical pipeline with its parameters open to tuning."""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import binary_fill_holes
from skimage.filters import threshold_otsu
from skimage.segmentation import relabel_sequential

from lightning_cells.instances.classical import cut


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
        cells = cut(foreground, self.depth)
        small = np.bincount(cells.ravel()) < self.min_size
        cells[small[cells]] = 0
        return relabel_sequential(cells)[0].astype(np.int32)
