"""Crops of clips: where they come from, and how they are read; those that nothing deforms are read as they are."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from lightning_cells.data import deformation


class Place(NamedTuple):
    """Where a crop comes from, and how it is deformed.

    Attributes:
        shape: height and width of the crop.
        origin: row and column of the frame at the crop's first pixel, were it not deformed.
        matrix: (2, 2) from offsets in the crop to offsets in the frame.
        fields: (2, h, w) displacements, one for all frames or one for each; None for none.
    """

    shape: tuple[int, int]
    origin: tuple[int, int]
    matrix: np.ndarray
    fields: list[np.ndarray | None]


class Window(NamedTuple):
    """A part of a frame that is a crop, but for flips and a turn.

    Attributes:
        rows: of the frame.
        columns: of the frame.
        down: step along the rows, 1 or -1.
        across: step along the columns, 1 or -1.
        turned: whether what is left is transposed.
    """

    rows: slice
    columns: slice
    down: int
    across: int
    turned: bool


def read_clip(
    place: Place,
    indices: Sequence[int],
    frames: np.ndarray,
    labels: np.ndarray | None,
    classes: np.ndarray | None,
    unknown_border: int = 0,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Reads a clip at its place.

    Args:
        place: of the crop.
        indices: the frames to take, in this order.
        frames: (T, H, W) float16 or float32; may be memory-mapped, as the others.
        labels: (T, H, W) int32, or None.
        classes: (T, H, W) int8, or None.
        unknown_border: width of the frame's margin, in pixels, whose background becomes unknown.

    Returns:
        (t, h, w) float32 frames, int32 labels and int8 classes; beyond the image, frames are mirrored, the others -1.
    """
    size = (int(frames.shape[1]), int(frames.shape[2]))
    window = None if unknown_border else window_of(place, size)
    if window is not None:
        labels, classes = (None if truth is None else cut(truth, indices, window) for truth in (labels, classes))
        return cut_frames(frames, indices, window), labels, classes
    grids = [deformation.sampling_map(place.shape, place.origin, place.matrix, field) for field in place.fields]
    maps = [deformation.sampling(grid, size) for grid in grids]
    clip = deformation.resample_frames(frames, indices, maps)
    labels, classes = (
        None if truth is None else deformation.resample_labels(truth, indices, maps) for truth in (labels, classes)
    )
    if labels is not None and unknown_border:
        margin = np.stack([_in_margin(grid, size, unknown_border) for grid in grids])
        labels[(labels == 0) & margin] = deformation.UNKNOWN
    return clip, labels, classes


def window_of(place: Place, size: tuple[int, int]) -> Window | None:
    """Returns the part of a frame whose pixels a crop takes as they are.

    Args:
        place: of the crop.
        size: height and width of the frame.

    Returns:
        None if there is none: the crop is deformed, or leaves the frame.
    """
    (top, left), (height, width) = place.origin, place.shape
    inside = top >= 0 and left >= 0 and top + height <= size[0] and left + width <= size[1]
    (a, b), (c, d) = place.matrix.tolist()
    straight = {abs(a), abs(d)} == {1} and b == c == 0
    turned = {abs(b), abs(c)} == {1} and a == d == 0 and height == width
    if not inside or not (straight or turned) or any(field is not None for field in place.fields):
        return None
    rows, columns = slice(top, top + height), slice(left, left + width)
    return Window(rows, columns, int(b if turned else a), int(c if turned else d), turned)


def cut(video: np.ndarray, indices: Sequence[int], window: Window) -> np.ndarray:
    """Reads a window of frames: (T, H, W) -> contiguous (t, h, w) of the same dtype."""
    height, width = window.rows.stop - window.rows.start, window.columns.stop - window.columns.start
    out = np.empty((len(indices), height, width), video.dtype)  # a turned window is square
    for target, index in zip(out, indices, strict=True):
        part = video[index, window.rows, window.columns][:: window.down, :: window.across]
        target[:] = part.T if window.turned else part
    return out


def cut_frames(video: np.ndarray, indices: Sequence[int], window: Window) -> np.ndarray:
    """Reads a window of frames, float16 or float32, as float32 (t, h, w)."""
    clip = cut(video, indices, window)
    return torch.from_numpy(clip).float().numpy() if clip.dtype == np.float16 else clip


def _in_margin(grid: np.ndarray, size: tuple[int, int], width: int) -> np.ndarray:
    """Which pixels of a crop come from within so many pixels of the frame's sides, bool (h, w)."""
    inside = [(width <= at) & (at <= length - 1 - width) for at, length in zip(np.rint(grid), size, strict=True)]
    return ~(inside[0] & inside[1])
