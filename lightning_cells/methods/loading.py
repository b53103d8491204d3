"""What a checkpoint remembers of its method and of the preprocessing it was trained with."""

import pickle
from pathlib import Path
from typing import Any

import torch

from lightning_cells.errors import InputError
from lightning_cells.methods.short_options import complete_model

SETTINGS = "lightning_cells"
PREPARATION = ("normalisation", "scale", "smoothing")
"""What is remembered of the data module: how frames are prepared."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Returns the contents of a checkpoint; never executes code from it.

    Raises:
        InputError: if the file is missing, damaged, or holds anything but plain values and tensors.
    """
    if not path.is_file():
        raise InputError(f"no checkpoint '{path}': runs keep theirs under outputs/checkpoints/<run id>")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(f"{path} holds more than weights and plain values, or is damaged: it is not loaded") from None
    except Exception:  # damaged bytes make torch stumble in many ways
        raise InputError(f"{path} is damaged, or no checkpoint at all: take another") from None


def checkpoint_settings(path: Path) -> dict[str, Any]:
    """Returns a configuration, in the command line's own layout, of the method and preprocessing of a checkpoint.

    Raises:
        InputError: if the file cannot be read or was not written by a method of this package.
    """
    return settings_of(read_checkpoint(path), path)


def settings_of(checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """`checkpoint_settings` of a checkpoint that was read from `path`."""
    settings = checkpoint.get(SETTINGS) if isinstance(checkpoint, dict) else None
    if not isinstance(settings, dict) or not settings.keys() >= {"method", "data"}:
        raise InputError(f"{path} was not written by a method of lightning_cells: take another")
    parameters = checkpoint.get("hyper_parameters", {})
    init_args = {key: value for key, value in parameters.items() if not key.startswith("_")}
    model = complete_model({"class_path": settings["method"], "init_args": _plain(init_args)})
    return {"model": model, "data": settings["data"]}


def misfit(error: RuntimeError) -> str | None:
    """The first difference between a checkpoint and a network, of what ``load_state_dict`` raised; None of others."""
    said = str(error)
    return said.splitlines()[1].strip() if said.startswith("Error(s) in loading state_dict") else None


def _plain(value: Any) -> Any:
    """Mappings and sequences as YAML knows them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
