"""Where crops are centred: anywhere, on cells, or on semantic classes."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np

from lightning_cells.data.deformation import UNKNOWN

Balance = Literal["uniform", "foreground", "classes"]
Point = tuple[float, float]
Predicate = Callable[[np.ndarray], np.ndarray]

TRIES = 256  # random pixels looked at before a whole frame is searched


def crop_centre(frame: np.ndarray, balance: Balance, rng: np.random.Generator) -> Point | None:
    """Draws the pixel on which to centre a crop.

    Args:
        frame: (H, W) instance labels in the label convention, or int8 semantic classes. Instance labels count
            as two classes, background and cell; a marker is a cell.
        balance: "uniform": anywhere. "foreground": with probability 1/2 a random pixel of a cell. "classes":
            a random pixel of a class that is drawn evenly among those present, background included
            (bright-field nuclei, MIDL 2019).
        rng: where the draws come from.

    Returns:
        Row and column, or None for anywhere.
    """
    if balance == "uniform" or (balance == "foreground" and rng.random() < 0.5):
        return None
    if balance == "foreground":
        return _random_pixel(frame, _is_cell, rng)
    kinds: list[Predicate] = [partial(np.equal, 0), _is_cell]
    if frame.dtype == np.int8:
        kinds = [partial(np.equal, number) for number in range(int(frame.max()) + 1)]
    present = [kind for kind in kinds if kind(frame).any()]
    return _random_pixel(frame, present[rng.integers(len(present))], rng) if present else None


def _is_cell(values: np.ndarray) -> np.ndarray:
    """Segmented pixels and markers."""
    return (values > 0) | (values < UNKNOWN)


def _random_pixel(frame: np.ndarray, wanted: Predicate, rng: np.random.Generator) -> Point | None:
    """A pixel drawn evenly among those wanted; None if there is none."""
    flat = frame.reshape(-1)
    # The first hit among random pixels is as even as a search of all of them, and reads little of the file.
    positions = rng.integers(flat.size, size=TRIES)
    positions = positions[wanted(flat[positions])][:1]
    if not len(positions):
        positions = np.flatnonzero(wanted(flat))
        if not len(positions):
            return None
        positions = rng.choice(positions, 1)
    row, column = divmod(int(positions[0]), frame.shape[1])
    return float(row), float(column)
