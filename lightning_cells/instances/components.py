"""Class probabilities -> labelled cells, one decoder per rule.

Classes are 0 background, 1 foreground (a cell's interior) and, where the network has it, 2 contour. Every
decoder takes two classes too: the contour's probability is then 0 everywhere.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

import cv2
import numpy as np
from skimage.segmentation import watershed

from lightning_cells.data.voxels import CUBE, Voxel
from lightning_cells.errors import InputError
from lightning_cells.instances.regions import (
    connected_components,
    fill_labels,
    fill_mask,
    grow_labels,
    select_labels,
)
from lightning_cells.instances.volumes import Stitcher, Volumes, ball, cut_by_distance, grow_interiors, smoothed


@dataclass(frozen=True, kw_only=True)
class Decoder(ABC):
    """What the decoders share: the checks before, and the selection of cells after.

    Attributes:
        min_size: smallest cell kept, in pixels of the finished cell.
        max_size: largest cell kept, in pixels; None keeps all.
        border: width of the frame's margin, in pixels: a cell that lies wholly in it is dropped (the
            challenge's field of interest: 50 for DIC-C2DH-HeLa, Fluo-C2DL-MSC, Fluo-N2DH-GOWT1 and
            PhC-C2DH-U373, 25 for Fluo-N2DL-HeLa and PhC-C2DL-PSC, 0 for Fluo-N2DH-SIM+).
        volumes: how the cells of a volume are found.
    """

    min_size: int = 10
    max_size: int | None = None
    border: int = 0
    volumes: Volumes = Volumes()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            InputError: A threshold outside 0..1, a negative size or distance, or max_size below min_size.
        """
        for name, value in self._numbers().items():
            if name.endswith("threshold") and not 0 <= value <= 1:
                raise InputError(f"{name}: {value} is no probability; choose a value from 0 to 1")
            if value < 0:
                raise InputError(f"{name}: {value} is negative; choose 0 or more")
        if self.max_size is not None and self.max_size < self.min_size:
            raise InputError(f"max_size: {self.max_size} is below min_size {self.min_size}; choose a larger one")

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Decode one frame.

        Args:
            probabilities: (C, H, W) float32 in 0..1 that sum to 1 over the C = 2 or 3 classes.

        Returns:
            (H, W) int32 instance labels 1..K, 0 background.

        Raises:
            InputError: Another number of classes, or a border that covers the frame.
        """
        if probabilities.ndim != 3 or len(probabilities) not in (2, 3):
            shape = "x".join(map(str, probabilities.shape))
            raise InputError(
                f"decoder: class probabilities of shape {shape} cannot be decoded; "
                "use a network with 2 classes (background, foreground) or 3 (with contour)"
            )
        background, foreground = probabilities[:2]
        contour = probabilities[2] if len(probabilities) == 3 else np.zeros_like(background)
        labels = fill_labels(self.label(background, foreground, contour))
        return select_labels(labels, self.min_size, self.max_size, self.border)

    def volume(self, planes: Iterable[np.ndarray], voxel: Voxel = CUBE) -> np.ndarray:
        """Decode one volume, plane by plane, and with no more planes in memory than `Volumes.smoothing` needs.

        Sizes are those of a section through the middle of a ball: smaller sections are kept in single planes.

        Args:
            planes: probabilities of each plane from first to last, as of a frame.
            voxel: sides of a voxel.

        Returns:
            (Z, H, W) int32 instance labels 1..K, 0 background.

        Raises:
            InputError: As for frames.
        """
        of_plane = replace(self, min_size=1, max_size=None, border=0)
        volumes, stitcher = self.volumes, Stitcher(self.volumes.overlap)
        labels, interiors = [], []
        for said in smoothed(planes, volumes.smoothing):
            cells = of_plane(said)
            if volumes.cells == "stitch":
                labels.append(stitcher.push(cells))
                continue
            labels.append(cells)
            interiors.append((cells > 0) & (said[1] > said[2] if len(said) > 2 else True))
        found = np.stack(labels)
        if volumes.cells == "watershed":
            found = cut_by_distance(found, volumes.depth, volumes.blur, voxel, np.stack(interiors))
        elif volumes.cells == "components":
            found = grow_interiors(np.stack(interiors), found > 0, voxel)
        most = None if self.max_size is None else math.ceil(ball(self.max_size, voxel))
        return select_labels(found, math.floor(ball(self.min_size, voxel)), most, self.border)

    def resized(self, factor: float) -> Self:
        """The same for cells that are larger by a factor: their areas and distances change, the margin does not."""
        sizes = self._numbers()
        areas = {name: round(value * factor**2) for name, value in sizes.items() if name.endswith("_size")}
        distances = {name: value * factor for name, value in sizes.items() if name.endswith("_distance")}
        return replace(replace(self, **areas, **distances), volumes=self.volumes.resized(factor))

    def _numbers(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if isinstance(value, int | float)}

    @abstractmethod
    def label(self, background: np.ndarray, foreground: np.ndarray, contour: np.ndarray) -> np.ndarray:
        """Label the cells of one frame, before holes are filled and sizes checked.

        Args:
            background: (H, W) float32 probability of the background.
            foreground: (H, W) float32 probability of cell interiors.
            contour: (H, W) float32 probability of cell contours.

        Returns:
            (H, W) int32, 0 background, cells positive.
        """


def label_interiors(interior: np.ndarray, contour: np.ndarray, edge_distance: float) -> np.ndarray:
    """Label filled interiors as 8-connected components and give them the contour pixels that are near.

    Args:
        interior: (H, W) bool.
        contour: (H, W) bool.
        edge_distance: contour pixels closer than this to an interior join the nearest, in pixels.

    Returns:
        (H, W) int32, 0 background.
    """
    return grow_labels(connected_components(fill_mask(interior)), contour, edge_distance)


@dataclass(frozen=True, kw_only=True)
class ArgmaxDecoder(Decoder):
    """Components of the pixels whose most probable class is foreground, and the contour pixels near them.

    From a distance of 2 on it undoes a one-pixel inner contour exactly: cells that are unions of 3x3 squares with a
    connected interior come back as they were. From Arbelle and Riklin Raviv, Microscopy Cell Segmentation via
    Convolutional LSTM Networks, 2019, and its public code, where the distance is 20 or 2 pixels, and sizes are compared
    before the contour is added. Trained networks draw contours wider than a pixel, hence the default.

    Attributes:
        edge_distance: contour pixels closer than this to a cell join it, in pixels.
    """

    edge_distance: float = 3.0

    def label(self, background: np.ndarray, foreground: np.ndarray, contour: np.ndarray) -> np.ndarray:
        """Label the cells of one frame; see `Decoder.label`."""
        edge = contour > np.maximum(background, foreground)
        interior = (foreground > background) & ~edge
        return label_interiors(interior, edge, self.edge_distance)


@dataclass(frozen=True, kw_only=True)
class ThresholdDecoder(Decoder):
    """Like `ArgmaxDecoder`, but what is not background is contour from a lower probability on.

    It parts touching cells whose contour the network sees without being sure of it.

    Attributes:
        edge_threshold: contour probability from which a pixel is contour.
        background_threshold: background probability from which a pixel is background.
        edge_distance: contour pixels closer than this to a cell join it, in pixels.
    """

    edge_threshold: float = 0.3
    background_threshold: float = 0.5
    edge_distance: float = 5.0

    def label(self, background: np.ndarray, foreground: np.ndarray, contour: np.ndarray) -> np.ndarray:
        """Label the cells of one frame; see `Decoder.label`."""
        cell = background < self.background_threshold
        edge = cell & (contour >= self.edge_threshold)
        return label_interiors(cell & ~edge, edge, self.edge_distance)


@dataclass(frozen=True, kw_only=True)
class SeedDecoder(Decoder):
    """Seeds where the network is sure of an interior, grown by a watershed over all that is not background.

    Each seed becomes one cell; a component of the foreground without any seed is a cell too. Faint cells that the
    network takes rather for background can be found by a second, higher threshold: what it adds is a cell if it stands
    apart from the others and is large. What adjoins a cell is rather something of that cell: its body, stray light.

    Attributes:
        seed_threshold: share of the interior in the cell's probability, p1 / (p1 + p2), above which a pixel
            is seed.
        seed_size: smallest seed, in pixels, after an opening by a 3x3 cross.
        background_threshold: background probability from which a pixel is background.
        faint_threshold: the same for faint cells; none are looked for unless it is higher.
        faint_size: smallest faint cell, in pixels.
        faint_distance: distance in pixels from the other cells, within which there is no faint one.
    """

    seed_threshold: float = 0.8
    seed_size: int = 5
    background_threshold: float = 0.5
    faint_threshold: float = 0.0
    faint_size: int = 50
    faint_distance: float = 3.0

    def label(self, background: np.ndarray, foreground: np.ndarray, contour: np.ndarray) -> np.ndarray:
        """Label the cells of one frame; see `Decoder.label`."""
        labels = self._cells(background < self.background_threshold, foreground, contour)
        if self.faint_threshold <= self.background_threshold:
            return labels
        labels = select_labels(labels, self.min_size)
        faint = select_labels(self._cells(background < self.faint_threshold, foreground, contour), self.faint_size)
        return self._with_faint(labels, faint)

    def _with_faint(self, labels: np.ndarray, faint: np.ndarray) -> np.ndarray:
        """Add the faint cells that stand apart; pieces of one that were found before become part of it."""
        rows, columns = int(labels.max()) + 1, int(faint.max()) + 1
        both = (labels > 0) & (faint > 0)
        pairs, shared = np.unique(labels[both].astype(np.int64) * columns + faint[both], return_counts=True)
        pairs = pairs[2 * shared > np.bincount(labels.ravel())[pairs // columns]]
        home = np.zeros(rows, np.int64)  # the faint cell in which more than half of a cell lies
        home[pairs // columns] = pairs % columns
        new = 2 * np.bincount(faint[both], minlength=columns) < np.bincount(faint.ravel())
        new[0] = False
        others = np.where(new[home][labels], 0, labels)
        apart = cv2.distanceTransform((others == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        new[np.unique(faint[apart <= self.faint_distance])] = False
        labels = np.where(new[home][labels], 0, labels)
        return np.where(new[faint], faint + rows, labels).astype(np.int32)

    def _cells(self, cell: np.ndarray, foreground: np.ndarray, contour: np.ndarray) -> np.ndarray:
        """Label (H, W) bool pixels of cells."""
        sure = cell & (foreground > self.seed_threshold * (foreground + contour))
        cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
        sure = cv2.morphologyEx(sure.astype(np.uint8), cv2.MORPH_OPEN, cross) > 0
        seeds = select_labels(connected_components(sure), self.seed_size)

        regions = connected_components(cell)
        region_of_seed = np.zeros(seeds.max() + 1, np.int32)
        region_of_seed[seeds] = regions
        seed_count = np.bincount(region_of_seed[1:], minlength=regions.max() + 1)
        # Only a region with several seeds needs the watershed: any other is one cell.
        single = np.arange(len(seed_count), dtype=np.int32) + len(region_of_seed)
        single[seed_count > 1] = single[0] = 0
        labels = single[regions]
        shared = (seed_count > 1)[regions]
        if shared.any():
            labels += watershed(-foreground, seeds, mask=shared, connectivity=2).astype(np.int32)
        return labels


@dataclass(frozen=True, kw_only=True)
class ForegroundDecoder(Decoder):
    """Filled 4-connected components of the foreground, whatever the contour.

    From the evaluation of Arbelle and Riklin Raviv, Microscopy Cell Segmentation via Adversarial Neural Networks,
    2018, in its public code; the contour stays background there, in the truth too.

    Attributes:
        threshold: foreground probability above which a pixel is cell.
        min_size: smallest cell kept, in pixels.
    """

    threshold: float = 0.25
    min_size: int = 50

    def label(self, background: np.ndarray, foreground: np.ndarray, contour: np.ndarray) -> np.ndarray:
        """Label the cells of one frame; see `Decoder.label`."""
        return connected_components(fill_mask(foreground > self.threshold), connectivity=4)
