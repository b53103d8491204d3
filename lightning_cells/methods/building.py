"""A checkpoint -> a method ready to be used, without a configuration file."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules import module as torch_module

from lightning_cells.data.intensity import Normalisation, prepare
from lightning_cells.data.voxels import Order
from lightning_cells.methods.base import CellMethod
from lightning_cells.methods.loading import SETTINGS, misfitting, read_checkpoint, settings_of, weights_of


class Preprocessing(NamedTuple):
    """What is done to each frame before a method sees it: see `prepare`.

    Attributes:
        normalisation: of intensities.
        scale: of both sides.
        diameter: of the training's typical cell after that, in pixels; None where a checkpoint does not remember it.
        smoothing: standard deviation of a Gaussian in pixels, between the two.
        sequence: what a recurrent network goes through in volumes.
    """

    normalisation: Normalisation
    scale: float
    diameter: float | None = None
    smoothing: float = 0.0
    sequence: Order = "time"

    @property
    def cell_area(self) -> float | None:
        """Of a typical cell in pixels of the frames, if the network sees it as large as those of the training."""
        return None if self.diameter is None else np.pi / 4 * (self.diameter / self.scale) ** 2

    def prepare(self, frames: Iterable[np.ndarray]) -> Tensor:
        """Frames, (H, W) or (Z, H, W), uint8 or uint16, as the data module gives them to methods.

        Returns:
            float32 (T, 1, h, w), rounded to half precision; float16 (T, Z, h, w) of volumes.
        """
        ready = [prepare(frame, self.normalisation, self.scale, self.smoothing).astype(np.float16) for frame in frames]
        stacked = np.stack(ready)
        return torch.from_numpy(stacked[:, None].astype(np.float32) if stacked.ndim == 3 else stacked)


def load_method(path: Path) -> tuple[CellMethod, Preprocessing]:
    """Builds the method of a checkpoint with its weights, on the CPU and in evaluation mode.

    Raises:
        InputError: if the file is missing, damaged, holds weights that cannot be used, names classes of a package that
            nobody allowed, or was not written by a method that this version has.
    """
    import jsonargparse  # slow to import, and what is built from Python does without

    checkpoint = read_checkpoint(path)
    settings, weights = settings_of(checkpoint, path), weights_of(checkpoint, path)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(CellMethod, "model")
    try:
        chosen = parser.parse_object({"model": settings["model"]})
        with _at_most(path.stat().st_size, 2 * len(weights) + 100):
            method = parser.instantiate_classes(chosen).model
        method.load_state_dict(weights)
    except Exception as error:  # values that are out of all reason make constructors stumble in many ways
        raise misfitting(path, error) from error
    return method.eval(), Preprocessing(**settings["data"], diameter=diameter_of_training(checkpoint))


@contextmanager
def _at_most(numbers: int, parts: int) -> Iterator[None]:
    """Has a network that is built with more weights than a file can hold end before memory is taken for them.

    Args:
        numbers: most weights; each takes a byte of the file or more.
        parts: most tensors of them.

    Raises:
        ValueError: from within the network's constructor.
    """
    known, thread = [0, 0], get_ident()

    def count(module: torch.nn.Module, name: str, value: Tensor | None) -> None:
        if value is None or get_ident() != thread:
            return
        known[0] += value.numel()
        known[1] += 1
        if known[0] > numbers or known[1] > parts:
            raise ValueError("its options are of a larger network than its weights")

    hooks = (
        torch_module.register_module_parameter_registration_hook(count),
        torch_module.register_module_buffer_registration_hook(count),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def diameter_of_training(checkpoint: dict) -> float | None:
    """Of the typical cell that a checkpoint's method was trained on, in pixels as it saw them; None if not known."""
    known = checkpoint[SETTINGS].get("diameter")
    return float(known) if isinstance(known, float) and 0 < known < float("inf") else None
