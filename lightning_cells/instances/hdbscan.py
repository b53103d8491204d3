"""Density-based clustering of embedded pixels, the alternative to mean shift."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_cells.errors import InputError
from lightning_cells.instances.clustering import Clustering


@dataclass(frozen=True, kw_only=True)
class HDBSCAN(Clustering):
    """Scikit-learn's HDBSCAN with the Euclidean distance between codes; what it calls noise is background.

    As Payer et al. compared it with mean shift, Instance segmentation and tracking with cosine embeddings and
    recurrent hourglass networks, 2018. It splits cells that share an embedding by their positions, takes tiles of
    any size and is deterministic, but its time grows with the square of the pixels: seconds for 10 000, minutes
    for the 100 000 of a full tile. It finds at least two clusters or none: a cell alone in its tile is lost.

    Attributes:
        min_cluster_size: fewest pixels of a cluster, over all frames, and the neighbours, itself included, that
            decide how dense a pixel's place is (1000 for DIC-C2DH-HeLa, 500 for Fluo-C2DL-MSC and PhC-C2DH-U373, 100
            for Fluo-N2DH-SIM+, 50 for Fluo-N2DH-GOWT1, 25 for Fluo-N2DL-HeLa).
    """

    min_cluster_size: int = 100

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            InputError: A negative weight, or fewer than 2 pixels.
        """
        super().__post_init__()
        if self.min_cluster_size < 2:
            raise InputError(f"min_cluster_size: {self.min_cluster_size} is too small; choose 2 or more")

    def cluster(self, codes: Tensor, foreground: Tensor) -> Tensor:
        """Cluster codes; see `Clustering.cluster`."""
        if codes.shape[1] < self.min_cluster_size:
            return torch.zeros(codes.shape[1], dtype=torch.int32, device=codes.device)
        from sklearn.cluster import HDBSCAN as ScikitHDBSCAN  # slow to import, and most never need it

        search = ScikitHDBSCAN(min_cluster_size=self.min_cluster_size, copy=True)
        labels = search.fit_predict(codes.T.cpu().numpy())
        return torch.from_numpy(labels).to(codes.device, torch.int32) + 1
