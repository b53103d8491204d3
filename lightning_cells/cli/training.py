"""``fit``, ``validate``, ``test`` and ``predict``: Lightning's own command line over our methods and data."""

import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lightning_cells.cli.mistakes import explain
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.errors import InputError
from lightning_cells.experiments.checkpoints import Checkpoints
from lightning_cells.experiments.mlflow import RunRecord
from lightning_cells.experiments.pictures import Pictures
from lightning_cells.experiments.results import ResultFolders
from lightning_cells.methods import CellMethod
from lightning_cells.methods.loading import checkpoint_settings
from lightning_cells.paths import HOME_VARIABLE, shipped

_LOGGER = {"class_path": "lightning_cells.experiments.mlflow.RunLogger"}


class Parser(LightningArgumentParser):
    """Tells mistakes as `InputError` instead of printing the usage of hundreds of options."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Called by the base class for every mistake on the command line or in a file."""
        known = {action.dest for parser in (self, *_subparsers(self)) for action in parser._actions}
        raise InputError(explain(message, known)) from ex


def _subparsers(parser: LightningArgumentParser) -> list[LightningArgumentParser]:
    subcommands = parser._subcommands_action
    return list(subcommands.choices.values()) if subcommands else []


class TrainingCLI(LightningCLI):
    """Lightning's command line with our callbacks, output folder, shipped configurations and precedence.

    What a checkpoint remembers of its method and preprocessing is taken as a first configuration file, so that
    anything the user gives wins over it; Lightning's own order is the other way round.
    """

    def __init__(self, args: list[str]) -> None:
        _silence()
        super().__init__(
            CellMethod,
            SequenceDataModule,
            save_config_callback=RunRecord,
            trainer_defaults={"logger": _LOGGER, "log_every_n_steps": 10},
            seed_everything_default=1,
            parser_class=Parser,
            parser_kwargs={"prog": "lightning-cells"},
            subclass_mode_model=True,
            auto_configure_optimizers=False,
            args=args,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what each training verb has beside model, data and trainer."""
        parser.add_argument(
            "--output_dir", type=str, default=None, help=f"folder for all that is written (${HOME_VARIABLE}, outputs)"
        )
        parser.add_lightning_class_args(Checkpoints, "checkpoint")
        parser.add_lightning_class_args(Pictures, "pictures")
        parser.add_lightning_class_args(ResultFolders, "results")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the command line, with what the checkpoint remembers as the first of the configuration files."""
        args = _shipped_configurations(args)
        checkpoint = _option(args, "--ckpt_path")
        if checkpoint is None or checkpoint in ("best", "last", "hpc", "registry"):
            self.config = parser.parse_args(args)
            return
        with tempfile.TemporaryDirectory() as folder:
            remembered = Path(folder) / "checkpoint.yaml"
            remembered.write_text(yaml.safe_dump(checkpoint_settings(Path(checkpoint))))
            self.config = parser.parse_args([args[0], "-c", str(remembered), *args[1:]])

    def _parse_ckpt_path(self) -> None:
        """Done in `parse_arguments`, in the other order."""

    def before_instantiate_classes(self) -> None:
        """Settles the output folder before anything asks for it."""
        folder = self.config[self.config.subcommand].output_dir
        if folder:
            os.environ[HOME_VARIABLE] = os.path.abspath(folder)

    def before_predict(self) -> None:
        """Results go to disk as they come; kept in memory they would fill it."""
        self.config.predict.return_predictions = False


def run(verb: str, args: list[str]) -> int:
    """Runs a training verb."""
    try:
        TrainingCLI([verb, *args])
    except MisconfigurationException as error:
        raise InputError(" ".join(str(error).split())) from error
    except RuntimeError as error:
        if "Error(s) in loading state_dict" not in str(error):
            raise
        first = str(error).splitlines()[1].strip()
        raise InputError(
            f"the checkpoint does not fit the configured method ({first}): give --ckpt_path without the options that "
            "differ from its training; it remembers its method itself"
        ) from error
    return 0


def _silence() -> None:
    """Leaves out what Lightning says of our callbacks on every use of a checkpoint, and what only concerns itself."""
    for message in (
        ".*isinstance\\(treespec, LeafSpec\\).*",  # a deprecation between Lightning and torch
        ".*callbacks used to create the checkpoint need to be provided.*",  # averaging matters in training alone
        ".*The dirpath has changed.*",  # a run keeps its own checkpoints
        ".*does not have many workers.*",  # reading from the cache needs few or none
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.trainer.connectors.callback_connector").setLevel(logging.WARNING)


def _shipped_configurations(args: list[str]) -> list[str]:
    """Replaces configuration files that are not in the working directory by those that ship with the package."""
    found = list(args)
    for position, word in enumerate(args):
        option, equals, value = word.partition("=")
        if option not in ("-c", "--config"):
            continue
        if equals:
            found[position] = f"{option}={_configuration(value)}"
        elif position + 1 < len(args):
            found[position + 1] = _configuration(args[position + 1])
    return found


def _configuration(path: str) -> str:
    return path if Path(path).exists() else str(shipped(path))


def _option(args: list[str], name: str) -> str | None:
    for position, word in enumerate(args):
        option, equals, value = word.partition("=")
        if option == name:
            return value if equals else args[position + 1] if position + 1 < len(args) else None
    return None
