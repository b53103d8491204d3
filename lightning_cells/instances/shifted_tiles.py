"""Mean shift of many tiles at once, for devices where waiting costs more than computing.

`MeanShift` takes one tile, leaves out its background and drops seeds as they meet or rest; each of that must be known
on the host before it can go on. Here nothing is left out: a pixel of the background is a column of zeros, which adds
nothing to any mean, and a seed at rest stays where it is. So all sizes are known before, and the host asks three things
of a whole batch of tiles: how many pixels their foregrounds have, how many seeds are left after the coarse stage, and
every `ROUNDS` rounds whether all have come to rest. Seeds and clusters are those of `MeanShift`, up to the rounding of
float32. A CPU, which does not wait, would need 3 to 20 times as long.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_cells.errors import InputError
from lightning_cells.instances.mean_shift import (
    COARSE_MODE,
    COARSE_PIXELS,
    COARSE_STEP,
    COARSE_STOP,
    CROWDED,
    STOP,
    MeanShift,
    shuffle,
)
from lightning_cells.instances.precision import full_precision

ROUNDS = 16  # of the seeds between two questions; most of them rest within one or two times as many
LINKS = 16  # longest chain of centres, each in reach of the one before, along which it is settled who stays
_BLOCK = 1 << 26  # products of points and seeds that are in memory at a time


def cluster_tiles(embeddings: Tensor, foreground: Tensor, settings: MeanShift) -> Tensor:
    """Cluster the foreground of some tiles, each by itself.

    Args:
        embeddings: (B, T, D, H, W) floating point, of any length.
        foreground: (B, T, H, W) bool.
        settings: of the mean shift.

    Returns:
        (B, T, H, W) int32, as `Clustering` does for a tile.

    Raises:
        InputError: Embeddings of a foreground are not finite.
    """
    mask = foreground.flatten(1)
    points = _points(embeddings, foreground, settings.coordinate_weight)
    counts, finite = torch.stack([mask.sum(1), points.sum((1, 2)).isfinite()]).tolist()
    if not all(finite):
        raise InputError("clustering: embeddings of the foreground are not finite; leave those pixels out")
    with full_precision(points.device):
        seeds, alive = _seeds(points, mask, counts, settings)
        if settings.algorithm == "fast":
            coarse = points.unflatten(2, foreground.shape[1:])[..., ::COARSE_STEP, ::COARSE_STEP].flatten(2)
            seeds, alive = _approach(coarse, seeds, alive, settings)
        centres, crowds = _shift(points, seeds, alive, STOP, settings)
        centres, kept = _suppress(centres, crowds, alive, settings.bandwidth)
        labels = _nearest(points, centres, kept) * mask
    return labels.int().view(foreground.shape)


def _points(embeddings: Tensor, foreground: Tensor, coordinate_weight: float) -> Tensor:
    """Codes of all pixels, their lengths, and ones, (B, D + 4, T H W) float32; zeros outside the foreground."""
    height, width = embeddings.shape[-2:]
    inside = foreground[:, None].flatten(2)
    codes = embeddings.float().transpose(1, 2).flatten(2)
    codes = torch.where(inside, codes, 0)
    codes = codes / codes.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)
    rows = torch.arange(height, device=codes.device)[:, None].expand(height, width)
    columns = torch.arange(width, device=codes.device).expand(height, width)
    places = coordinate_weight * torch.stack([rows, columns]).float()
    places = places[None, :, None].expand(len(codes), -1, *foreground.shape[1:]).flatten(2)
    codes = torch.cat([codes, torch.where(inside, places, 0)], 1)
    lengths = codes.square().sum(1, keepdim=True).sqrt()
    return torch.cat([codes, lengths, inside.float()], 1)


def _seeds(points: Tensor, mask: Tensor, counts: list[int], settings: MeanShift) -> tuple[Tensor, Tensor]:
    """The pixels to start from, (B, S, D + 2), and which of them there are, (B, S)."""
    ranks = torch.full((len(counts), settings.seeds), -1)
    for row, count in zip(ranks, counts, strict=True):
        chosen = shuffle(int(count), settings.seed)[: settings.seeds]
        row[: len(chosen)] = chosen
    ranks = ranks.to(points.device, non_blocking=True)
    # of the foreground's pixels in their order the one with this rank
    places = torch.searchsorted(mask.cumsum(1), ranks.clamp(min=0) + 1).clamp(max=mask.shape[1] - 1)
    codes = points[:, :-2]
    return codes.gather(2, places[:, None].expand(-1, codes.shape[1], -1)).transpose(1, 2), ranks >= 0


def _approach(coarse: Tensor, seeds: Tensor, alive: Tensor, settings: MeanShift) -> tuple[Tensor, Tensor]:
    """Move seeds over few points and drop those that meet, in tiles whose points are neither too few nor too noisy."""
    modes, crowds = _shift(coarse, seeds, alive, COARSE_STOP, settings)
    centres, kept = _suppress(modes, crowds, alive, settings.bandwidth)
    number = coarse[:, -1].sum(1)
    share = _inside(coarse, centres, kept, settings.bandwidth) / number.clamp(min=1)
    trusted = (number >= COARSE_PIXELS) & (share >= CROWDED)
    modes, different = _suppress(modes, crowds, alive, COARSE_MODE * settings.bandwidth)
    seeds = torch.where(trusted[:, None, None], modes, seeds)
    alive = torch.where(trusted[:, None], different, alive)
    first = alive.int().argsort(dim=1, descending=True, stable=True)
    most = max(1, int(alive.sum(1).max()))  # the host waits
    return _taken(seeds, first)[:, :most], alive.gather(1, first)[:, :most]


def _shift(points: Tensor, seeds: Tensor, alive: Tensor, stop: float, settings: MeanShift) -> tuple[Tensor, Tensor]:
    """Move seeds until they rest: where they are then, (B, S, D + 2), and how many points each has, (B, S)."""
    resting = ~alive
    crowds = torch.zeros_like(seeds[..., 0])
    for number in range(1, settings.max_iterations + 1):
        means, now = _window_means(points, seeds, settings.bandwidth)
        rests = torch.linalg.vector_norm(means - seeds, dim=2) < stop * settings.bandwidth
        seeds = torch.where(resting[..., None], seeds, means)
        crowds = torch.where(resting, crowds, now)
        resting = resting | rests
        if number % ROUNDS == 0 and bool(resting.all()):  # the host waits
            break
    return seeds, crowds


def _window_means(points: Tensor, seeds: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
    """Mean (B, S, D + 2) and number (B, S) of the points in each seed's window."""
    weights = _excess(seeds, bandwidth)
    sums = torch.zeros_like(weights)
    for block in _blocks(points, seeds):
        sums.baddbmm_(block, torch.bmm(block.transpose(1, 2), weights).ge_(0))
    crowds = sums[:, -1]
    return (sums[:, :-2] / crowds[:, None].clamp_min(1)).transpose(1, 2), crowds


def _excess(centres: Tensor, bandwidth: float) -> Tensor:
    """Weights (B, D + 4, S) that turn points into v.q - (1 - h)|v|, which is negative outside the windows."""
    return F.pad(F.pad(_directions(centres), (0, 1), value=bandwidth - 1), (0, 1)).transpose(1, 2)


def _directions(centres: Tensor) -> Tensor:
    """Scale (B, S, D + 2) vectors to unit length."""
    return centres / torch.linalg.vector_norm(centres, dim=2, keepdim=True).clamp_min(1e-12)


def _blocks(points: Tensor, seeds: Tensor) -> tuple[Tensor, ...]:
    """Cut (B, R, N) points into blocks whose products with all seeds fit into memory."""
    return points.split(max(256, _BLOCK // (seeds.shape[0] * seeds.shape[1])), dim=2)


def _suppress(centres: Tensor, crowds: Tensor, alive: Tensor, distance: float) -> tuple[Tensor, Tensor]:
    """Sort centres by falling crowds, and tell which are farther than a cosine distance from all kept before."""
    order = centres[..., 0].argsort(dim=1, descending=True, stable=True)
    crowds = torch.where(alive, crowds, -1).gather(1, order)
    order = order.gather(1, crowds.argsort(dim=1, descending=True, stable=True))
    centres, alive = _taken(centres, order), alive.gather(1, order)
    unit = _directions(centres.double())
    close = (1 - torch.bmm(unit, unit.transpose(1, 2)) <= distance).tril(-1)
    kept = alive
    for _ in range(LINKS):
        kept = alive & ~(close & kept[:, None]).any(2)
    return centres, kept


def _inside(points: Tensor, centres: Tensor, kept: Tensor, bandwidth: float) -> Tensor:
    """How many points of each tile, (B,), are in the window of any kept centre."""
    weights, absent = _excess(centres, bandwidth), ~kept[:, None]
    total = torch.zeros_like(points[:, 0, 0])
    for block in _blocks(points, centres):
        best = torch.bmm(block.transpose(1, 2), weights).masked_fill_(absent, -1).amax(2)
        total += ((best >= 0) * block[:, -1]).sum(1)
    return total


def _nearest(points: Tensor, centres: Tensor, kept: Tensor) -> Tensor:
    """Number (B, N) of each point's nearest kept centre by cosine distance, from 1."""
    weights, absent = F.pad(_directions(centres), (0, 2)).transpose(1, 2), ~kept[:, None]
    best = [
        torch.bmm(block.transpose(1, 2), weights).masked_fill_(absent, -torch.inf).argmax(2)
        for block in _blocks(points, centres)
    ]
    return kept.cumsum(1).gather(1, torch.cat(best, 1))


def _taken(vectors: Tensor, order: Tensor) -> Tensor:
    """Rows of (B, S, C) in another order, (B, S)."""
    return vectors.gather(1, order[..., None].expand(-1, -1, vectors.shape[2]))
