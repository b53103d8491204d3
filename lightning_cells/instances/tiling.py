"""Frames -> overlapping tiles, and the instances of tiles -> instances of frames."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.ndimage import find_objects

from lightning_cells.errors import InputError
from lightning_cells.instances.linking import overlaps

SAME_CELL = 0.25  # share of a piece of a large cell that must lie on another; neighbouring tiles share a half


class Tile(NamedTuple):
    """Where a tile lies in a frame."""

    rows: slice
    columns: slice


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Overlapping tiles, and how their instances are put together.

    From Payer et al., Segmenting and Tracking Cell Instances with Cosine Embeddings and Recurrent Hourglass
    Networks, Medical Image Analysis 57 (2019), section 3.4, and its public code.

    Attributes:
        tile: side of a tile, in pixels; a frame that is smaller gets tiles of its own height or width.
        overlap: pixels that neighbouring tiles share; the last ones, which end at the border, may share more. A
            cell less than `overlap` - 1 pixels high and wide lies in some tile without touching an inner side.
        margin: instances that lie wholly this close to an inner side are left to the neighbouring tile, in pixels;
            up to half the overlap.
        dispute: an overlap of two instances from different tiles up to this fraction of the smaller one does not
            make them rivals: the earlier one keeps the pixels. The paper's 0 loses cells that touch where tiles
            disagree on their outline by a pixel.
        pieces: whether cells too large for a tile are pieced together; else those cut off by a tile's inner side are
            dropped, as in the paper.
    """

    tile: int = 256
    overlap: int = 128
    margin: int = 48
    dispute: float = 0.25
    pieces: bool = True

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            InputError: An overlap that is not smaller than the tile, or a margin of more than half the overlap.
        """
        if not 0 <= self.overlap < self.tile:
            raise InputError(
                f"overlap: {self.overlap} does not fit tiles of {self.tile} px; choose 0 to {self.tile - 1}"
            )
        if not 0 <= 2 * self.margin <= self.overlap:
            raise InputError(
                f"margin: {self.margin} px lose cells at an overlap of {self.overlap}; choose 0 to {self.overlap // 2}"
            )
        if not 0 <= self.dispute <= 1:
            raise InputError(f"dispute: {self.dispute} is no fraction; choose a value from 0 to 1")

    def layout(self, size: tuple[int, int]) -> list[Tile]:
        """Returns the tiles of frames of (H, W) `size` in raster order."""
        rows, columns = (self._spans(length) for length in size)
        return [Tile(y, x) for y in rows for x in columns]

    def merge(self, labels: Iterable[np.ndarray], size: tuple[int, int]) -> np.ndarray:
        """Puts the instances of all tiles together.

        Instances that touch an inner side of their tile, in any frame, are dropped: they are whole in another
        tile. So are those wholly within the margin of an inner side. Of instances that overlap (by more than
        `dispute`) the larger one stays: a new one replaces earlier ones if it has more pixels than all of them
        together, else it is dropped. Areas count all frames; the new instances of a tile are taken by falling area.

        A cell for which every tile is too small, or lies badly, touches an inner side wherever it is seen. Such
        pieces, told by their extent, come last, by falling area: each joins those that hold a quarter of it, so
        that the cell comes out whole if tiles agree on it; one that joins none competes like other instances.

        Args:
            labels: (T, h, w) int32 instances 1..K of each tile of `layout`, in its order; T is 2 in the paper.
            size: (H, W) of the frames.

        Returns:
            (T, H, W) int32 instances 1..N, 0 background.

        Raises:
            ValueError: More or fewer tiles than those of `layout`, or tiles of another size.
        """
        canvas: _Canvas | None = None
        pieces: list[tuple[Tile, np.ndarray, np.ndarray, int]] = []
        for tile, local in zip(self.layout(size), labels, strict=True):
            if canvas is None:
                canvas = _Canvas(np.zeros((len(local), *size), np.int32), self.dispute)
            if local.shape != canvas.labels[:, tile.rows, tile.columns].shape:
                raise ValueError(f"tile at {tile}: instances of shape {local.shape}")
            areas = np.bincount(local.ravel())
            whole, central = areas > 0, np.zeros(len(areas), bool)
            sides = self._inner_sides(tile, size)
            for side in sides:
                whole[local[side]] = False
            central[local[self._interior(tile, size)]] = True
            if sides and self.pieces:
                cut = np.flatnonzero((areas > 0) & ~whole)
                pieces += [(tile, local, areas, label) for label in self._too_large(local, cut[cut > 0], tile, size)]
            whole[0] = False
            canvas.contend(tile, local, areas, np.flatnonzero(whole & central))
        if canvas is None:
            raise ValueError("no tiles")
        for tile, local, areas, label in sorted(pieces, key=lambda piece: -piece[2][piece[3]]):
            canvas.piece_together(tile, local, areas, label)
        return canvas.finished()

    def _spans(self, length: int) -> list[slice]:
        last = max(length - self.tile, 0)
        starts = [*range(0, last, self.tile - self.overlap), last]
        return [slice(start, min(start + self.tile, length)) for start in starts]

    def _inner_sides(self, tile: Tile, size: tuple[int, int]) -> list[tuple]:
        """Indices of the outermost pixels along those sides of a tile that are not sides of the frame."""
        every = slice(None)
        sides = [
            (tile.rows.start > 0, (every, 0)),
            (tile.rows.stop < size[0], (every, -1)),
            (tile.columns.start > 0, (every, every, 0)),
            (tile.columns.stop < size[1], (every, every, -1)),
        ]
        return [index for inner, index in sides if inner]

    def _interior(self, tile: Tile, size: tuple[int, int]) -> tuple[slice, ...]:
        """Index of a tile's pixels outside the margins of its inner sides."""
        return (
            slice(None),
            *(
                slice(
                    self.margin if span.start > 0 else 0,
                    span.stop - span.start - (self.margin if span.stop < length else 0),
                )
                for span, length in zip(tile, size, strict=True)
            ),
        )

    def _too_large(self, local: np.ndarray, cut: np.ndarray, tile: Tile, size: tuple[int, int]) -> list[int]:
        """Returns those of the labels `cut` off at inner sides that are so in every tile."""
        large = []
        boxes = find_objects(local) if len(cut) else []
        for label in cut.tolist():
            for box, span, length in zip(boxes[label - 1][1:], tile, size, strict=True):
                start, stop = box.start + span.start, box.stop + span.start
                if not any(
                    (start > other.start or start == other.start == 0)
                    and (stop < other.stop or stop == other.stop == length)
                    for other in self._spans(length)
                ):
                    large.append(label)
                    break
        return large


class _Canvas:
    """The instances put together so far; one that lost keeps its pixels until they are needed or all is done."""

    def __init__(self, labels: np.ndarray, dispute: float) -> None:
        self.labels = labels
        self.dispute = dispute
        self.areas = [0]  # of each label, 0 if it lost
        self._pieces: list[int] = []  # labels of cells too large for a tile

    def contend(self, tile: Tile, local: np.ndarray, areas: np.ndarray, candidates: np.ndarray) -> None:
        """Lets the candidates of a tile replace smaller instances, or be dropped."""
        view = self.labels[:, tile.rows, tile.columns]
        rivals: dict[int, list[int]] = {}
        known = np.array(self.areas)
        ours, theirs, common = overlaps(local, view, (len(areas), len(known)))
        serious = common > self.dispute * np.minimum(areas[ours], known[theirs])
        for label, rival in zip(ours[serious].tolist(), theirs[serious].tolist(), strict=True):
            rivals.setdefault(label, []).append(rival)
        new = np.zeros(len(areas), np.int32)
        for label in candidates[np.argsort(-areas[candidates], kind="stable")].tolist():
            beaten = rivals.get(label, [])
            if areas[label] > sum(self.areas[rival] for rival in beaten):
                for rival in beaten:
                    self.areas[rival] = 0
                new[label] = len(self.areas)
                self.areas.append(int(areas[label]))
        pixels = new[local]
        np.copyto(view, pixels, where=(pixels > 0) & self._free(view))

    def piece_together(self, tile: Tile, local: np.ndarray, areas: np.ndarray, piece: int) -> None:
        """Joins a piece of a cell to the earlier pieces it lies on; if there is none, it contends."""
        view = self.labels[:, tile.rows, tile.columns]
        mask = local == piece
        under = np.bincount(view[mask], minlength=len(self.areas))
        same = [label for label in self._pieces if self.areas[label] and under[label] >= SAME_CELL * areas[piece]]
        if not same:
            first = len(self.areas)
            self.contend(tile, local, areas, np.array([piece]))
            self._pieces += range(first, len(self.areas))
            return
        view[mask & self._free(view)] = same[0]
        for other in same[1:]:
            self.labels[self.labels == other] = same[0]
            self.areas[other] = 0
        self.areas[same[0]] = int((self.labels == same[0]).sum())

    def finished(self) -> np.ndarray:
        """Returns the instances that are left, numbered from 1."""
        left = np.bincount(self.labels.ravel(), minlength=len(self.areas)) > 0
        left &= np.array(self.areas) > 0
        return np.where(left, np.cumsum(left), 0).astype(np.int32)[self.labels]

    def _free(self, view: np.ndarray) -> np.ndarray:
        """Pixels that no instance holds."""
        return (np.array(self.areas) == 0)[view]
