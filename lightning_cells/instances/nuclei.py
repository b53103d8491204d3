"""Cells from nucleus and cytoplasm: every nucleus is one cell."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.segmentation import watershed

from lightning_cells.instances.components import Decoder
from lightning_cells.instances.regions import connected_components, select_labels


@dataclass(frozen=True, kw_only=True)
class NucleusDecoder(Decoder):
    """Nuclei are seeds; each pixel of the cells belongs to the nucleus that is nearest within the cells.

    The three classes are background, nucleus and cytoplasm; or background, interior and contour. Where cells touch,
    their border comes from the nuclei alone, so that it does not follow noise in the class probabilities. A component
    of the cells without a nucleus is a cell too.

    Attributes:
        nucleus_threshold: share of the nucleus in the cell's probability, p1 / (p1 + p2), above which a pixel is
            nucleus.
        nucleus_size: smallest nucleus, in pixels.
        background_threshold: background probability from which a pixel is background.
    """

    nucleus_threshold: float = 0.5
    nucleus_size: int = 5
    background_threshold: float = 0.5

    def label(self, background: np.ndarray, foreground: np.ndarray, contour: np.ndarray) -> np.ndarray:
        """Label the cells of one frame; see `Decoder.label`."""
        cell = background < self.background_threshold
        nucleus = cell & (foreground > self.nucleus_threshold * (foreground + contour))
        seeds = select_labels(connected_components(nucleus), self.nucleus_size)
        regions = connected_components(cell)
        with_seed = np.zeros(regions.max() + 1, bool)
        with_seed[regions[seeds > 0]] = True
        seeds = np.where(with_seed[regions] | ~cell, seeds, regions + seeds.max())
        if not seeds.any():
            return seeds.astype(np.int32)
        return watershed(distance_transform_edt(seeds == 0), seeds, mask=cell, connectivity=2).astype(np.int32)
