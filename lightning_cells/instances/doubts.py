"""Whether what was found can be what the user wants; what to do if not."""

from collections import Counter

import numpy as np

from lightning_cells.data.cell_sizes import cell_areas
from lightning_cells.data.tracks import Lineage

_FRAGMENT = 1 / 8  # of a typical cell's area
_MOST = 0.75  # of a frame, that no cell covers
_CROWD = 100  # cells in each frame, from which on short tracks are no accident


class Doubts:
    """Sees the frames of a result one by one, and says at the end what can hardly be right.

    Args:
        area: of a typical cell in pixels of the frames, or voxels of volumes; None if it is not known.
    """

    def __init__(self, area: float | None = None) -> None:
        self._area = area
        self._frames = 0
        self._unit = "pixels"
        self._covered = 0  # frames of which one object covers most
        self._sizes: Counter[int] = Counter()  # objects by their pixels: memory does not grow with the video

    def see(self, labels: np.ndarray) -> None:
        """Takes the next frame, (H, W) or (Z, H, W) track labels."""
        areas = cell_areas(labels)
        self._unit = "pixels" if labels.ndim == 2 else "voxels"
        self._frames += 1
        self._covered += bool(len(areas)) and int(areas.max()) > _MOST * labels.size
        self._sizes.update(areas.tolist())

    def said(self, lineage: Lineage) -> list[str]:
        """One line for each reason to doubt, with the remedy."""
        found = self._sizes.total()
        if not found:
            return [
                "no cells were found in any frame: is the model one for frames of this kind? --diameter sets a size"
            ]
        doubts = []
        typical = self._typical()
        if self._area is not None and typical < _FRAGMENT * self._area:
            doubts.append(
                f"most of what was found is tiny, {typical} {self._unit} where a cell has about {self._area:.0f}: give "
                "the diameter of your cells (--diameter), or drop pieces (--min-size 0.1)"
            )
        if self._covered > self._frames / 2:
            doubts.append(
                "one object covers most of a frame: give the diameter of your cells (--diameter), and see whether they "
                "are bright on a dark ground, as the model may expect"
            )
        short = sum(track.begin == track.end for track in lineage.values())
        if self._frames > 2 and found > _CROWD * self._frames and short > len(lineage) / 2:
            doubts.append(
                f"{found // self._frames} objects in a frame, and most tracks have one frame only: what was found may "
                "be texture or noise: give the diameter of your cells (--diameter), or drop pieces (--min-size 0.1)"
            )
        return doubts

    def _typical(self) -> int:
        """The median of the sizes."""
        sizes = sorted(self._sizes)
        upto = np.cumsum([self._sizes[size] for size in sizes])
        return sizes[int(np.searchsorted(upto, upto[-1] / 2))]
