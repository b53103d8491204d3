"""Operations on whole label images: components, holes, growth, selection. None loops over labels."""

from __future__ import annotations

import math

import cv2
import numpy as np

from lightning_cells.errors import InputError


def connected_components(mask: np.ndarray, connectivity: int = 8) -> np.ndarray:
    """Label the connected components of a mask.

    Args:
        mask: (H, W) bool.
        connectivity: 4 or 8 neighbours.

    Returns:
        (H, W) int32, 0 outside the mask, 1..K inside.
    """
    return cv2.connectedComponents(mask.astype(np.uint8), connectivity=connectivity)[1]


def enclosed_components(background: np.ndarray) -> np.ndarray:
    """Label the 4-connected components of a background that do not reach the image border.

    Args:
        background: (H, W) bool.

    Returns:
        (H, W) int32, 0 where there is no enclosed background, positive and not always consecutive in it.
    """
    holes = connected_components(background, connectivity=4)
    enclosed = np.arange(holes.max() + 1, dtype=np.int32)
    for side in (holes[0], holes[-1], holes[:, 0], holes[:, -1]):
        enclosed[side] = 0
    return enclosed[holes] if enclosed.any() else np.zeros_like(holes)


def fill_mask(mask: np.ndarray) -> np.ndarray:
    """Fill the holes of a (H, W) bool mask: background that no 4-connected path joins to the image border."""
    return mask | (enclosed_components(~mask) > 0)


def fill_labels(labels: np.ndarray) -> np.ndarray:
    """Fill the holes of every label.

    A hole is an enclosed component of the background with one label alone around it: the gap between several
    cells stays background, and a cell within a cell stays itself.

    Args:
        labels: (H, W) int32, 0 background, cells positive.

    Returns:
        (H, W) int32.
    """
    holes = enclosed_components(labels == 0).ravel()
    pixels = np.flatnonzero(holes)
    if pixels.size == 0:
        return labels
    filled = labels.ravel()  # read only; copied before it is written
    holes, width = holes[pixels], labels.shape[1]
    lowest = np.full(holes.max() + 1, np.iinfo(np.int32).max, np.int32)
    highest = np.zeros_like(lowest)
    for step in (-width, -1, 1, width):  # an enclosed pixel is never at the border
        around = filled[pixels + step]
        cell = around > 0
        np.minimum.at(lowest, holes[cell], around[cell])
        np.maximum.at(highest, holes[cell], around[cell])
    owner = np.where(lowest == highest, lowest, 0)
    filled = filled.copy()
    filled[pixels] = owner[holes]
    return filled.reshape(labels.shape)


def grow_labels(labels: np.ndarray, into: np.ndarray, distance: float) -> np.ndarray:
    """Give pixels of a mask the label of the nearest labelled pixel.

    Exact in Euclidean distance. It visits the offsets in order of their length and only the pixels that are not
    given away yet: for the short distances in use many times faster than a distance transform of the frame.

    Args:
        labels: (H, W) int32, 0 background.
        into: (H, W) bool, pixels that may be given away; labelled pixels keep their label.
        distance: pixels this far or farther from every label stay background, in pixels.

    Returns:
        (H, W) int32.
    """
    reach = max(math.ceil(distance) - 1, 0)
    span = range(-reach, reach + 1)
    offsets = sorted((dy * dy + dx * dx, dy, dx) for dy in span for dx in span if 0 < dy * dy + dx * dx < distance**2)
    source = np.pad(labels, reach)
    grown, width = source.ravel().copy(), source.shape[1]
    pixels = np.flatnonzero(np.pad(into, reach) & (source == 0))
    source = source.ravel()
    for _, dy, dx in offsets:
        if pixels.size == 0:
            break
        nearest = source[pixels + (dy * width + dx)]
        found = nearest > 0
        grown[pixels[found]] = nearest[found]
        pixels = pixels[~found]
    height = labels.shape[0]
    return grown.reshape(-1, width)[reach : reach + height, reach : width - reach]


def select_labels(labels: np.ndarray, min_size: int = 1, max_size: int | None = None, border: int = 0) -> np.ndarray:
    """Drop labels by their size and place, and renumber the rest 1..K in their order.

    Args:
        labels: (H, W) or (Z, H, W) int32, 0 background.
        min_size: smallest label kept, in pixels or voxels.
        max_size: largest label kept; None keeps all.
        border: width of the margin of a frame or of each plane, in pixels: a label that lies wholly in it is dropped.

    Returns:
        int32 of the same shape.

    Raises:
        InputError: The margin covers the whole frame.
    """
    sizes = np.bincount(labels.ravel())
    keep = sizes >= max(min_size, 1)
    if max_size is not None:
        keep &= sizes <= max_size
    if border > 0:
        height, width = labels.shape[-2:]
        if 2 * border >= min(height, width):
            raise InputError(f"border: {border} px leave nothing of a {height}x{width} frame; choose a smaller one")
        inside = labels[..., border : height - border, border : width - border]
        keep &= np.bincount(inside.ravel(), minlength=len(sizes)) > 0
    keep[0] = False
    return np.where(keep, np.cumsum(keep), 0).astype(np.int32)[labels]
