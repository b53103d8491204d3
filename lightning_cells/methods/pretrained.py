"""Models that come with the package: ``pretrained/NAME.ckpt``, each with a card ``NAME.md`` beside it.

python -m lightning_cells.methods.pretrained outputs/checkpoints/RUN/best.ckpt NAME
"""

import sys
from pathlib import Path
from typing import Any

import torch

from lightning_cells.data.atomic import writing
from lightning_cells.errors import InputError, nearest
from lightning_cells.methods.loading import SETTINGS, read_checkpoint, settings_of

FOLDER = Path(__file__).resolve().parents[1] / "pretrained"
DEFAULT = "nuclei"
"""The model that frames are tracked with if none is named."""

_LARGEST = 8_000_000  # bytes of a file: all who install the package get it
_KEPT = ("state_dict", "hyper_parameters", "hparams_name", "pytorch-lightning_version", SETTINGS)


def pretrained_names() -> list[str]:
    """The models that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.ckpt"))


def pretrained_checkpoint(name: str) -> Path:
    """The checkpoint of a model that comes with the package.

    Raises:
        InputError: if there is none of that name.
    """
    path = FOLDER / f"{name}.ckpt"
    if path.is_file():
        return path
    names = pretrained_names()
    there = nearest(name, names) if names else "none comes with this version"
    raise InputError(f"model '{name}': {there}; or give the path of a checkpoint, or models:/NAME/VERSION")


def strip(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What is needed to use a checkpoint: weights, the average where there is one, and settings.

    The state of optimisers, loops and random generators stays behind, so a training cannot go on from it, but another
    can start from its weights.
    """
    return {key: checkpoint[key] for key in _KEPT if key in checkpoint}


def ship(checkpoint: Path, name: str) -> Path:
    """Makes a checkpoint one of the models that come with the package, and returns its place.

    Raises:
        InputError: if it cannot be read, was not written by a method of this package, or is too large.
    """
    content = read_checkpoint(checkpoint)
    settings_of(content, checkpoint)
    path = FOLDER / f"{name}.ckpt"
    with writing(path) as temporary:
        torch.save(strip(content), temporary)
        size = temporary.stat().st_size
        if size > _LARGEST:
            raise InputError(f"{checkpoint}: has {size / 1e6:.1f} MB without its training: at most 8 MB are shipped")
    return path


if __name__ == "__main__":
    print(ship(Path(sys.argv[1]), sys.argv[2]))
