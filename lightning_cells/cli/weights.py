"""The weights that a training verb begins with: where they are, and what they remember of their method."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_cells.cli.parsing import chosen_method, given
from lightning_cells.errors import InputError, first_line
from lightning_cells.loggers.models import trained_model
from lightning_cells.methods import CellMethod
from lightning_cells.methods.loading import checkpoint_settings, misfit, read_checkpoint, settings_of, weights_of


def remembered(args: list[str]) -> dict[str, Any]:
    """Method and preprocessing of the checkpoint that the words name, if the first of their files is to hold them."""
    checkpoint, init = given(args, "ckpt_path"), given(args, "init")
    if checkpoint is not None:
        goes_on = args[0] == "fit" and checkpoint in ("last", "hpc")
        return {} if goes_on else checkpoint_settings(Path(checkpoint))
    if args[0] != "fit" or init is None or chosen_method(args) is not None:
        return {}
    with trained_model(init) as path:
        return checkpoint_settings(path)


def start_from(init: str, method: CellMethod) -> None:
    """Gives the network of a method the weights of another one.

    Raises:
        InputError: if there is no such model, or the networks differ.
    """
    with trained_model(init) as path:
        checkpoint = read_checkpoint(path)
        settings_of(checkpoint, path)
        weights = weights_of(checkpoint, path)
    network = {name.removeprefix("network."): value for name, value in weights.items() if name.startswith("network.")}
    try:
        method.network.load_state_dict(network)
    except RuntimeError as error:
        difference = str(misfit(error))[:200]
        raise InputError(
            f"--init {init}: does not fit the configured network ({difference}): leave out -c conf/method/... and the "
            "options that differ; it remembers its method itself"
        ) from error


@contextmanager
def restoring_explained() -> Iterator[None]:
    """Says in one line that Lightning stumbled over what a checkpoint has beside weights and settings, or has not.

    Raises:
        InputError: instead of whatever Lightning raises while it takes up a checkpoint.
    """
    try:
        yield
    except (InputError, MisconfigurationException):
        raise
    except Exception as error:
        restoring = any(
            frame.f_code.co_filename.endswith("checkpoint_connector.py")
            and frame.f_code.co_name.lstrip("_").startswith(("restore", "resume"))
            for frame, _ in traceback.walk_tb(error.__traceback__)
        )
        if not restoring or (isinstance(error, RuntimeError) and misfit(error)):
            raise
        said = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(
            f"--ckpt_path: the checkpoint is damaged, or not of a training ({said}): take another"
        ) from error


def check_checkpoint(verb: str, config: Any) -> None:
    """Raises InputError where the weights would not be those that the user has in mind."""
    if verb == "fit":
        if config.ckpt_path == "last" and config.checkpoint.folder is None:
            raise InputError(
                "--ckpt_path last: give the folder of the training to go on with as --checkpoint.folder "
                "outputs/checkpoints/<run id>"
            )
    elif config.ckpt_path is None and not config.trainer.fast_dev_run:
        raise InputError(
            f"{verb} needs trained weights: give --ckpt_path outputs/checkpoints/<run id>/best.ckpt; "
            "it remembers its method itself"
        )
