"""Smooth deformations of clips: one sampling map says where each pixel of a crop comes from.

A map is ``(2, h, w)`` float32: for every pixel of the crop the row and the column to read, in pixels. Crop,
flips, rotation, scale and elastic displacement are all one map, so every frame is interpolated once.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, TypeVar

import cv2
import numpy as np
import torch

Distribution = Literal["uniform", "normal"]
T = TypeVar("T")

UNKNOWN = -1  # the label of a pixel that nobody has annotated
SPLINE_ORDER = 3


class Sampling(NamedTuple):
    """The part of a frame that a crop needs, and two maps into that part.

    Attributes:
        rows: rows of the frame to read.
        columns: columns of the frame to read.
        frames: rows and columns in the window, (h, w) float32 each, mirrored at the borders of the frame.
        labels: the same without mirroring: out of the window where the crop leaves the frame.
    """

    rows: slice
    columns: slice
    frames: tuple[np.ndarray, np.ndarray]
    labels: tuple[np.ndarray, np.ndarray]


@lru_cache(maxsize=32)
def spline_basis(length: int, control: int) -> np.ndarray:
    """Returns the uniform cubic B-spline basis, sampled at pixel centres.

    The first and last pixel lie on the ends of ``control - 3`` segments, so one control point lies outside at
    either end, as in ITK's B-spline transform.

    Args:
        length: number of pixels.
        control: number of control points, at least 4.

    Returns:
        (length, control) float32, read-only; rows are not negative and sum to one.

    Raises:
        ValueError: for fewer than 4 control points.
    """
    if control <= SPLINE_ORDER:
        raise ValueError(f"a cubic B-spline has at least 4 control points, not {control}")
    segments = control - SPLINE_ORDER
    position = np.arange(length) * (segments / max(length - 1, 1))
    segment = np.minimum(position.astype(int), segments - 1)
    u = position - segment
    weights = np.stack([(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, 3 * (u - u**2) * u + 3 * u + 1, u**3], axis=1) / 6
    basis = np.zeros((length, control), np.float32)
    np.put_along_axis(basis, segment[:, None] + np.arange(SPLINE_ORDER + 1), weights, axis=1)
    basis.flags.writeable = False
    return basis


def spline_field(
    shape: tuple[int, int],
    control: int,
    rng: np.random.Generator,
    amplitude: float,
    distribution: Distribution = "uniform",
) -> np.ndarray:
    """Draws a displacement field: a cubic B-spline with random control points.

    Computed separably, as ``B_y g B_x^T`` (Payer 2019, section 3.1: 6 x 6 points, uniform in +-10 px).

    Args:
        shape: height and width in pixels.
        control: control points per axis, at least 4.
        rng: where the draws come from.
        amplitude: half-width ("uniform") or standard deviation ("normal") of the control points, in pixels.
        distribution: of the control points.

    Returns:
        (2, h, w) float32 displacement of rows and columns, in pixels.
    """
    size = (2, control, control)
    points = rng.uniform(-amplitude, amplitude, size) if distribution == "uniform" else rng.normal(0, amplitude, size)
    return spline_basis(shape[0], control) @ points.astype(np.float32) @ spline_basis(shape[1], control).T


def spline_fields(
    frames: int,
    shape: tuple[int, int],
    times: int,
    control: int,
    rng: np.random.Generator,
    amplitude: float,
    distribution: Distribution = "uniform",
) -> np.ndarray:
    """Draws a displacement field for each frame of a clip, a cubic B-spline over time, too.

    The public code of Payer et al. 2019 has 6 x 6 points in space and 4 over a clip.

    Args:
        frames: of the clip.
        shape: height and width in pixels.
        times: control points over the clip, at least 4.
        control: control points per axis, at least 4.
        rng: where the draws come from.
        amplitude: half-width ("uniform") or standard deviation ("normal") of the control points, in pixels.
        distribution: of the control points.

    Returns:
        (T, 2, h, w) float32 displacement of rows and columns, in pixels.
    """
    size = (times, 2, control, control)
    points = rng.uniform(-amplitude, amplitude, size) if distribution == "uniform" else rng.normal(0, amplitude, size)
    at_frames = np.tensordot(spline_basis(frames, times), points.astype(np.float32), axes=1)
    return spline_basis(shape[0], control) @ at_frames @ spline_basis(shape[1], control).T


def linear_part(angle: float, scale: tuple[float, float]) -> np.ndarray:
    """Returns the (2, 2) matrix from offsets in the crop to offsets in the frame, rows before columns.

    Args:
        angle: the content turns clockwise by this many degrees.
        scale: the content grows by these factors along the rows' and the columns' axis of the crop.
    """
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    return np.array([[cos, -sin], [sin, cos]]) / np.asarray(scale, float)


def sampling_map(
    shape: tuple[int, int],
    origin: tuple[int, int],
    matrix: np.ndarray | None = None,
    field: np.ndarray | None = None,
) -> np.ndarray:
    """Returns where in the frame each pixel of a crop comes from.

    Args:
        shape: height and width of the crop.
        origin: row and column of the frame at the crop's first pixel, were it not deformed.
        matrix: (2, 2) from `linear_part`, applied about the middle of the crop; None for the identity.
        field: (2, h, w) displacements in pixels of the crop, applied before ``matrix``; None for none.

    Returns:
        (2, h, w) float32 rows and columns of the frame; exact integers if nothing deforms.
    """
    matrix = np.eye(2) if matrix is None else matrix
    offsets = [np.arange(length) - (length - 1) / 2 for length in shape]
    grid = np.empty((2, *shape), np.float32)
    for axis in range(2):
        down = matrix[axis, 0] * offsets[0] + (origin[axis] + (shape[axis] - 1) / 2)
        across = matrix[axis, 1] * offsets[1]
        np.add.outer(down.astype(np.float32), across.astype(np.float32), out=grid[axis])
    if field is not None:
        grid += np.tensordot(matrix.astype(np.float32), field, axes=1)
    return grid


def mirror(coordinates: np.ndarray, length: int) -> np.ndarray:
    """Folds coordinates into ``[0, length - 1]``, mirroring at the first and last pixel as often as it takes."""
    last = np.float32(length - 1)
    if last == 0:
        return np.zeros_like(coordinates)
    while coordinates.min() < 0 or coordinates.max() > last:
        coordinates = last - np.abs(last - np.abs(coordinates))
    return coordinates


def sampling(grid: np.ndarray, size: tuple[int, int]) -> Sampling:
    """Finds the smallest window of a frame that holds all that a map reads, and makes the map relative to it.

    Args:
        grid: (2, h, w) map into the frame; may point beyond it.
        size: height and width of the frame.
    """
    windows, inside, beyond = [], [], []
    for coordinates, length in zip(grid, size, strict=True):
        folded = mirror(coordinates, length)
        start, stop = int(folded.min()), min(int(folded.max()) + 2, length)
        windows.append(slice(start, stop))
        inside.append(folded - np.float32(start))
        beyond.append(inside[-1] if folded is coordinates else coordinates - np.float32(start))
    return Sampling(windows[0], windows[1], (inside[0], inside[1]), (beyond[0], beyond[1]))


def resample_frames(video: np.ndarray, indices: Sequence[int], maps: Sequence[Sampling]) -> np.ndarray:
    """Reads frames linearly at a map, one frame's window at a time.

    Args:
        video: (T, H, W) float16 or float32, may be memory-mapped; only the window is read.
        indices: frames to take.
        maps: from `sampling`, one for all frames, or one for each.

    Returns:
        (t, h, w) float32.
    """
    out = np.empty((len(indices), *maps[0].frames[0].shape), np.float32)
    for target, index, where in zip(out, indices, _of_each(maps, len(indices)), strict=True):
        rows, columns = where.frames
        window = np.asarray(video[index, where.rows, where.columns])
        if window.dtype == np.float16:  # by torch, which converts three times as fast as numpy
            window = torch.from_numpy(window.copy()).float().numpy()
        cv2.remap(window, columns, rows, cv2.INTER_LINEAR, dst=target, borderMode=cv2.BORDER_REPLICATE)
    return out


def resample_labels(video: np.ndarray, indices: Sequence[int], maps: Sequence[Sampling]) -> np.ndarray:
    """Reads labels at the nearest pixels of a map; every value survives, none is invented.

    Args:
        video: (T, H, W) int32 or int8, may be memory-mapped; only the window is read.
        indices: frames to take.
        maps: from `sampling`, one for all frames, or one for each.

    Returns:
        (t, h, w) of the same dtype, `UNKNOWN` beyond the image.
    """
    rounded = [  # once, not per frame
        cv2.convertMaps(columns, rows, cv2.CV_16SC2, nninterpolation=True)[0]
        for rows, columns in (where.labels for where in maps)
    ]
    out = np.empty((len(indices), *maps[0].labels[0].shape), video.dtype)
    each = zip(_of_each(maps, len(indices)), _of_each(rounded, len(indices)), strict=True)
    for target, index, (where, nearest) in zip(out, indices, each, strict=True):
        window = video[index, where.rows, where.columns].copy()  # in order: faster than remap's own jumps
        cv2.remap(window, nearest, np.empty(0), cv2.INTER_NEAREST, target, cv2.BORDER_CONSTANT, borderValue=UNKNOWN)
    return out


def _of_each(maps: Sequence[T], count: int) -> Sequence[T]:
    """One map for each of some frames, of one for all or of as many."""
    return maps if len(maps) > 1 else [*maps] * count
