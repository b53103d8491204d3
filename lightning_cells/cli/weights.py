"""The weights that a training verb begins with: where they are, and what they remember of their method."""

from pathlib import Path
from typing import Any

from lightning_cells.cli.parsing import chosen_method, given
from lightning_cells.errors import InputError
from lightning_cells.loggers.models import trained_model
from lightning_cells.methods import CellMethod
from lightning_cells.methods.loading import checkpoint_settings, misfit, read_checkpoint, settings_of


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
        weights = read_checkpoint(path)
        settings_of(weights, path)
    network = {
        name.removeprefix("network."): value
        for name, value in weights["state_dict"].items()
        if name.startswith("network.")
    }
    try:
        method.network.load_state_dict(network)
    except RuntimeError as error:
        difference = str(misfit(error))[:200]
        raise InputError(
            f"--init {init}: does not fit the configured network ({difference}): leave out -c conf/method/... and the "
            "options that differ; it remembers its method itself"
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
