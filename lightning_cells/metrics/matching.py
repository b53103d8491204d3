"""Which result cell covers which truth cell in a frame: one contingency count over the foreground pixels."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_cells.data.image_files import MAX_LABEL
from lightning_cells.errors import InputError

# A contingency table up to this many entries is counted in place (32 MB); larger ones are sorted instead.
_DENSE = 1 << 22


class Regions:
    """The cells of one label image.

    Args:
        mask: (H, W) or (Z, H, W) integers; cells are above 0, everything else is background.

    Attributes:
        shape: that of the mask.
        labels: (N,) int64, ascending labels that occur.
        areas: (N,) int64, pixels of each.

    Raises:
        InputError: on a label above 65535.
    """

    def __init__(self, mask: NDArray[np.integer]) -> None:
        self.shape = mask.shape
        self.flat = mask.ravel()
        # Four times as fast by way of a boolean image as from uint16.
        self.pixels = np.flatnonzero(self.flat > 0)
        values = self.flat[self.pixels]
        if values.size and values.max() > MAX_LABEL:
            raise InputError(f"label {values.max()} in a mask: labels go from 1 to {MAX_LABEL}, relabel the cells")
        counts = np.bincount(values)
        self.labels = np.flatnonzero(counts)
        self.areas = counts[self.labels]
        self.position = np.zeros(len(counts), np.int64)  # label -> index into labels
        self.position[self.labels] = np.arange(len(self.labels))
        self.index = self.position[values]  # of every foreground pixel


class CommonPixels(NamedTuple):
    """Pairs of a truth cell and a result cell that share pixels, all arrays (P,), ascending."""

    truth: NDArray[np.int64]  # index into the truth's labels
    result: NDArray[np.int64]  # index into the result's labels
    pixels: NDArray[np.int64]


class Match(NamedTuple):
    """The truth cells of a frame and the result cell that detects each, all arrays (N,)."""

    truth: NDArray[np.int64]  # truth labels, ascending
    partner: NDArray[np.int64]  # label of the result cell that covers more than half of it, else 0
    iou: NDArray[np.float64]  # Jaccard index with that cell, else 0


def overlap(truth: Regions, result: Regions) -> CommonPixels:
    """Counts the pixels that each truth cell shares with each result cell.

    Raises:
        InputError: if the two masks differ in size.
    """
    if truth.shape != result.shape:
        raise InputError(
            f"the result mask is {size_of(result.shape)} but the truth mask is {size_of(truth.shape)}: give masks of "
            "one size"
        )
    values = truth.flat[result.pixels]
    both = values > 0
    columns = max(len(result.labels), 1)
    codes = truth.position[values[both]] * columns + result.index[both]
    if len(truth.labels) * columns <= _DENSE:
        counts = np.bincount(codes)
        found = np.flatnonzero(counts)
        counts = counts[found]
    else:
        found, counts = np.unique(codes, return_counts=True)
    return CommonPixels(found // columns, found % columns, counts)


def match(truth: Regions, result: Regions) -> Match:
    """Finds for every truth cell R the result cell S with area(R ∩ S) > area(R) / 2; there is at most one.

    The criterion of the Cell Tracking Challenge for SEG and for the vertices of TRA alike. It is strict: a
    result cell that covers exactly half of a truth cell does not detect it.
    """
    pairs = overlap(truth, result)
    keep = 2 * pairs.pixels > truth.areas[pairs.truth]
    rows, columns, shared = pairs.truth[keep], pairs.result[keep], pairs.pixels[keep]
    partner = np.zeros(len(truth.labels), np.int64)
    iou = np.zeros(len(truth.labels))
    partner[rows] = result.labels[columns]
    iou[rows] = shared / (truth.areas[rows] + result.areas[columns] - shared)
    return Match(truth.labels, partner, iou)


def plane_of(mask: NDArray[np.integer], plane: int) -> NDArray[np.integer]:
    """Returns the (H, W) of a plane of a (Z, H, W) mask.

    Raises:
        InputError: if the mask is no volume, or has no such plane.
    """
    if mask.ndim != 3:
        raise InputError(
            f"the result mask is {size_of(mask.shape)} but the truth is that of plane {plane} of a volume: give volumes"
        )
    if not 0 <= plane < len(mask):
        raise InputError(f"the result mask has {len(mask)} planes and no plane {plane}, which the truth has")
    return mask[plane]


def size_of(shape: tuple[int, ...]) -> str:
    """The size of a mask in words."""
    return " x ".join(str(n) for n in shape)
