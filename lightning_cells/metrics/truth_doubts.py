"""Whether a truth is one that somebody drew, cell by cell; what to do if not."""

from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lightning_cells.data.cell_sizes import cell_areas

_SPECK = 1 / 20  # of a typical cell's area
_MANY = 100  # specks that are no accident


class TruthDoubts:
    """Sees the masks of a truth one by one, and says at the end what can hardly be right.

    Args:
        folder: what to call it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._with_cells = 0  # frames
        self._unit = "pixels"
        self._in_pieces = 0  # of them, those of one label that is in several places
        self._labels: set[int] = set()  # of those
        self._sizes: Counter[int] = Counter()  # cells by their pixels or voxels: memory does not grow with the video

    def see(self, truth: NDArray[np.integer]) -> None:
        """Takes the next mask, (H, W) or (Z, H, W) labels."""
        self._unit = "pixels" if truth.ndim == 2 else "voxels"
        areas = cell_areas(truth)
        self._with_cells += bool(len(areas))
        self._sizes.update(areas.tolist())
        if len(areas) == 1 and ndimage.label(truth > 0, np.ones((3,) * truth.ndim))[1] > 1:
            self._in_pieces += 1
            self._labels.add(int(truth.max()))

    def said(self) -> list[str]:
        """One line for each reason to doubt, with the remedy."""
        doubts = []
        if self._in_pieces > self._with_cells / 2 and len(self._labels) == 1:
            doubts.append(
                f"{self._folder}: all cells have the one label {min(self._labels)}, and count as one cell: give each "
                "a number of its own"
            )
        found = self._sizes.total()
        least = _SPECK * self._typical()
        specks = sum(count for size, count in self._sizes.items() if size < least)
        if specks >= max(_MANY, found / 4):
            doubts.append(
                f"{self._folder}: {specks} of {found} cells are specks of less than {least:.0f} "
                f"{self._unit}, and count as cells: remove them"
            )
        return doubts

    def _typical(self) -> int:
        """The size of the cell that a pixel of a cell is in, as a median: specks have few of the pixels."""
        if not self._sizes:
            return 0
        sizes = sorted(self._sizes)
        upto = np.cumsum([size * self._sizes[size] for size in sizes])
        return sizes[int(np.searchsorted(upto, upto[-1] / 2))]
