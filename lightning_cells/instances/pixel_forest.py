"""A random forest that classifies pixels by what is around them: what Ilastik offers, without drawing by hand."""

from collections.abc import Sequence

import numpy as np
from skimage.feature import multiscale_basic_features

from lightning_cells.data.intensity import normalise
from lightning_cells.data.targets import ThreeClassTarget
from lightning_cells.errors import InputError
from lightning_cells.instances.components import ArgmaxDecoder

SCALES = (0.7, 10.0)  # standard deviations of the features' Gaussians in pixels, from the finest to the coarsest
_TREES = 100
_PIXELS = 10_000  # of each class, from all frames together
_SMALLEST = 0.1  # part of the median cell's area below which a cell is dropped
_CLASSES = 3


class PixelForest:
    """Background, interior and contour by a random forest on Gaussians, edges and textures at several scales.

    Stands for Ilastik (S. Berg et al., Nature Methods 16 (2019)), whose pixel classification has the same kinds of
    features and a forest of as many trees.

    Args:
        frames: (H, W) of any real type.
        labels: (H, W) int32 in the label convention, for each frame.
        seed: of the pixels that are drawn and of the forest.

    Raises:
        InputError: if one of the three classes is nowhere.
    """

    def __init__(self, frames: Sequence[np.ndarray], labels: Sequence[np.ndarray], seed: int = 0) -> None:
        from sklearn.ensemble import RandomForestClassifier  # slow to import, and few need it

        rng = np.random.default_rng(seed)
        target = ThreeClassTarget("inner")
        classes = [target(truth[None])["classes"][0] for truth in labels]
        seen = [_features(frame) for frame in frames]
        pixels, wanted = [], []
        for kind in range(_CLASSES):
            here = [np.flatnonzero(each == kind) for each in classes]
            count = sum(map(len, here))
            if not count:
                raise InputError("data.train: a pixel classifier needs background and segmented cells")
            for features, places in zip(seen, here, strict=True):
                share = min(len(places), round(_PIXELS * len(places) / count))
                chosen = rng.choice(places, share, replace=False)
                pixels.append(features[chosen])
                wanted.append(np.full(share, kind))
        forest = RandomForestClassifier(_TREES, min_samples_leaf=2, random_state=seed)
        self._forest = forest.fit(np.concatenate(pixels), np.concatenate(wanted))
        areas = np.concatenate([np.bincount(truth[truth > 0]) for truth in labels])
        self._decoder = ArgmaxDecoder(min_size=round(_SMALLEST * float(np.median(areas[areas > 0]))))

    def probabilities(self, frame: np.ndarray) -> np.ndarray:
        """Class probabilities of a frame, (H, W) of any real type: float32 (3, H, W)."""
        said = self._forest.predict_proba(_features(frame))
        return np.ascontiguousarray(said.T.reshape(_CLASSES, *frame.shape), np.float32)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Finds the cells of a frame, (H, W) of any real type: int32 (H, W) labels, 0 background."""
        return self._decoder(self.probabilities(frame))


def _features(frame: np.ndarray) -> np.ndarray:
    """(H, W) -> (H * W, features) float32."""
    low, high = SCALES
    features = multiscale_basic_features(normalise(frame, "zscore"), sigma_min=low, sigma_max=high)
    return features.reshape(-1, features.shape[-1])
