"""Volumes in flat pictures: from above, or unfolded, with what is seen from the front and from the right beside it."""

import numpy as np

from lightning_cells.data.intensity import resize_labels

_ABOVE, _FRONT, _RIGHT = range(3)  # the axis along which one looks
_GAP = 48  # of the width: empty pixels between the views


def from_above(frame: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is seen of a volume from above; images are returned as they are.

    Args:
        frame: (h, w) or (Z, h, w) of real intensities.
        labels: (H, W) or (Z, H, W) integers, 0 background.

    Returns:
        The largest intensities, (h, w); and the labels, (H, W), of which the brightest voxel counts.
    """
    if labels.ndim == 2:
        return frame, labels
    return frame.max(_ABOVE), _cells(labels, frame, _ABOVE)


def unfolded(
    frame: np.ndarray, labels: np.ndarray, truth: np.ndarray | None, step: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """What is seen of a volume from above, below it from the front, and beside it from the right, as one image.

    Images are returned as they are.

    Args:
        frame: (h, w) or (Z, h, w) of real intensities.
        labels: (H, W) or (Z, H, W) integers, 0 background.
        truth: integers of the same shape in the label convention, or None.
        step: distance of planes in pixels of the labels.

    Returns:
        The largest intensities, labels and truth, all (H', W'), the last None without any. Truth is unknown where it is
        all along; a cell hides what is unknown before or behind it.
    """
    if labels.ndim == 2:
        return frame, labels, truth
    frame = resize_labels(frame, (labels.shape[1], labels.shape[2]))
    views = range(3)
    dark = frame.min()
    return (
        _put_together([frame.max(axis) for axis in views], step, dark),
        _put_together([_cells(labels, frame, axis) for axis in views], step, 0),
        None if truth is None else _put_together([_known(truth, frame, axis) for axis in views], step, 0),
    )


def in_place(picture: np.ndarray, labels: np.ndarray, step: float) -> np.ndarray:
    """Puts a picture of one plane where `unfolded` shows a volume from above; pictures of images are as they are.

    Args:
        picture: uint8 (h, w, 3), at any scale.
        labels: (H, W) or (Z, H, W), of the frame.
        step: distance of planes in pixels of the labels.
    """
    if labels.ndim == 2:
        return picture
    below, beside = (
        round(_around(labels.shape, step) * n / m) for n, m in zip(picture.shape, labels.shape[1:], strict=False)
    )
    return np.pad(picture, ((0, below), (0, beside), (0, 0)))


def _cells(labels: np.ndarray, frame: np.ndarray, axis: int) -> np.ndarray:
    """The label that is seen along an axis: that of the brightest voxel of any cell; without brightness, the first."""
    inside = labels > 0
    seen = (np.where(inside, frame, -np.inf) if frame.shape == labels.shape else inside).argmax(axis)
    return np.take_along_axis(labels, np.expand_dims(seen, axis), axis).squeeze(axis)


def _known(truth: np.ndarray, frame: np.ndarray, axis: int) -> np.ndarray:
    """The same of truth; where no cell is seen, a marker, or else the background, or else what is unknown."""
    cells, lowest = _cells(truth, frame, axis), truth.min(axis)
    return np.where(cells > 0, cells, np.where(lowest < -1, lowest, truth.max(axis)))


def _put_together(views: list[np.ndarray], step: float, empty: float) -> np.ndarray:
    above, front, right = views
    depth = _height(len(front), step)
    rows = (np.arange(depth) * 2 + 1) * len(front) // (2 * depth)
    (height, width), more = above.shape, _around((len(front), *above.shape), step)
    image = np.full((height + more, width + more), empty, above.dtype)
    image[:height, :width] = above
    image[-depth:, :width] = front[rows]
    image[:height, -depth:] = right[rows].T
    return image


def _height(planes: int, step: float) -> int:
    """Pixels of the planes of a volume seen from a side."""
    return max(1, round(planes * step))


def _around(shape: tuple[int, ...], step: float) -> int:
    """Pixels that the views from the sides take below and beside that from above, with the gap."""
    return max(1, round(max(shape[1:]) / _GAP)) + _height(shape[0], step)
