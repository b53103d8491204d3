"""Mean shift with the cosine distance, all seeds at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_cells.errors import InputError
from lightning_cells.instances.clustering import Clustering
from lightning_cells.instances.precision import full_precision

COORDINATE_LIMIT = 0.005 * 256  # coordinate weight times tile side, both as published
STOP = 1e-3  # a seed rests when it moves less than this, in bandwidths
COARSE_STOP = 1e-2
COARSE_MODE = 0.05  # coarse modes closer than this are one, in bandwidths
COARSE_STEP = 4  # the coarse stage sees every so many rows and columns
COARSE_PIXELS = 1024  # and needs so many pixels
COINCIDENCE = 0.1  # seeds closer than this go the same way, in steps of a seed at rest
CROWDED = 0.45  # share of the pixels that must lie in a window for the coarse stage to be trusted


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
            moves the seeds over one pixel in 16 first and then the few different ones over all: each comes to
            rest where `exact` could too, but a seed between two places may choose the other. Where fewer than
            about half of the pixels lie in a window, the embeddings are so noisy that this would happen often, and
            `fast` does what `exact` does; so it does on small tiles.
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
                f"use tiles of at most {largest} pixels or a smaller weight"
            )

    def of_tiles(self, embeddings: Tensor, foreground: Tensor) -> Tensor:
        """Cluster some tiles; see `Clustering.of_tiles`. A CPU takes one after the other, other devices all at once."""
        if embeddings.device.type == "cpu":
            return super().of_tiles(embeddings, foreground)
        from lightning_cells.instances.shifted_tiles import cluster_tiles  # which knows this class

        self.check_tile(*embeddings.shape[3:])
        return cluster_tiles(embeddings, foreground, self)

    def cluster(self, codes: Tensor, foreground: Tensor) -> Tensor:
        """Cluster codes; see `Clustering.cluster`. Every code gets a label, the most crowded centre's is 1."""
        order = shuffle(codes.shape[1], self.seed)
        seeds = codes[:, order[: self.seeds].to(codes.device)].T
        with full_precision(codes.device):
            points = _extend(codes)
            if self.algorithm == "fast":
                seeds = self._approach(points[:, _lattice(foreground)], seeds)
            centres = _suppress(*self._shift(points, seeds, STOP), self.bandwidth)
            return _nearest(points, centres)

    def _approach(self, coarse: Tensor, seeds: Tensor) -> Tensor:
        """Move (k, D + 2) seeds over few points and drop those that meet, unless the points are too few or noisy."""
        if coarse.shape[1] < COARSE_PIXELS:
            return seeds
        modes, crowds = self._shift(coarse, seeds, COARSE_STOP)
        centres = _suppress(modes, crowds, self.bandwidth)
        if _inside(coarse, centres, self.bandwidth).float().mean() < CROWDED:
            return seeds
        return _suppress(modes, crowds, COARSE_MODE * self.bandwidth)

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
            first = _first_alike(means, COINCIDENCE * stop * self.bandwidth)
            seeds, crowds = means[first], crowds[first]
            if len(seeds) == 0:
                break
        else:
            rested.append((seeds, crowds))
        centres, crowds = (torch.cat(parts) for parts in zip(*rested, strict=True))
        return centres, crowds


def shuffle(count: int, seed: int) -> Tensor:
    """Random order (count,) int64 of so many pixels, on the CPU; the first are the seeds of `MeanShift`."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _lattice(foreground: Tensor) -> Tensor:
    """Mask (n,) of the foreground's pixels on the coarse lattice.

    A lattice stands for all pixels better than as many random ones: neighbours are alike.
    """
    lattice = torch.zeros_like(foreground)
    lattice[:, ::COARSE_STEP, ::COARSE_STEP] = True
    return lattice[foreground]


def _extend(codes: Tensor) -> Tensor:
    """Append to (D + 2, n) codes a row of their lengths and a row of ones; see `_window_means`."""
    lengths = codes.square().sum(0, keepdim=True).sqrt_()
    return torch.cat([codes, lengths, torch.ones_like(lengths)])


def _blocks(points: Tensor, columns: int) -> tuple[Tensor, ...]:
    """Cut (R, n) points into blocks whose product with so many columns stays in the processor's cache."""
    size = (1 << 22) // columns if points.is_cuda else min((1 << 18) // columns, 1 << 14)
    return points.split(max(size, 256), dim=1)


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
        if len(seeds) <= 12:  # the product of a flat and a wide matrix is faster this way round
            sums += torch.mm(torch.mm(weights.T, block).ge_(0), block.T).T
        else:
            sums.addmm_(block, torch.mm(block.T, weights).ge_(0))
    crowds = sums[-1]
    return (sums[:-2] / crowds.clamp_min(1)).T, crowds


def _first_alike(vectors: Tensor, distance: float) -> Tensor:
    """Mask of those of (k, D) vectors that no earlier one is close to, in Euclidean distance."""
    alike = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist") < distance
    return ~alike.tril(-1).any(dim=1)


def _suppress(centres: Tensor, crowds: Tensor, distance: float) -> Tensor:
    """Keep, from the most crowded of (k, D + 2) centres on, those farther than a cosine distance from all kept."""
    values = list(zip(crowds.tolist(), centres.tolist(), strict=True))
    ranked = sorted(range(len(values)), key=values.__getitem__, reverse=True)
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
