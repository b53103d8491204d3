"""From label arrays to what a network is trained on; plain numpy, run in the data loader's workers.

Label arrays follow one convention: ``> 0`` id of a segmented cell, ``0`` background, ``-1`` unknown,
``<= -2`` a marker of the cell ``-1 - value`` whose extent is unknown.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import cv2
import numpy as np
from scipy import ndimage

from lightning_cells.errors import InputError

Contour = Literal["inner", "outer"]

BACKGROUND, NUCLEUS, CYTOPLASM = 0, 1, 2
"""The semantic classes of data sets that have them."""

REACH = 4.0  # in sigmas: beyond it a cell adds less than w0 * exp(-8) to a weight

_SQUARE = np.ones((3, 3), np.uint8)
"""A pixel with its eight neighbours; nothing lies beyond the array's edge."""
_INEXACT = 2**24  # from where on float32 leaves out whole numbers


def cell_ids(labels: np.ndarray) -> np.ndarray:
    """Ids of the cells that pixels belong to, markers included.

    Args:
        labels: integer array of any shape in the label convention.

    Returns:
        int32, >= 0; zero where background or unknown.
    """
    labels = np.asarray(labels, dtype=np.int32)
    return np.maximum(np.maximum(labels, -1 - labels), 0) * (labels != -1)


def three_class(labels: np.ndarray, contour: Contour = "inner") -> np.ndarray:
    """Background, interior and contour (Arbelle and Raviv 2018; both conventions are from their code).

    The edge of the array is no contour: a cell cut by it is interior up to the edge unless another label
    adjoins there. A segmented cell is drawn whole, so it has an inner contour where what lies around it is
    unknown, too; whether an unknown pixel's neighbour belongs to an outer contour cannot be told, and it is
    ignored. Markers are ignored, yet a cell that touches the marker of another has its contour there.

    Args:
        labels: integer array (...,H,W) in the label convention.
        contour: ``"inner"``: the outermost pixel of each cell, that is the cell less its erosion by 3x3;
            ``"outer"``: the pixels to which a 3x3 dilation brings a higher label, that is a ring of
            background around each cell and the lower label's side where two touch.

    Returns:
        int8 (...,H,W): 0 background, 1 interior, 2 contour, -1 ignored.

    Raises:
        InputError: `contour` is neither.
    """
    if contour not in ("inner", "outer"):
        raise InputError(f"contour {contour!r} of the three-class target: use inner or outer")
    return _each_frame(partial(_three_class, contour=contour), labels)


def two_class(labels: np.ndarray) -> np.ndarray:
    """Background and foreground, with one pixel of background between cells that touch.

    What the U-Net is trained on (Ronneberger et al. 2015, sec. 3). The gap is taken from the cell of the
    lower id; no two cells adjoin afterwards, diagonally neither.

    Args:
        labels: integer array (...,H,W) in the label convention.

    Returns:
        int8 (...,H,W): 0 background, 1 foreground, -1 unknown or marker.
    """
    return _each_frame(_two_class, labels)


def border_weights(labels: np.ndarray, w0: float = 10.0, sigma: float = 5.0) -> np.ndarray:
    """Pixel weights of the U-Net (Ronneberger et al. 2015, eq. 2) that go with `two_class`.

    ``w = w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2))``: `d1` and `d2` are the distances to the nearest and the
    second nearest cell (to their nearest pixel, after the gaps are cut), `w_c` balances the classes. The
    second term is added on background alone and is zero with fewer than two cells in a frame. A cell further
    than four sigmas is not seen, which changes a weight by less than ``w0 * exp(-8)``. Markers count as
    unknown.

    Args:
        labels: integer array (...,H,W) in the label convention.
        w0: weight of the border term, >= 0.
        sigma: its width in pixels, > 0.

    Returns:
        float32 (...,H,W), zero where unknown. `w_c` is inverse to the frequency of the class among the known
        pixels of the whole array, with a mean of 1 over them.

    Raises:
        InputError: `w0` is negative or `sigma` is not positive.
    """
    labels = _contiguous(labels)
    return _border_weights(labels, two_class(labels), w0, sigma)


@dataclass(frozen=True)
class ThreeClassTarget:
    """Makes the targets of the three-class loss.

    Args:
        contour: see `three_class`.
    """

    contour: Contour = "inner"

    def __call__(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Turn labels (T,H,W) into ``classes``, int8 (T,H,W), see `three_class`."""
        return {"classes": three_class(labels, self.contour)}


@dataclass(frozen=True)
class ForegroundTarget:
    """Makes the targets of a two-class loss that weights no borders."""

    def __call__(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Turn labels (T,H,W) into ``classes``, int8 (T,H,W), see `two_class`."""
        return {"classes": two_class(labels)}


@dataclass(frozen=True)
class TwoClassTarget:
    """Makes the targets of the weighted two-class loss.

    Args:
        w0: weight of the border term, see `border_weights`.
        sigma: its width in pixels.
    """

    w0: float = 10.0
    sigma: float = 5.0

    def __call__(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Turn labels (T,H,W) into ``classes``, int8, and ``weights``, float32, both (T,H,W)."""
        labels = _contiguous(labels)
        classes = two_class(labels)
        return {"classes": classes, "weights": _border_weights(labels, classes, self.w0, self.sigma)}


def _contiguous(labels: np.ndarray) -> np.ndarray:
    """Int32 in C order: flips and rotations arrive as views, and what is made here goes to torch as it is."""
    return np.ascontiguousarray(labels, dtype=np.int32)


def _each_frame(classify: Callable[[np.ndarray], np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Classify (...,H,W) one frame at a time: what a whole clip needs in between leaves the cache."""
    labels = _contiguous(labels)
    classes = np.empty(labels.shape, np.int8)
    size = (-1, *labels.shape[-2:])
    for frame, out in zip(labels.reshape(size), classes.reshape(size), strict=True):
        out[:] = classify(frame)
    return classes


def _three_class(labels: np.ndarray, contour: Contour) -> np.ndarray:
    ids = _exact(cell_ids(labels))
    unknown = labels == -1
    cell = labels > 0
    edge = cv2.dilate(ids, _SQUARE) > ids  # unknown neighbours count as 0 here: never a higher label
    classes = cell.view(np.int8).copy()
    if contour == "inner":
        edge |= cv2.erode(ids, _SQUARE) < ids
        edge &= cell
    elif unknown.any():
        classes[cv2.dilate(unknown.view(np.uint8), _SQUARE) > 0] = -1
    classes[edge] = 2
    classes[labels < 0] = -1
    return classes


def _two_class(labels: np.ndarray) -> np.ndarray:
    ids = _exact(cell_ids(labels))
    classes = ((labels > 0) & (cv2.dilate(ids, _SQUARE) == ids)).astype(np.int8)
    classes[labels < 0] = -1
    return classes


def _exact(ids: np.ndarray) -> np.ndarray:
    """Ids as float32, which OpenCV takes: the same ones if they are small enough, else others in the same order."""
    if ids.max(initial=0) >= _INEXACT:
        ids = np.unique(ids, return_inverse=True)[1].reshape(ids.shape)
    return ids.astype(np.float32)


def _border_weights(labels: np.ndarray, classes: np.ndarray, w0: float, sigma: float) -> np.ndarray:
    if w0 < 0 or sigma <= 0:
        raise InputError(f"border weights with w0 {w0} and sigma {sigma}: use w0 >= 0 and sigma > 0")
    counts = np.array([np.count_nonzero(classes == k) for k in (0, 1)])
    balance = np.zeros(3, np.float32)  # the last is for class -1
    balance[:2] = counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1)) if counts.any() else 0
    weights = balance[classes]
    if w0 == 0:
        return weights
    size = (-1, *labels.shape[-2:])
    # All in C order, so these are views and the weights are filled in place.
    frames = zip(labels.reshape(size), classes.reshape(size), weights.reshape(size), strict=True)
    for frame, frame_classes, frame_weights in frames:
        distance = _two_nearest(np.where(frame_classes == 1, frame, 0), reach=int(np.ceil(REACH * sigma)))
        if distance is not None:
            border = w0 * np.exp(-np.square(distance) / np.float32(2 * sigma**2))
            np.add(frame_weights, border, out=frame_weights, where=frame_classes == 0)
    return weights


def _two_nearest(cells: np.ndarray, reach: int) -> np.ndarray | None:
    """Summed distances to the two nearest cells, infinite out of `reach`; None with fewer than two cells."""
    present = np.zeros(int(cells.max(initial=0)) + 1, np.int32)
    present[cells.ravel()] = 1
    present[0] = 0
    if present.sum() < 2:
        return None
    numbered = np.cumsum(present, dtype=np.int32)[cells] * (cells > 0)
    nearest = np.full(cells.shape, np.inf, np.float32)  # squared
    second = nearest.copy()
    for number, (rows, columns) in enumerate(ndimage.find_objects(numbered), start=1):
        window = (
            slice(max(rows.start - reach, 0), rows.stop + reach),
            slice(max(columns.start - reach, 0), columns.stop + reach),
        )
        outside = (numbered[window] != number).view(np.uint8)
        squared = np.square(cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
        # Squares are whole numbers; what OpenCV gives depends in its last digits on where the arrays lie in memory.
        np.rint(squared, out=squared)
        np.minimum(second[window], np.maximum(nearest[window], squared), out=second[window])
        np.minimum(nearest[window], squared, out=nearest[window])
    return np.sqrt(nearest) + np.sqrt(second)
