"""A checkpoint -> a method ready to be used, without a configuration file."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import jsonargparse
import numpy as np
import torch
from torch import Tensor

from lightning_cells.data.intensity import Normalisation, prepare
from lightning_cells.errors import InputError, one_line
from lightning_cells.methods.base import CellMethod
from lightning_cells.methods.loading import SETTINGS, read_checkpoint, settings_of


class Preprocessing(NamedTuple):
    """What is done to each frame before a method sees it: see `prepare`.

    Attributes:
        normalisation: of intensities.
        scale: of both sides.
        diameter: of the training's typical cell after that, in pixels; None where a checkpoint does not remember it.
        smoothing: standard deviation of a Gaussian in pixels, between the two.
    """

    normalisation: Normalisation
    scale: float
    diameter: float | None = None
    smoothing: float = 0.0

    @property
    def cell_area(self) -> float | None:
        """Of a typical cell in pixels of the frames, if the network sees it as large as those of the training."""
        return None if self.diameter is None else np.pi / 4 * (self.diameter / self.scale) ** 2

    def prepare(self, frames: Iterable[np.ndarray]) -> Tensor:
        """Frames, (H, W) uint8 or uint16, as the data module gives them to methods.

        Returns:
            float32 (T, 1, h, w), rounded to half precision.
        """
        ready = [prepare(frame, self.normalisation, self.scale, self.smoothing).astype(np.float16) for frame in frames]
        return torch.from_numpy(np.stack(ready)[:, None].astype(np.float32))


def load_method(path: Path) -> tuple[CellMethod, Preprocessing]:
    """Builds the method of a checkpoint with its weights, on the CPU and in evaluation mode.

    Raises:
        InputError: if the file is missing, damaged, or was not written by a method that this version has.
    """
    checkpoint = read_checkpoint(path)
    settings = settings_of(checkpoint, path)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(CellMethod, "model")
    try:
        chosen = parser.parse_object({"model": settings["model"]})
        method = parser.instantiate_classes(chosen).model
        method.load_state_dict(checkpoint["state_dict"])
    except (jsonargparse.ArgumentError, RuntimeError, TypeError, ValueError, KeyError) as error:
        reason = one_line(error)[:200]
        raise InputError(
            f"{path} does not fit this version of lightning_cells: take a checkpoint of this version ({reason})"
        ) from error
    return method.eval(), _preprocessing(settings["data"], path)._replace(diameter=_diameter(checkpoint))


def _diameter(checkpoint: dict) -> float | None:
    known = checkpoint[SETTINGS].get("diameter")
    return float(known) if isinstance(known, float) and 0 < known < float("inf") else None


def _preprocessing(data: dict, path: Path) -> Preprocessing:
    try:
        known = Preprocessing(data["normalisation"], float(data["scale"]), smoothing=float(data.get("smoothing", 0.0)))
        prepare(np.zeros((1, 1), np.uint8), known.normalisation, known.scale, known.smoothing)
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{path} does not remember how frames were prepared: take one that lightning-cells fit wrote"
        ) from None
    return known
