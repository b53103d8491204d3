"""Embeddings of two consecutive frames -> labelled cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from skimage.measure import label
from torch import Tensor

from lightning_cells.errors import InputError
from lightning_cells.instances.clustering import Clustering
from lightning_cells.instances.mean_shift import MeanShift
from lightning_cells.instances.regions import select_labels


def foreground_mask(embeddings: Tensor) -> Tensor:
    """Find the pixels whose embedding is nearer to a right angle with the background's, (1, 0, ...), than to it.

    Args:
        embeddings: (..., D, H, W) floating point, of any length.

    Returns:
        (..., H, W) bool: the squared cosine is at most 0.5; False where an embedding is zero or not finite.
    """
    squares = embeddings.float().square()
    total = squares.sum(-3)
    return (squares[..., 0, :, :] <= 0.5 * total) & (total > 0) & total.isfinite()


@dataclass(frozen=True, kw_only=True)
class EmbeddingDecoder:
    """Cut cells out of the embeddings of two consecutive frames.

    Pixels near the background's embedding are dropped, the others clustered, and every cluster falls apart into
    its connected components over both frames, so that far cells may share an embedding and a cell has the same
    label in both frames where it overlaps itself (Payer et al., Segmenting and tracking cell instances with cosine
    embeddings and recurrent hourglass networks, 2019).

    Attributes:
        clustering: finds pixels with like embeddings.
        min_size: smallest cell kept, in pixels of both frames together (500 for DIC-C2DH-HeLa and PhC-C2DH-U373,
            100 for Fluo-C2DL-MSC, Fluo-N2DH-GOWT1 and Fluo-N2DH-SIM+, 50 for Fluo-N2DL-HeLa).
    """

    clustering: Clustering = MeanShift()  # noqa: RUF009 - frozen
    min_size: int = 100

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            InputError: A negative size.
        """
        if self.min_size < 0:
            raise InputError(f"min_size: {self.min_size} is negative; choose 0 or more")

    @torch.no_grad()
    def __call__(self, embeddings: Tensor) -> np.ndarray:
        """Decode one tile.

        Args:
            embeddings: (2, D, H, W) floating point, of any length, on any device.

        Returns:
            (2, H, W) int32 instance labels 1..K, 0 background.

        Raises:
            InputError: Not four dimensions, or a tile too large for the clustering.
        """
        if embeddings.ndim != 4:
            raise InputError(f"decoder: embeddings of shape {tuple(embeddings.shape)}; give (2, D, H, W)")
        return self.split(self.clustering(embeddings, foreground_mask(embeddings)))

    @torch.no_grad()
    def of_tiles(self, embeddings: Tensor) -> list[np.ndarray]:
        """Decode some tiles.

        Args:
            embeddings: (B, 2, D, H, W), those of each tile as for one.

        Returns:
            (2, H, W) int32 of each, as of one.

        Raises:
            InputError: As for one.
        """
        clusters = self.clustering.of_tiles(embeddings, foreground_mask(embeddings)).cpu()
        return [self.split(of_tile) for of_tile in clusters]

    def split(self, clusters: Tensor) -> np.ndarray:
        """Part clusters into connected components and drop the small ones.

        Voxels of one cluster that share a face or an edge are connected, in space and over time.

        Args:
            clusters: (2, H, W) int32, 0 background.

        Returns:
            (2, H, W) int32, 0 background, components 1..K.
        """
        components = label(clusters.cpu().numpy(), background=0, connectivity=2)
        return select_labels(components, self.min_size)
