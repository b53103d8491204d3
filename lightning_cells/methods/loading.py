"""What a checkpoint holds: weights, and what it remembers of its method and of the preprocessing it was trained with.

A checkpoint comes from anywhere. It is read without running code from it, and before memory is taken for what it says
to be large.
"""

import pickle
import zipfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from lightning_cells.data.intensity import prepare
from lightning_cells.data.voxels import Order
from lightning_cells.errors import InputError, one_line
from lightning_cells.methods.short_options import complete_model
from lightning_cells.trust import check_names, is_path

SETTINGS = "lightning_cells"
PREPARATION = ("normalisation", "scale", "smoothing", "sequence")
"""What is remembered of the data module: how frames are prepared, and what is gone through in volumes."""
_LARGEST_PICKLE = 10_000_000  # bytes of all that is no tensor; Python's objects take up to a hundred times as much


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Returns the contents of a checkpoint; never executes code from it.

    Raises:
        InputError: if the file is missing, damaged, or holds anything but plain values and tensors.
    """
    if not path.is_file():
        raise InputError(f"no checkpoint '{path}': runs keep theirs under outputs/checkpoints/<run id>")
    damaged = InputError(f"{path} is damaged, or no checkpoint at all: take another")
    try:
        if not _is_sound(path):
            raise damaged
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError:
        raise InputError(f"{path} holds more than weights and plain values, or is damaged: it is not loaded") from None
    except Exception:  # damaged bytes make torch stumble in many ways
        raise damaged from None
    if not isinstance(checkpoint, dict):
        raise InputError(f"{path} was not written by a method of lightning_cells: take another")
    return checkpoint


def _is_sound(path: Path) -> bool:
    """Whether a file is an archive, as torch writes them, of no more than its own bytes, with their checksums."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        pickled = sum(member.file_size for member in members if member.filename.endswith(".pkl"))
        bounded = pickled <= _LARGEST_PICKLE and sum(one.file_size for one in members) <= path.stat().st_size
        return stored and bounded and archive.testzip() is None  # torch does not look at checksums


def checkpoint_settings(path: Path) -> dict[str, Any]:
    """Returns a configuration, in the command line's own layout, of the method and preprocessing of a checkpoint.

    Raises:
        InputError: if the file cannot be read, was not written by a method of this package, holds weights that cannot
            be used, or names classes of a package that nobody allowed.
    """
    checkpoint = read_checkpoint(path)
    weights_of(checkpoint, path)
    return settings_of(checkpoint, path)


def settings_of(checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """The settings of a checkpoint that was read from `path`, as `checkpoint_settings` returns them."""
    settings = checkpoint.get(SETTINGS)
    if not isinstance(settings, dict) or not settings.keys() >= {"method", "data"}:
        raise InputError(f"{path} was not written by a method of lightning_cells: take another")
    parameters = checkpoint.get("hyper_parameters", {})
    if not isinstance(parameters, dict) or not all(isinstance(name, str) for name in parameters):
        raise misfitting(path, "its options have no names")
    method = settings["method"]
    if not isinstance(method, str) or not is_path(method):
        raise misfitting(path, "it names no method")
    init_args = {key: value for key, value in parameters.items() if not key.startswith("_")}
    check_names([method, init_args], path)
    try:
        model = complete_model({"class_path": method, "init_args": _plain(init_args)})
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise misfitting(path, error) from error
    return {"model": model, "data": _preparation(settings["data"], path)}


def _preparation(data: Any, path: Path) -> dict[str, Any]:
    """How frames are prepared and volumes gone through, and nothing else: folders and videos are the user's."""
    try:
        known = {"normalisation": data["normalisation"], "scale": float(data["scale"])}
        if "smoothing" in data:  # those of earlier versions have none
            known["smoothing"] = float(data["smoothing"])
        prepare(np.zeros((1, 1), np.uint8), **known)
        order = data.get("sequence", "time")
        if order not in get_args(Order):
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise InputError(
            f"{path} does not remember how frames were prepared: take one that lightning-cells fit wrote"
        ) from None
    return {**known, "sequence": order}


def weights_of(checkpoint: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint that was read from `path`.

    Raises:
        InputError: unless they are tensors of finite real numbers, each of which the file holds.
    """
    weights = checkpoint.get("state_dict")
    if not isinstance(weights, dict):
        raise misfitting(path, "it holds no weights")
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            raise misfitting(path, f"{str(name)[:100]} is no tensor of weights")
        if value.is_complex() or value.is_quantized or value.is_meta:
            raise misfitting(path, f"{name} holds no real numbers")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise misfitting(path, f"{name} is larger than what the file holds of it")
        if not value.isfinite().all():
            raise InputError(
                f"{path} holds weights that are not finite ({name}), as a training leaves that went wrong: take an "
                "earlier one"
            )
    return weights


def misfitting(path: Path, reason: object) -> InputError:
    """What is said of a checkpoint that was written by another version, or damaged."""
    said = one_line(reason)[:200]
    return InputError(
        f"{path} does not fit this version of lightning_cells: take a checkpoint of this version ({said})"
    )


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
