"""How large the cells of anyone's frames are, as a trained method sees them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from lightning_cells.data.intensity import scaled_size
from lightning_cells.data.sequence import cell_areas, diameter_of
from lightning_cells.methods.base import CellMethod
from lightning_cells.methods.building import Preprocessing

_SCALES = tuple(2.0 ** (k / 2) for k in range(-8, 4))  # at which frames are looked at
_LARGEST = 2**21  # pixels of a frame that is looked at
_NEAR = 4.0  # times in area that a cell may differ from the training's and still count as one
_LEAST = 0.5  # score of an estimate, from 0 to 1


class CellSize(NamedTuple):
    """The size of the cells in some frames.

    Attributes:
        diameter: of a typical cell, in pixels of the frames.
        scale: by which frames are resampled so that cells have the size of the training.
    """

    diameter: float
    scale: float


@torch.inference_mode()
def estimate_size(
    method: CellMethod, preprocessing: Preprocessing, frames: Sequence[np.ndarray], diameter: float
) -> CellSize | None:
    """Looks at frames at several scales for the one at which cells are as large as those of the training.

    At a wrong scale a network finds few cells, pieces of them, or clusters. What counts is the share of the area found
    that lies in cells of about the right size, and how near the typical size is to the right one. Each frame is looked
    at by itself.

    Args:
        method: trained.
        preprocessing: as in the training; its scale plays no part.
        frames: a few of one size, (H, W) uint8 or uint16.
        diameter: of the training's cells, in pixels that the network sees.

    Returns:
        None if there is no scale at which most of what is found are cells of the training's size.
    """
    wanted = np.pi / 4 * diameter**2
    height, width = frames[0].shape
    best, found = _LEAST, None
    for scale in _SCALES:
        size = scaled_size((height, width), scale)
        if min(size) < 2 * diameter or size[0] * size[1] > _LARGEST:
            continue
        areas = _areas(method, preprocessing._replace(scale=scale), frames, size)
        near = (areas > wanted / _NEAR) & (areas < wanted * _NEAR)
        if near.sum() < 2:  # one cell may be anything
            continue
        typical = diameter_of(_middle(areas)) / diameter
        score = areas[near].sum() / areas.sum() * np.exp(-((2 * np.log2(typical)) ** 2))
        if score > best:
            best, found = score, CellSize(typical * diameter / scale, scale / typical)
    return found


def _areas(
    method: CellMethod, preprocessing: Preprocessing, frames: Sequence[np.ndarray], size: tuple[int, int]
) -> np.ndarray:
    """Pixels, at the network's scale, of the cells found in each frame by itself."""
    found = []
    for frame in frames:
        cells = method.open_video(size).instances(preprocessing.prepare([frame]).to(method.device))[-1]
        found.append(cell_areas(cells))
    return np.concatenate(found)


def _middle(areas: np.ndarray) -> float:
    """The area such that cells at least as large make up half of the whole area: specks do not count."""
    ordered = np.sort(areas)
    return float(ordered[np.searchsorted(np.cumsum(ordered), ordered.sum() / 2)])
