"""Class probabilities of the planes of a volume -> labelled cells: stitched from plane to plane, or found in 3-D."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, Self, get_args

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects, gaussian_filter, label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import label as connected
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from lightning_cells.data.voxels import CUBE, Voxel
from lightning_cells.errors import InputError
from lightning_cells.instances.linking import overlaps
from lightning_cells.instances.regions import grow_labels

Cells = Literal["stitch", "watershed", "components"]

_BESIDE = np.stack([np.diag([0, 1, 0]), np.ones((3, 3), int), np.diag([0, 1, 0])])
"""Neighbours of a voxel: the eight of its plane, and those right above and below, as planes are far apart."""
_REACH = 3  # standard deviations of a Gaussian
_STEPS = 10  # per pixel of the distance
_CONTOUR = 3.0  # pixels nearer to an interior are of the same cell, as drawn contours are that wide
_NEARLY_ALL = 0.75
_NO_WAIST = 1.15  # of the face between two cells: its area by volume^(2/3) of the smaller; halves of a ball have 1.9


@dataclass(frozen=True, kw_only=True)
class Volumes:
    """How cells are found in volumes whose planes went through a network one by one.

    Attributes:
        cells: ``watershed`` cuts what is cell in 3-D between the maxima of the distance to what is not, and to where
            cells meet in their planes, and keeps to what planes tell of each cell; ``stitch`` finds cells in each plane
            and joins those that lie over each other, which does not tell cells apart that lie on top of one another;
            ``components`` takes the connected interiors in 3-D, and gives each what is nearest.
        depth: of the watershed: how far a maximum must rise above its surroundings, in pixels.
        blur: of the watershed: standard deviation of the Gaussian by which the distance is smoothed, in pixels.
        overlap: of stitching: share of the smaller of two cells in consecutive planes that must lie over the other.
        smoothing: standard deviation of the Gaussian by which probabilities are smoothed from plane to plane before, in
            planes; 0 for none.
    """

    cells: Cells = "watershed"
    depth: float = 0.5
    blur: float = 2.0
    overlap: float = 0.8
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            InputError: An unknown way, a share outside 0..1, or a negative number.
        """
        if self.cells not in get_args(Cells):
            raise InputError(f"volumes.cells: {self.cells} is not known; choose one of {', '.join(get_args(Cells))}")
        if not 0 <= self.overlap <= 1:
            raise InputError(f"volumes.overlap: {self.overlap} is no share; choose a value from 0 to 1")
        for name in ("depth", "blur", "smoothing"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"volumes.{name}: {getattr(self, name)} is no length; choose 0 or more")

    def resized(self, factor: float) -> Self:
        """The same for cells that are larger by a factor within their planes."""
        return replace(self, depth=self.depth * factor, blur=self.blur * factor)


@dataclass
class Stitcher:
    """Joins the cells of consecutive planes. One cell continues at most one, and each the one it overlaps most with.

    Attributes:
        overlap: share of the smaller of the two that must lie over the other.
    """

    overlap: float
    _before: np.ndarray | None = None  # (H, W) int32, the plane before, labelled 0..K within itself
    _names: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int32))  # of its cells in the volume
    _areas: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    _count: int = 0

    def push(self, labels: np.ndarray) -> np.ndarray:
        """Takes the cells of the next plane, (H, W) int32 1..K, and returns them by their labels in the volume."""
        areas = np.bincount(labels.ravel())
        names = np.zeros(len(areas), np.int32)
        if self._before is not None:
            cells, olds, pixels = overlaps(labels, self._before, (len(areas), len(self._areas)))
            iou = pixels / (areas[cells] + self._areas[olds] - pixels)
            order = np.argsort(iou, kind="stable")  # of repeated assignments to one place the last stays
            best, heir = np.zeros(len(areas), np.int64), np.zeros(len(self._areas), np.int64)
            best[cells[order]], heir[olds[order]] = olds[order], cells[order]
            joined = (best[cells] == olds) & (heir[olds] == cells)
            joined &= pixels >= self.overlap * np.minimum(areas[cells], self._areas[olds])
            names[cells[joined]] = self._names[olds[joined]]
        born = np.flatnonzero((names[1:] == 0) & (areas[1:] > 0)) + 1
        names[born] = self._count + 1 + np.arange(len(born))
        self._count += len(born)
        self._before, self._names, self._areas = labels, names, areas
        return names[labels]


def smoothed(planes: Iterable[np.ndarray], sigma: float) -> Iterator[np.ndarray]:
    """Smooths planes, (C, H, W) each, along their order by a Gaussian; beyond the ends the last ones are repeated.

    Only those that its window needs are in memory.
    """
    reach = math.ceil(_REACH * sigma)
    if not reach:
        yield from planes
        return
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2).astype(np.float32)
    weights /= weights.sum()
    window: deque[np.ndarray] = deque(maxlen=2 * reach + 1)

    def mean() -> np.ndarray:
        total = np.zeros_like(window[0])
        for weight, plane in zip(weights, window, strict=True):
            total += weight * plane
        return total

    last: np.ndarray | None = None
    came = 0
    for last in planes:
        window.extend([last] * (1 if window else reach + 1))
        came += 1
        if len(window) == window.maxlen:
            yield mean()
    for _ in range(min(reach, came)):
        assert last is not None
        while len(window) < 2 * reach:  # fewer planes than a window
            window.append(last)
        window.append(last)
        yield mean()


def ball(area: float, voxel: Voxel = CUBE) -> float:
    """Voxels of the ball whose largest section has so many pixels."""
    return 4 / 3 / math.sqrt(math.pi) * area**1.5 * voxel[2] / voxel[0]


def cut_by_distance(
    labels: np.ndarray, depth: float, blur: float, voxel: Voxel, interior: np.ndarray | None = None
) -> np.ndarray:
    """Cuts cells between the maxima of the distance to what is none, and to where they meet in their planes.

    The cuts are then brought in line with the planes: what is nearly all of one cell there becomes all of it. A cut
    without a waist, as one ellipsoid may get between two planes, is undone, unless cells meet there in their planes.

    Args:
        labels: (Z, H, W) int32, the cells of each plane, 0 background; a label means nothing beyond its plane.
        depth: a maximum that rises less above its surroundings is none, in pixels; counts in steps of 0.1.
        blur: standard deviation by which the distance is smoothed, in pixels; its steps from voxel to voxel would be
            maxima of their own.
        voxel: its sides.
        interior: (Z, H, W) bool, cells without their contours; None where nothing tells.

    Returns:
        (Z, H, W) int32 labels, 0 outside.
    """
    sides = np.array(voxel) / voxel[2]

    def cut(part: np.ndarray, within: np.ndarray, labels: np.ndarray, inside: np.ndarray) -> np.ndarray:
        distance = distance_transform_edt(np.pad(part & within, 1), sides)[1:-1, 1:-1, 1:-1]
        distance = gaussian_filter(distance, blur / sides)
        steps = np.rint(distance * _STEPS).astype(np.uint16)  # whole: h-maxima of floats are neither fast nor exact
        markers, count = label(h_maxima(steps, max(1, round(depth * _STEPS))), np.ones((3, 3, 3)))
        if count < 2:  # none where it is thinner than that depth
            return part.astype(np.int32)
        cells = watershed(-distance, markers, mask=part)
        pieces = _pieces(np.where(part, labels, 0), inside)
        return _agreed(_joined(_agreed(cells, pieces), pieces, sides), pieces)

    return _in_parts(labels > 0, cut, ~_borders(labels), labels, labels > 0 if interior is None else interior)


def _pieces(labels: np.ndarray, interior: np.ndarray) -> np.ndarray:
    """Numbers what is one in its plane: connected interiors of cells, (Z, H, W) int32, and the contour that is near."""
    pieces, count = np.zeros_like(labels), 0
    for plane, inside, out in zip(labels, interior, pieces, strict=True):
        seeds = connected(np.where(inside, plane, 0), connectivity=2).astype(np.int32)
        of = np.zeros(seeds.max() + 1, np.int32)
        of[seeds] = plane * (seeds > 0)
        grown = grow_labels(seeds, plane > 0, _CONTOUR)
        own = (grown > 0) & (of[grown] == plane)
        out[own] = grown[own] + count
        count += len(of)
    return pieces


def _agreed(cells: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """Gives each piece of a plane, nearly all of which is of one cell, to that cell."""
    sizes = np.bincount(pieces.ravel())
    piece, cell, voxels = overlaps(pieces, cells, (len(sizes), int(cells.max()) + 1))
    most, owner = np.zeros_like(sizes), np.zeros(len(sizes), cells.dtype)
    order = np.argsort(voxels, kind="stable")  # of repeated assignments to one place the last stays
    most[piece[order]], owner[piece[order]] = voxels[order], cell[order]
    sure = (most >= _NEARLY_ALL * sizes) & (most > 0)
    return np.where(sure[pieces], owner[pieces], cells)


def _joined(cells: np.ndarray, pieces: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Joins cells that touch as widely as two parts of one, and are not told apart in their planes."""
    count = int(cells.max()) + 1
    pairs, areas = [], []
    for axis, area in enumerate(np.prod(sides) / sides):
        there, here = (np.moveaxis(cells, axis, 0)[part] for part in (slice(1, None), slice(-1)))
        beside = (there != here) & (there > 0) & (here > 0)
        pairs.append(np.sort([there[beside], here[beside]], 0).astype(np.int64))
        at = np.moveaxis(pieces, axis, 0)
        told = (at[1:] != at[:-1])[beside] & (axis > 0)  # of planes above each other nothing tells
        areas.append(np.where(told, -area, area) * np.eye(3)[[axis]].T)
    (first, second), each = np.concatenate(pairs, 1), np.concatenate(areas, 1)
    keys, number = np.unique(first * count + second, return_inverse=True)
    depth, height, width = (np.bincount(number, along, len(keys)) for along in each)
    smaller = (np.bincount(cells.ravel()) * np.prod(sides))[np.stack(np.divmod(keys, count))].min(0)
    wide = np.sqrt(depth**2 + height**2 + width**2) > _NO_WAIST * smaller ** (2 / 3)
    same = np.divmod(keys[wide & (height + width >= 0)], count)
    _, joined = connected_components(coo_array((np.ones(len(same[0])), same), (count, count)), directed=False)
    return joined[cells] + 1


def _borders(labels: np.ndarray) -> np.ndarray:
    """Voxels of cells beside another one in their plane, (Z, H, W) bool."""
    borders = np.zeros(labels.shape, bool)
    for first, second in (
        ((..., slice(1, None), slice(None)), (..., slice(-1), slice(None))),
        ((..., slice(1, None)), (..., slice(-1))),
    ):
        meet = (labels[first] != labels[second]) & (labels[first] > 0) & (labels[second] > 0)
        borders[first] |= meet
        borders[second] |= meet
    return borders


def grow_interiors(interior: np.ndarray, cell: np.ndarray, voxel: Voxel) -> np.ndarray:
    """Labels connected interiors, and gives each of them those voxels of the cells that are nearest.

    Args:
        interior: (Z, H, W) bool.
        cell: (Z, H, W) bool; parts without interior are cells, too.
        voxel: its sides.

    Returns:
        (Z, H, W) int32 labels, 0 outside.
    """
    sides = np.array(voxel) / voxel[2]

    def grow(part: np.ndarray, inside: np.ndarray) -> np.ndarray:
        seeds, count = label(inside & part, _BESIDE)
        if count < 2:
            return part.astype(np.int32)
        return watershed(distance_transform_edt(seeds == 0, sides), seeds, mask=part)

    return _in_parts(cell, grow, interior)


def _in_parts(cell: np.ndarray, cut: Callable[..., np.ndarray], *others: np.ndarray) -> np.ndarray:
    """Cuts each connected part within its own box, so that memory is that of the part."""
    parts, _ = label(cell, _BESIDE, output=np.int32)
    count = 0
    for number, box in enumerate(find_objects(parts), 1):
        part = parts[box] == number
        labels = cut(part, *(other[box] for other in others))
        parts[box][part] = -count - labels[part]  # below 0: not to be taken for a part that comes
        count += int(labels.max())
    return -parts
