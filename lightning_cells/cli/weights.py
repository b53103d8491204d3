"""The weights that a training verb begins with: where they are, and what they remember of their method."""

import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_cells.callbacks.averaging import AveragedWeights
from lightning_cells.cli.parsing import chosen_method, given
from lightning_cells.data.cell_sizes import diameter_on_disk, typical_diameter
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.errors import Doubt, InputError, first_line
from lightning_cells.instances.components import Decoder
from lightning_cells.loggers.models import trained_model
from lightning_cells.methods import CellMethod
from lightning_cells.methods.base import plain
from lightning_cells.methods.building import diameter_of_training
from lightning_cells.methods.cell_size import ALIKE
from lightning_cells.methods.loading import checkpoint_settings, misfit, read_checkpoint, settings_of, weights_of
from lightning_cells.methods.short_options import find_class
from lightning_cells.paths import find_data


class Beginning:
    """The model that a training begins with, fetched once.

    Args:
        name: of a model, or the path of a checkpoint; see `trained_model`.

    Raises:
        InputError: if there is no such model, or it cannot be used.

    Attributes:
        name: as given.
        settings: its method and preprocessing, as `checkpoint_settings` returns them.
        diameter: of a typical cell of its training, in pixels that the network saw; None if it does not know.
        weights: by their names.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        with trained_model(name) as path:
            checkpoint = read_checkpoint(path)
            self.weights = weights_of(checkpoint, path)
            self.settings = settings_of(checkpoint, path)
        self.diameter = diameter_of_training(checkpoint)

    def give(self, method: CellMethod) -> None:
        """Gives the network of a method the weights.

        Raises:
            InputError: if the networks differ.
        """
        inside = "network."
        network = {name.removeprefix(inside): value for name, value in self.weights.items() if name.startswith(inside)}
        try:
            method.network.load_state_dict(network)
        except RuntimeError as error:
            difference = str(misfit(error))[:200]
            raise InputError(
                f"--init {self.name}: does not fit the configured network ({difference}): leave out -c conf/method/... "
                "and the options that differ; it remembers its method itself"
            ) from error


def remembered(args: list[str], beginning: Callable[[str], Beginning]) -> dict[str, Any]:
    """Method and preprocessing of the checkpoint that the words name, if the first of their files is to hold them.

    Args:
        args: the words, of which the first is the verb.
        beginning: the model that ``--init`` names.
    """
    checkpoint, init = given(args, "ckpt_path"), given(args, "init")
    if checkpoint is not None:
        goes_on = args[0] == "fit" and checkpoint in ("last", "hpc")
        return {} if goes_on else checkpoint_settings(Path(checkpoint))
    if args[0] != "fit" or init is None or chosen_method(args) is not None:
        return {}
    return beginning(init).settings


def keep_share(share: float, trainer: Any) -> None:
    """Has the weights that a training validates and keeps hold a share of those that it begins with.

    Args:
        share: from 0 to 1.
        trainer: the configuration of the trainer, with its callbacks made; they are changed.

    Raises:
        InputError: for a share that is none.
    """
    if not 0 <= share <= 1:
        raise InputError(f"--init_share {share}: must be from 0 to 1")
    callbacks = trainer.callbacks if isinstance(trainer.callbacks, list) else [trainer.callbacks]
    callbacks = [callback for callback in callbacks if callback is not None]
    average = next((callback for callback in callbacks if isinstance(callback, AveragedWeights)), None)
    if average is None:
        if not share:
            return
        average = AveragedWeights(decay=0.0)
        trainer.callbacks = [*callbacks, average]
    average.beginning = share


def fit_size(config: Any, beginning: Beginning) -> str | None:
    """Has a training that begins with a model see cells as large as that model knows them, if nobody said otherwise.

    Args:
        config: of ``fit``; its ``data.scale`` is changed, and the decoder's sizes, which are in pixels of the frames.
        beginning: the model.

    Returns:
        A line that says so; None where nothing is changed.
    """
    known, scale, data = beginning.diameter, beginning.settings["data"]["scale"], config.data
    if known is None or data.scale != scale or data.label_kind != "instances":
        return None
    found = diameter_on_disk(find_data(data.root), data.layout, data.truth)
    if found is None or 1 / ALIKE < found * scale / known < ALIKE:
        return None
    data.scale = round(known / found, 3)
    _resize_decoder(config.model, scale / data.scale)
    return (
        f"Cells of about {found:.0f} px, which {beginning.name} knows at {known:.0f}: frames are scaled by "
        f"{data.scale:g}; --data.scale X if that is wrong"
    )


def _resize_decoder(model: Any, factor: float) -> None:
    """Changes the decoder in a method's configuration, if it has one, for cells that are larger by a factor."""
    chosen = model.init_args.get("decoder")
    kind = None if chosen is None else find_class(chosen.get("class_path"))
    if kind is None or not issubclass(kind, Decoder):
        return
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Decoder, "decoder")
    decoder = parser.instantiate_classes(Namespace(decoder=chosen)).decoder
    model.init_args.decoder = parser.parse_object({"decoder": plain(decoder.resized(factor))}).decoder


def doubt_size(verb: str, checkpoint: str | None, data: SequenceDataModule) -> None:
    """Warns where a checkpoint is measured on cells of another size than it knows.

    Args:
        verb: the training verb; only ``validate`` and ``test`` have cells to measure.
        checkpoint: path of the weights.
        data: after its `setup`.
    """
    part = {"validate": "val", "test": "test"}.get(verb)
    if part is None or checkpoint is None or not Path(checkpoint).is_file():
        return
    known, found = diameter_of_training(read_checkpoint(Path(checkpoint))), typical_diameter(data.sequences[part])
    if known is not None and found is not None and not 1 / ALIKE**2 < found / known < ALIKE**2:
        warnings.warn(
            f"cells are about {found:.0f} px across, where {checkpoint} knows them at {known:.0f}: give --data.scale "
            f"{data.scale * known / found:.2g}, or track and evaluate, which estimates the size",
            Doubt,
            stacklevel=2,
        )


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
