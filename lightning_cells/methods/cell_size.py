"""How large the cells of anyone's frames are, as a trained method sees them."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from lightning_cells.data.cell_sizes import cell_areas, diameter_of
from lightning_cells.data.intensity import scaled_size
from lightning_cells.methods.base import CellMethod
from lightning_cells.methods.building import Preprocessing
from lightning_cells.methods.decoding import resized

ALIKE = 1.2
"""Times that cells may be larger or smaller than the training's and still be left at its scale."""

_STEPS = range(-8, 4)  # powers of the root of two, times the training's scale, at which frames are looked at
_STEP = 2**0.5
_WINDOW = 16.0  # diameters of the training's cells: as much of a frame is looked at
_NEAR = 4.0  # times in area that a cell may differ from the training's and still count as one
_LEAST = 0.5  # score of an estimate, from 0 to 1
_SURE = 0.7  # score at the training's own scale with which no other is looked at


class _Look(NamedTuple):
    """What a method finds at one scale.

    Attributes:
        diameter: of a typical cell in pixels of the frames; 0 where there are none.
        score: how much the cells found look like those of the training, from 0 to 1.
    """

    diameter: float
    score: float


@torch.inference_mode()
def estimate_diameter(
    method: CellMethod, preprocessing: Preprocessing, frames: Sequence[np.ndarray], trained: float
) -> float | None:
    """Looks at frames at several scales for the one at which cells are as large as those of the training.

    At a wrong scale a network finds few cells, pieces of them, or clusters. What counts is the share of the area found
    that lies in cells of about the right size, how near the typical size is to the right one, and that the scales
    beside it tell the same diameter: that of pieces and of clusters changes with the scale, that of cells does not.

    Each frame is looked at by itself, and of a large one only the part with most to see. If cells are as those of the
    training at its scale and the two beside it, no more are looked at.

    Args:
        method: trained.
        preprocessing: as in the training.
        frames: a few of one size, (H, W) uint8 or uint16.
        trained: diameter of the training's cells, in pixels that the network sees.

    Returns:
        The diameter of a typical cell in pixels of the frames; None if there is no scale at which most of what is found
        are cells of one size.
    """
    method = resized(method, preprocessing.scale)  # cells are cut out at the size that the network sees
    look = partial(_look, method, preprocessing, frames, trained)
    looks = {step: look(step) for step in (-1, 0, 1)}
    best = _agreed(looks, 0)
    if best.score < _SURE:
        looks |= {step: look(step) for step in _STEPS if step not in looks}
        best = max((_agreed(looks, step) for step in _STEPS), key=lambda look: look.score)
    return best.diameter if best.score >= _LEAST else None


def most_to_see(frame: np.ndarray) -> np.ndarray:
    """A frame, (H, W); of a volume, (Z, H, W), the plane in which intensities differ most."""
    return frame if frame.ndim == 2 else max(frame, key=np.std)


def _agreed(looks: dict[int, _Look | None], step: int) -> _Look:
    """What was found at a scale, with a score that is less where those beside it tell another diameter."""
    here = looks[step]
    beside = [look.diameter for look in (looks.get(step - 1), here, looks.get(step + 1)) if look is not None]
    if here is None or len(beside) == 1 or min(beside) == 0:
        return _Look(0.0, 0.0)
    return here._replace(score=here.score * _bell(max(beside) / min(beside)))


def _bell(ratio: float) -> float:
    """1 for sizes that are the same, a third for a factor of 1.4, next to nothing for more than 2."""
    return float(np.exp(-((2 * np.log2(ratio)) ** 2)))


def _look(
    method: CellMethod, preprocessing: Preprocessing, frames: Sequence[np.ndarray], trained: float, step: int
) -> _Look | None:
    """What is found at a scale; None where frames would be too small."""
    scale = preprocessing.scale * _STEP**step
    if min(scaled_size(frames[0].shape[:2], scale)) < 2 * trained:
        return None
    areas = np.concatenate([_areas(method, preprocessing._replace(scale=scale), frame, trained) for frame in frames])
    wanted = np.pi / 4 * trained**2
    near = (areas > wanted / _NEAR) & (areas < wanted * _NEAR)
    if near.sum() < 2:  # one cell may be anything
        return _Look(0.0, 0.0)
    typical = diameter_of(_middle(areas))
    return _Look(typical / scale, areas[near].sum() / areas.sum() * _bell(typical / trained))


def _areas(method: CellMethod, preprocessing: Preprocessing, frame: np.ndarray, trained: float) -> np.ndarray:
    """Pixels, at the network's scale, of the cells found in a frame by itself."""
    seen = _most_to_see(preprocessing.prepare([frame]), round(_WINDOW * trained))
    size = (seen.shape[-2], seen.shape[-1])
    return cell_areas(method.open_video(size).instances(seen.to(method.device))[-1])


def _most_to_see(frame: Tensor, side: int) -> Tensor:
    """The square of a frame, float32 (1, 1, h, w), in which pixels differ most from its median."""
    height, width = frame.shape[-2:]
    box = (min(side, height), min(side, width))
    pixels = frame[0, 0].numpy()
    contrast = cv2.boxFilter(np.abs(pixels - np.median(pixels)), -1, box[::-1], anchor=(0, 0))
    inside = contrast[: height - box[0] + 1, : width - box[1] + 1]
    top, left = np.unravel_index(inside.argmax(), inside.shape)
    return frame[..., top : top + box[0], left : left + box[1]]


def _middle(areas: np.ndarray) -> float:
    """The area such that cells at least as large make up half of the whole area: specks do not count."""
    ordered = np.sort(areas)
    return float(ordered[np.searchsorted(np.cumsum(ordered), ordered.sum() / 2)])
