"""``fit``, ``validate``, ``test`` and ``predict``: Lightning's own command line over our methods and data."""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only

from lightning_cells.callbacks.checkpoint import Checkpoints
from lightning_cells.callbacks.divergence import Divergence
from lightning_cells.callbacks.images import Pictures
from lightning_cells.callbacks.monitors import SystemMetrics, Throughput
from lightning_cells.callbacks.narration import Narration, tell
from lightning_cells.callbacks.result_writer import ResultFolders
from lightning_cells.callbacks.resume import Continuation, Requeue
from lightning_cells.callbacks.run_info import RunRecord
from lightning_cells.callbacks.test_report import Report
from lightning_cells.cli.next_steps import next_steps
from lightning_cells.cli.parsing import (
    Resumed,
    chosen_method,
    completed,
    explain,
    given,
    named_packages,
    resumed,
    shipped_configurations,
)
from lightning_cells.cli.weights import (
    Beginning,
    check_checkpoint,
    doubt_size,
    fit_size,
    keep_share,
    remembered,
    restoring_explained,
)
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.errors import InputError, one_line, origin
from lightning_cells.methods import CellMethod
from lightning_cells.methods.loading import misfit
from lightning_cells.methods.short_options import complete_model, short_names
from lightning_cells.paths import HOME_VARIABLE, output_dir
from lightning_cells.trust import ALLOW_HELP, allow

_LOGGER = {"class_path": "lightning_cells.loggers.mlflow.RunLogger"}
_DESCRIPTION = (
    "Files (-c) and single options are taken in the order in which they are given: what comes later wins. Any option "
    "can stand in a file. --print_config shows what results."
)
_RESUME = (
    "id of a run of which the training goes on, after a crash, or for longer: with its configuration, from its last "
    "checkpoint, in the same MLflow run, on any number of processes; what else is given wins"
)
_INIT = (
    "fit: start from the weights of a network: a model that comes with lightning-cells (nuclei), a registered one "
    "(models:/NAME/VERSION) or a checkpoint; without -c conf/method/... also with its method and preprocessing"
)
_INIT_SHARE = (
    "share of the weights of --init in those that are validated and kept; half of them, and a network forgets less of "
    "what it knew; 0 for a long training on much data"
)


class Parser(LightningArgumentParser):
    """Tells mistakes as `InputError` instead of printing the usage of hundreds of options.

    Attributes:
        method: the class of the method, whose options may have short names in files that do not name it.
    """

    method: type | None = None

    def _load_config_parser_mode(self, content: str, *args: Any, **kwargs: Any) -> Any:
        """Called by the base class with the text of each configuration file."""
        settings = yaml.safe_load(content)
        if isinstance(settings, dict) and "model" in settings:
            model = complete_model(settings["model"], self.method)
            if model != settings["model"]:
                content = yaml.safe_dump({**settings, "model": model})
        return super()._load_config_parser_mode(content, *args, **kwargs)

    def validate(self, namespace: Any, *args: Any, skip_unset: bool = True, **kwargs: Any) -> None:
        """Called by the base class with what was read, which takes an empty value of a file for any type."""
        super().validate(namespace, *args, skip_unset=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Called by the base class for every mistake on the command line or in a file."""
        known = {action.dest for parser in (self, *_subparsers(self)) for action in parser._actions}
        known |= short_names(known)
        raise InputError(explain(message, known)) from ex


def _subparsers(parser: LightningArgumentParser) -> list[Any]:
    subcommands = parser._subcommands_action
    return list(subcommands.choices.values()) if subcommands else []


class TrainingCLI(LightningCLI):
    """Lightning's command line with our callbacks, output folder, shipped configurations and precedence.

    What a checkpoint remembers of its method and preprocessing is taken as a first configuration file, so that
    anything the user gives wins over it; Lightning's own order is the other way round.
    """

    def __init__(self, args: list[str]) -> None:
        _silence()
        self._words = tuple(args)
        self._begins_with: Beginning | None = None
        super().__init__(
            CellMethod,
            SequenceDataModule,
            save_config_callback=RunRecord,
            save_config_kwargs={"words": self._words},
            trainer_defaults={
                "logger": _LOGGER,
                "log_every_n_steps": 10,
                "enable_model_summary": False,  # it is in the run, as model.txt
                "callbacks": [Divergence(), Continuation(), Throughput(), Requeue(), Report()],
            },
            seed_everything_default=1,
            parser_class=Parser,
            parser_kwargs={"prog": "lightning-cells", "allow_abbrev": False},
            subclass_mode_model=True,
            auto_configure_optimizers=False,
            args=args,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what each training verb has beside model, data and trainer."""
        parser.add_argument(
            "--output_dir",
            type=str | None,
            default=None,
            help=f"folder for all that is written (${HOME_VARIABLE}, outputs)",
        )
        parser.add_argument("--init", type=str | None, default=None, metavar="MODEL", help=_INIT)
        parser.add_argument("--init_share", type=float, default=0.5, metavar="SHARE", help=_INIT_SHARE)
        parser.add_argument("--allow", type=str | None, default=None, metavar="PACKAGES", help=ALLOW_HELP)
        parser.add_lightning_class_args(Checkpoints, "checkpoint")
        parser.add_lightning_class_args(Pictures, "pictures")
        parser.add_lightning_class_args(ResultFolders, "results")
        parser.add_lightning_class_args(SystemMetrics, "system")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the command line, with what the checkpoint remembers as the first of the configuration files."""
        self._begins_with = None  # other words may name another, or one that has changed
        args = shipped_configurations(args)
        allow(given(args, "allow"), *named_packages(args))  # what the user's own words name is imported anyway
        self._resumed = self._resume(args)
        if self._resumed is not None:
            self.config = self._parse(parser, self._resumed.words)
            check_checkpoint(args[0], self.config[args[0]])
            return
        with tempfile.TemporaryDirectory() as folder:
            if settings := remembered(args, self._beginning):
                first = Path(folder) / "checkpoint.yaml"
                first.write_text(yaml.safe_dump(settings))
                args = [args[0], "-c", str(first), *args[1:]]
            self.config = self._parse(parser, args)
        check_checkpoint(args[0], self.config[args[0]])

    def _beginning(self, name: str) -> Beginning:
        """The model of that name, which is fetched once."""
        if self._begins_with is None or self._begins_with.name != name:
            self._begins_with = Beginning(name)
        return self._begins_with

    def _parse(self, parser: LightningArgumentParser, args: list[str]) -> Any:
        """Parses the words, in which options of the method may have short names."""
        method = chosen_method(args)
        for each in _subparsers(parser):
            each.method = method
        return parser.parse_args(completed(args, method))

    def _resume(self, args: list[str]) -> Resumed | None:
        """Looks for what ``--resume`` names, also under an output folder that is given."""
        if home := given(args, "output_dir"):
            os.environ[HOME_VARIABLE] = os.path.abspath(home)
        words = self._words if type(self) is TrainingCLI else None  # trials of a sweep do not go on by themselves
        return resumed(args, words)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand in ("validate", "test"):
            parser.set_defaults(verbose=False)  # our own line has the measures in their order, and three digits
        parser.usage = f"lightning-cells {subcommand} [-c FILE ...] [--option VALUE ...]"
        parser.description = _DESCRIPTION
        if subcommand == "fit":
            parser.add_argument("--resume", type=str | None, default=None, help=_RESUME)
        return parser

    def _parse_ckpt_path(self) -> None:
        """Done in `parse_arguments`, in the other order."""

    def before_instantiate_classes(self) -> None:
        """Settles the output folder before anything asks for it, and whether there is a run to log."""
        verb = self.config.subcommand
        config = self.config[verb]
        if config.output_dir:
            os.environ[HOME_VARIABLE] = os.path.abspath(config.output_dir)
        begins = verb == "fit" and config.init is not None and config.ckpt_path is None and self._resumed is None
        if begins and (line := fit_size(config, self._beginning(config.init))):
            tell(line)
        if verb == "predict":
            config.return_predictions = False  # they go to disk as they come: kept in memory they would fill it
        if verb == "predict" or config.trainer.fast_dev_run:
            config.trainer.logger = False  # no database is set up for a run that has nothing to show
        elif self._resumed is not None and _is_ours(config.trainer.logger):
            config.trainer.logger.init_args.run_id = self._resumed.run
            where = self._resumed.checkpoint or "the beginning: there is no checkpoint yet"
            tell(f"Going on with run {self._resumed.run} from {where}")
        try:
            output_dir().mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--output_dir {output_dir()}: cannot be made ({error.strerror}): choose another"
            ) from None

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Opens the data first: a mistake in them is told before a run is logged or a second process started."""
        config = self.config[self.subcommand]
        if self.subcommand == "fit" and config.init is not None:
            if config.ckpt_path is None:
                self._beginning(config.init).give(self.model)
                self._begins_with = None  # the weights are the network's now
            keep_share(config.init_share, self.config_init[self.subcommand].trainer)
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            self.datamodule.setup(self.subcommand)
            self.model.check(self.datamodule, self.subcommand)
            doubt_size(str(self.subcommand), config.ckpt_path, self.datamodule)
        wanted = config.trainer.enable_progress_bar is not False  # null is Lightning's default, too
        kwargs.setdefault("enable_progress_bar", wanted and sys.stdout.isatty())
        self.narration = Narration(wanted)
        try:
            trainer = super().instantiate_trainer(**kwargs)
            trainer.callbacks.insert(0, self.narration)  # type: ignore[attr-defined]
            return trainer
        except (TypeError, ValueError, MisconfigurationException) as error:
            raise InputError(f"trainer: {one_line(error)}") from error


def _is_ours(logger: Any) -> bool:
    """Whether a configured logger is `RunLogger`, which runs of earlier versions have by another path."""
    return getattr(logger, "class_path", "").endswith(".mlflow.RunLogger")


def run(verb: str, args: list[str], make: Callable[[list[str]], object] = TrainingCLI) -> int:
    """Runs a training verb.

    Args:
        verb: which one.
        args: its options.
        make: the command line, which runs when it is made.
    """
    try:
        with restoring_explained():
            made = make([verb, *args])
        if type(made) is TrainingCLI:
            for line in next_steps(made):
                tell(line)
    except MisconfigurationException as error:
        raise InputError(one_line(error)) from error
    except ValueError as error:
        told = origin(error)
        if told is error or not isinstance(told, (ValueError, MisconfigurationException)):
            raise
        raise InputError(one_line(told)) from error
    except RuntimeError as error:
        difference = misfit(error)
        if difference is None:
            raise
        raise InputError(
            f"the checkpoint does not fit the configured method ({difference}): give --ckpt_path without the options "
            "that differ from its training; it remembers its method itself"
        ) from error
    return 0


_TOLD_BY_US = (  # or of no use, or an advertisement
    "Tip: ",
    "Seed set to",
    "GPU available",
    "TPU available",
    "HPU available",
    "Loading `train_dataloader`",
    "Restoring states from",
    "Restored all states",
    "Loaded model weights",
    "`Trainer.fit` stopped: `max_epochs",
    "`Trainer.fit` stopped: `max_steps",
)


class _Stdout(logging.StreamHandler):
    """Writes to what is standard output at the time, and leaves out what we tell ourselves."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write it."""
        return not any(words in str(record.msg) for words in _TOLD_BY_US)

    @property
    def stream(self) -> Any:
        """Standard output."""
        return sys.stdout

    @stream.setter
    def stream(self, stream: Any) -> None:
        """Ignored."""


def _silence() -> None:
    """Leaves out what only concerns Lightning itself, and sends its reports to stdout: stderr is for trouble."""
    for message in (
        ".*isinstance\\(treespec, LeafSpec\\).*",  # a deprecation between Lightning and torch
        ".*callbacks used to create the checkpoint need to be provided.*",  # averaging matters in training alone
        ".*The dirpath has changed.*",  # a run keeps its own checkpoints
        ".*does not have many workers.*",  # reading from the cache needs few or none
        ".*Total length of `list` across ranks is zero.*",  # training without validation is allowed
        ".*You're using the WeightAveraging callback.*",  # a checkpoint holds the averaged weights
        ".*recommended to use `self.log\\('(train|speed)/.*sync_dist.*",  # the curve of one process is enough
        ".*Checkpoint directory .* exists and is not empty.*",  # a run that goes on
        ".*The number of training batches .* is smaller than the logging interval.*",  # its mean is logged all the same
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # that a server is away is told once, by us
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.handlers = [_Stdout() if type(h) is logging.StreamHandler else h for h in logger.handlers]
