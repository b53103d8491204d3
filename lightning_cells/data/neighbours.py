"""Which cells of a clip are neighbours, for the cosine embedding loss; plain numpy, run in the loader's workers."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lightning_cells.data.targets import cell_ids
from lightning_cells.errors import InputError


def neighbours(labels: np.ndarray, radius: float, dilation: float = 5.0) -> tuple[np.ndarray, np.ndarray]:
    """Find the neighbours of each cell of a clip (Payer et al. 2019, sec. 2.2; the second way is from their code).

    Cell j is a neighbour of cell i if it has a pixel closer than `radius` to the centre of i, the mean of the pixels
    of i in all frames of the clip, in whatever frame; or if it has a pixel not further than `dilation` from one of
    i in the same frame, the one before or the one after, so that a mother and its daughters are neighbours. The
    second relation is symmetric, the first one is not. A marker counts as its cell's pixel.

    Args:
        labels: integer array (T,H,W) in the label convention.
        radius: in pixels, >= 0; 50 for most data sets of the paper, 150 for Fluo-C2DL-MSC, 10 for Fluo-N2DL-HeLa.
        dilation: in pixels, >= 0.

    Returns:
        The ids of the K cells, int32, ascending; and (K,K) bool, true at [i,j] if j is a neighbour of i, never on
        the diagonal.

    Raises:
        InputError: `radius` or `dilation` is negative.
    """
    if radius < 0 or dilation < 0:
        raise InputError(f"neighbours within radius {radius} and dilation {dilation}: use 0 or more for both")
    runs = _runs(cell_ids(labels))
    ids, cell = np.unique(runs.cell, return_inverse=True)
    runs = runs._replace(cell=cell)
    near = _around_centres(runs, len(ids), radius) | _touching(runs, len(ids), labels.shape[1:], dilation)
    np.fill_diagonal(near, False)
    return ids, near


@dataclass(frozen=True)
class CosineTarget:
    """Makes the neighbours for the cosine embedding loss.

    Args:
        radius: see `neighbours`.
        dilation: see `neighbours`.
        capacity: rows of the result, the same for all clips, so that they make a batch. Of more pairs than that,
            evenly spaced ones are kept.
    """

    radius: float
    dilation: float = 5.0
    capacity: int = 16384

    def __call__(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Turn labels (T,H,W) into ``neighbours``, int32 (capacity,2): pairs ``(i, j)`` of ids, then pairs of -1."""
        ids, near = neighbours(labels, self.radius, self.dilation)
        pairs = np.argwhere(near)
        if len(pairs) > self.capacity:
            pairs = pairs[np.linspace(0, len(pairs) - 1, self.capacity).astype(np.intp)]
        rows = np.full((self.capacity, 2), -1, np.int32)
        rows[: len(pairs)] = ids[pairs]
        return {"neighbours": rows}


class _Runs(NamedTuple):
    """Horizontal runs of one cell's pixels, in raster order; ``left`` and ``right`` are its first and last column."""

    cell: np.ndarray
    frame: np.ndarray
    row: np.ndarray
    left: np.ndarray
    right: np.ndarray


def _runs(ids: np.ndarray) -> _Runs:
    """Everything is done on runs: there are many times fewer of them than of pixels."""
    width = ids.shape[2]
    flat = ids.ravel()
    begins = np.empty(ids.shape, bool)
    begins[..., 0] = True
    np.not_equal(ids[..., 1:], ids[..., :-1], out=begins[..., 1:])
    starts = np.flatnonzero(begins)
    cell = flat[starts]
    lengths = np.diff(starts, append=flat.size)
    starts, lengths, cell = starts[cell > 0], lengths[cell > 0], cell[cell > 0]
    line, left = np.divmod(starts, width)
    frame, row = np.divmod(line, ids.shape[1])
    return _Runs(cell, frame, row, left, left + lengths - 1)


def _around_centres(runs: _Runs, number: int, radius: float) -> np.ndarray:
    """(K,K) bool: cell j has a pixel closer than `radius` to the centre of cell i."""
    lengths = runs.right - runs.left + 1
    pixels = np.bincount(runs.cell, lengths, number)
    centre_row = np.bincount(runs.cell, lengths * runs.row, number) / pixels
    centre_column = np.bincount(runs.cell, lengths * (runs.left + runs.right) / 2, number) / pixels
    by_row = np.argsort(runs.row, kind="stable")
    cell, _, row, left, right = (part[by_row] for part in runs)
    first = np.searchsorted(row, centre_row - radius)
    stop = np.searchsorted(row, centre_row + radius, side="right")
    near = np.zeros((number, number), bool)
    for i, (y, x) in enumerate(zip(centre_row, centre_column, strict=True)):
        part = slice(first[i], stop[i])
        beside = np.maximum(np.maximum(left[part] - x, x - right[part]), 0)
        near[i, cell[part][np.square(row[part] - y) + np.square(beside) < radius**2]] = True
    return near


def _touching(runs: _Runs, number: int, size: tuple[int, int], dilation: float) -> np.ndarray:
    """(K,K) bool: cells i and j have pixels not further apart than `dilation`, at most one frame apart."""
    reach = int(dilation)
    # Runs as intervals of one line, with room between rows and between frames, so that none reaches another row.
    height, width = size[0] + reach, size[1] + reach
    begin = (runs.frame * height + runs.row) * width + runs.left
    end = begin + runs.right - runs.left
    near = np.zeros((number, number), bool)
    shifts = [(0, down) for down in range(reach + 1)] + [(1, down) for down in range(-reach, reach + 1)]
    for later, down in shifts:  # the other way round is the transpose
        shift = (later * height + down) * width
        wider = int(math.sqrt(dilation**2 - down**2))
        met = np.searchsorted(end, begin + shift - wider)
        stop = np.searchsorted(begin, end + shift + wider, side="right")
        cell = runs.cell
        while len(met):
            more = met < stop
            met, stop, cell = met[more], stop[more], cell[more]
            near[cell, runs.cell[met]] = True
            met = met + 1
    return near | near.T
