"""How large segmented cells are: of images, of videos, and of a data set before any of its videos is opened."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np

from lightning_cells.data.ctc import Truth, find_sequence, sequence_names
from lightning_cells.data.image_files import STILLS, read_mask
from lightning_cells.data.sequence import Sequence

Indexed = TypeVar("Indexed", np.ndarray, list)

_MOST = 20  # masks of a video that are read


def diameter_on_disk(root: Path, layout: str, truth: Truth = "gold") -> float | None:
    """The median diameter of segmented cells, as of discs of their areas, in pixels of the masks.

    Args:
        root: folder of the data set.
        layout: ``ctc`` or ``images``, as the data module takes it.
        truth: which one, as `find_sequence` takes it.

    Returns:
        None without any segmented cell.

    Raises:
        InputError: for a mask that cannot be read.
    """
    if layout == "images":
        folder = root / "labels"
        videos = [sorted(path for path in folder.glob("*") if path.suffix.lower() in STILLS)]
    else:
        videos = [list(find_sequence(root, name, truth).seg.values()) for name in sequence_names(root)]
    masks = (read_mask(path) for paths in videos for path in spread(paths, _MOST))
    return median_diameter(plane for mask in masks for plane in mask.reshape(-1, *mask.shape[-2:]))


def typical_diameter(videos: Iterable[Sequence], most: int = 20) -> float | None:
    """The median diameter of segmented cells, as of discs of their areas, in pixels at the videos' scale.

    Args:
        videos: any, with truth or without; of volumes the sections of cells in their planes count.
        most: frames of each, or of each plane, that are measured, at most.

    Returns:
        None without any segmented cell.
    """
    parts = (plane for one in videos for plane in one.planes() if plane.labels is not None)
    return median_diameter(
        part.labels[index]  # type: ignore[index]
        for part in parts
        for index in spread(np.flatnonzero(part.annotated), most)
    )


def median_diameter(labels: Iterable[np.ndarray]) -> float | None:
    """The median diameter of the cells of some images, (H, W) integers each; None without any."""
    counts = np.concatenate([np.empty(0, np.int64), *map(cell_areas, labels)])
    return diameter_of(float(np.median(counts))) if len(counts) else None


def spread(items: Indexed, most: int) -> Indexed:
    """At most so many of some things, evenly spread."""
    return items[:: max(1, -(-len(items) // most))]


def cell_areas(labels: np.ndarray) -> np.ndarray:
    """The pixels of each cell of a frame, (K,), of integers; what is not positive is no cell."""
    counts = np.bincount(labels[labels > 0])
    return counts[counts > 0]


def diameter_of(area: float) -> float:
    """The diameter of a disc of that area."""
    return 2 * math.sqrt(area / math.pi)
