"""Mean shift with the cosine distance, all seeds at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_cells.errors import InputError
from lightning_cells.instances.clustering import COORDINATE_LIMIT, Clustering

STOP = 1e-3  # a seed rests when it moves less than this, in bandwidths
COARSE_STOP = 1e-2
COARSE_MODE = 0.05  # coarse modes closer than this are one, in bandwidths
COARSE_SHARE = 16  # the coarse stage sees one pixel in so many
COARSE_PIXELS = 1024  # and needs so many
COINCIDENCE = 1e-4  # seeds closer than this go the same way, in bandwidths
CROWDED = 0.5  # share of the pixels that must lie in a window for the coarse stage to be trusted


@dataclass(frozen=True, kw_only=True)
class MeanShift(Clustering):
    """Mean shift with a flat window of the cosine distance, from a few random pixels.

    Every seed moves to the mean of the codes within `bandwidth` of it until it rests. Of the points of rest
    closer to each other than the bandwidth the one with most pixels in its window stays, and each pixel joins the
    nearest. Codes are compared by their angle and averaged as they are, as in Payer et al. 2019 and its public
    code, which moves one seed after the other.

    The angle depends on where in the tile the cells are: coordinates count more the farther they are from the
    tile's corner, until embeddings that are orthogonal look alike and everything becomes one cluster. Coordinates
    must therefore begin at 0 in every tile, and tiles larger than 256 pixels at the published coordinate weight
    are refused.

    Attributes:
        bandwidth: radius h of the window, as cosine distance.
        seeds: how many foreground pixels to start from. More are not better: noise then has windows of its own.
        algorithm: `exact` moves every seed over all pixels; it finds the published method's clusters. `fast`
            moves the seeds over one pixel in 16 first and then the few different ones over all; every centre is a
            fixed point of `exact` too. Where fewer than half of the pixels lie in a window, the embeddings are so
            noisy that the two would differ, and `fast` does what `exact` does.
        seed: of the choice of pixels; the same on all devices.
        max_iterations: after which a seed that still moves stays where it is.
    """

    bandwidth: float = 0.1
    seeds: int = 128
    algorithm: Literal["fast", "exact"] = "fast"
    seed: int = 0
    max_iterations: int = 300

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            InputError: A value out of its range.
        """
        super().__post_init__()
        if not 0 < self.bandwidth < 1:
            raise InputError(f"bandwidth: {self.bandwidth} is no angle; choose a cosine distance between 0 and 1")
        if self.algorithm not in ("fast", "exact"):
            raise InputError(f"algorithm: '{self.algorithm}' is unknown; choose 'fast' or 'exact'")
        for name in ("seeds", "max_iterations"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: {getattr(self, name)} is too few; choose 1 or more")

    def check_tile(self, height: int, width: int) -> None:
        """Refuse tiles in whose far corner the coordinates outweigh the embeddings.

        Args:
            height: of the tile, in pixels.
            width: of the tile, in pixels.

        Raises:
            InputError: The larger side times the coordinate weight exceeds the published 256 times 0.005.
        """
        side = max(height, width)
        if side * self.coordinate_weight > COORDINATE_LIMIT * (1 + 1e-9):
            largest = int(COORDINATE_LIMIT / self.coordinate_weight + 1e-9)
            raise InputError(
                f"coordinate_weight: {self.coordinate_weight:g} makes one cluster of a {height}x{width} tile; "
                f"use tiles of at most {largest} pixels, or a weight of at most {COORDINATE_LIMIT / side:.2g}"
            )

    def cluster(self, codes: Tensor) -> Tensor:
        """Cluster codes; see `Clustering.cluster`. Every code gets a label, the most crowded centre's is 1."""
        count = codes.shape[1]
        order = shuffled(count, self.seed).to(codes.device)
        with _full_precision(codes.device):
            points = _extend(codes)
            start = codes[:, order[: self.seeds]].T
            if self.algorithm == "fast" and count >= COARSE_SHARE * COARSE_PIXELS:
                coarse = points[:, order[: count // COARSE_SHARE]]
                modes, crowds = self._shift(coarse, start, COARSE_STOP)
                centres = _suppress(modes, crowds, self.bandwidth)
                if _inside(coarse, centres, self.bandwidth).float().mean() >= CROWDED:
                    start = _suppress(modes, crowds, COARSE_MODE * self.bandwidth)
            centres = _suppress(*self._shift(points, start, STOP), self.bandwidth)
            return _nearest(points, centres)

    def _shift(self, points: Tensor, seeds: Tensor, stop: float) -> tuple[Tensor, Tensor]:
        """Move (k, D + 2) seeds until they rest; returns the different ones and how many points each has."""
        rested: list[tuple[Tensor, Tensor]] = []
        for _ in range(self.max_iterations):
            means, crowds = _window_means(points, seeds, self.bandwidth)
            rests = torch.linalg.vector_norm(means - seeds, dim=1) < stop * self.bandwidth
            if rests.any():
                rested.append((means[rests], crowds[rests]))
                means, crowds = means[~rests], crowds[~rests]
            # Seeds with the same pixels in their windows meet; one is enough from there on.
            first = _first_alike(means, COINCIDENCE * self.bandwidth)
            seeds, crowds = means[first], crowds[first]
            if len(seeds) == 0:
                break
        else:
            rested.append((seeds, crowds))
        centres, crowds = (torch.cat(parts) for parts in zip(*rested, strict=True))
        return centres, crowds


def draw_seeds(count: int, seeds: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=g)[:seeds]


def shuffled(count: int, seed: int) -> Tensor:
    return draw_seeds(count, count, seed)


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Neither autocast nor TF32: a seed's last steps are smaller than either resolves."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def _extend(codes: Tensor) -> Tensor:
    """Append to (D + 2, n) codes a row of their lengths and a row of ones; see `_window_means`."""
    lengths = torch.linalg.vector_norm(codes, dim=0, keepdim=True)
    return torch.cat([codes, lengths, torch.ones_like(lengths)])


def _blocks(points: Tensor, columns: int) -> Iterator[Tensor]:
    """Cut (R, n) points into blocks whose product with so many columns stays in the processor's cache."""
    if points.is_cuda:
        size = max((1 << 22) // columns, 1)
    else:
        size = min(max((1 << 18) // columns, 256), 1 << 14)
    return iter(points.split(size, dim=1))


def _directions(centres: Tensor) -> Tensor:
    """Scale (k, D + 2) vectors to unit length."""
    return centres / torch.linalg.vector_norm(centres, dim=1, keepdim=True).clamp_min(1e-12)


def _excess(centres: Tensor, bandwidth: float) -> Tensor:
    """Weights that turn extended points into v.q - (1 - h)|v|, which is negative outside the windows; (D + 4, k)."""
    inner = _directions(centres)
    limit = inner.new_full((len(inner), 1), bandwidth - 1)
    return torch.cat([inner, limit, torch.zeros_like(limit)], dim=1).T


def _window_means(points: Tensor, seeds: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
    """Mean (k, D + 2) and number (k,) of the points in each seed's window.

    One matrix serves twice: times the weights it tells who is inside, and times that it sums codes and ones. No
    window is ever empty: the mean's direction is the one closest to the points that it is the mean of.
    """
    weights = _excess(seeds, bandwidth)
    sums = torch.zeros_like(weights)
    for block in _blocks(points, len(seeds)):
        inside = torch.mm(block.T, weights).ge_(0)
        sums.addmm_(block, inside)
    crowds = sums[-1]
    return (sums[:-2] / crowds.clamp_min(1)).T, crowds


def _first_alike(vectors: Tensor, distance: float) -> Tensor:
    """Mask of those of (k, D) vectors that no earlier one is close to, in Euclidean distance."""
    alike = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist") < distance
    return ~alike.tril(-1).any(dim=1)


def _suppress(centres: Tensor, crowds: Tensor, distance: float) -> Tensor:
    """Keep, from the most crowded of (k, D + 2) centres on, those farther than a cosine distance from all kept."""
    ranked = sorted(range(len(centres)), key=list(zip(crowds.tolist(), centres.tolist(), strict=True)).__getitem__)
    ranked.reverse()
    ordered = centres[ranked]
    unit = _directions(ordered.double())
    close = (1 - unit @ unit.T <= distance).tolist()
    kept: list[int] = []
    for candidate, row in enumerate(close):
        if not any(row[centre] for centre in kept):
            kept.append(candidate)
    return ordered[kept]


def _inside(points: Tensor, centres: Tensor, bandwidth: float) -> Tensor:
    """Mask (n,) of the points in the window of any centre."""
    weights = _excess(centres, bandwidth)
    return torch.cat([torch.mm(block.T, weights).amax(1) >= 0 for block in _blocks(points, len(centres))])


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    """Number (n,) int32 of each point's nearest centre by cosine distance, from 1."""
    weights = torch.nn.functional.pad(_directions(centres), (0, 2)).T
    parts = [torch.mm(block.T, weights).argmax(1) for block in _blocks(points, len(centres))]
    return torch.cat(parts).int() + 1
