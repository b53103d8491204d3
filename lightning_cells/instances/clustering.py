"""What the clusterings of embedded pixels share: checks, the codes that are clustered, labels put back in place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_cells.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Clustering(ABC):
    """Cluster the foreground pixels of a few frames by their embeddings and, weakly, by their positions.

    A pixel's code is its embedding of unit length followed by its coordinates in the tile, `[e, c y, c x]`, alike
    in all frames (Payer et al., Segmenting and tracking cell instances with cosine embeddings and recurrent
    hourglass networks, 2019).

    Attributes:
        coordinate_weight: c, per pixel. It parts far cells whose embeddings are alike.
    """

    coordinate_weight: float = 0.005

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            InputError: A negative weight.
        """
        if self.coordinate_weight < 0:
            raise InputError(f"coordinate_weight: {self.coordinate_weight} is negative; choose 0 or more")

    @torch.no_grad()
    def __call__(self, embeddings: Tensor, foreground: Tensor) -> Tensor:
        """Cluster the foreground of one tile.

        Args:
            embeddings: (T, D, H, W) floating point, of any length; T = 2 in the paper.
            foreground: (T, H, W) bool on the same device; embeddings must be finite in it.

        Returns:
            (T, H, W) int32 on that device, 0 outside the foreground and where the clustering found none, positive
            cluster labels elsewhere. Cells far from each other may share a cluster.

        Raises:
            InputError: Shapes that do not belong together, embeddings that are not finite, or a tile too large for
                the clustering.
        """
        if embeddings.ndim != 4 or foreground.shape != embeddings.shape[:1] + embeddings.shape[2:]:
            raise InputError(
                f"clustering: embeddings of shape {tuple(embeddings.shape)} and a foreground of shape "
                f"{tuple(foreground.shape)} do not belong together; give (T, D, H, W) and (T, H, W)"
            )
        self.check_tile(*embeddings.shape[2:])
        labels = torch.zeros(foreground.shape, dtype=torch.int32, device=foreground.device)
        if foreground.any():
            codes = pixel_codes(embeddings, foreground, self.coordinate_weight)
            if not codes.sum().isfinite():
                raise InputError("clustering: embeddings of the foreground are not finite; leave those pixels out")
            labels.masked_scatter_(foreground, self.cluster(codes, foreground))
        return labels

    def of_tiles(self, embeddings: Tensor, foreground: Tensor) -> Tensor:
        """Cluster the foreground of some tiles, each by itself.

        Args:
            embeddings: (B, T, D, H, W), those of each tile as for one.
            foreground: (B, T, H, W) bool.

        Returns:
            (B, T, H, W) int32, the result of each.

        Raises:
            InputError: As for one.
        """
        return torch.stack([self(*tile) for tile in zip(embeddings, foreground, strict=True)])

    def check_tile(self, height: int, width: int) -> None:  # noqa: B027 - most clusterings take tiles of any size
        """Raise InputError if the clustering cannot take a tile of this size, in pixels."""

    @abstractmethod
    def cluster(self, codes: Tensor, foreground: Tensor) -> Tensor:
        """Cluster codes.

        Args:
            codes: (D + 2, n) float32, n > 0; see `pixel_codes`.
            foreground: (T, H, W) bool, the n pixels that they belong to.

        Returns:
            (n,) int32, 0 for none, clusters positive.
        """


def pixel_codes(embeddings: Tensor, foreground: Tensor, coordinate_weight: float) -> Tensor:
    """Build the codes of the foreground pixels, `[e / |e|, c y, c x]`.

    Args:
        embeddings: (T, D, H, W) floating point; a vector of length zero stays zero.
        foreground: (T, H, W) bool.
        coordinate_weight: c, per pixel.

    Returns:
        (D + 2, n) float32, one column per foreground pixel in the order of the array.
    """
    depth, _, width = embeddings.shape[1:]
    pixels = [mask.flatten().nonzero().squeeze(1) for mask in foreground]
    codes = embeddings.new_empty((depth + 2, sum(map(len, pixels))), dtype=torch.float32)
    first = 0
    for frame, index in zip(embeddings, pixels, strict=True):
        part = codes[:, first : first + len(index)]
        part[:depth] = frame.flatten(1).index_select(1, index)
        part[:depth] /= part[:depth].square().sum(0).sqrt_().clamp_min_(1e-12)
        part[depth] = index // width
        part[depth + 1] = index % width
        part[depth:] *= coordinate_weight
        first += len(index)
    return codes
