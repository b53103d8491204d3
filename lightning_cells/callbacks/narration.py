"""Tells what a training does: a line for each epoch, and one for each stage, whether or not there is a terminal."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from mlflow.entities import RunTag
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE
from tqdm import tqdm

from lightning_cells.callbacks.checkpoint import Checkpoints
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.data.sequence import Sequence
from lightning_cells.loggers.mlflow import RunLogger
from lightning_cells.metrics.measures import FIRST, MEASURES, OPERATIONS
from lightning_cells.progress import Progress

_WITHIN_S = 120.0  # between two lines within an epoch


class Validated(NamedTuple):
    """An epoch with its validation.

    Attributes:
        epoch: its number, from 1.
        measures: value by name, without ``val/``.
    """

    epoch: int
    measures: Mapping[str, float]


class Narration(Callback):
    """Tells on stdout what runs and how it does; on stderr, where no bar shows it, how far a test is.

    Args:
        progress: whether to tell how far a stage is.

    Attributes:
        best: the epoch whose weights are in ``best.ckpt``, if it was one of this call.
        seconds: that the training took.
        epochs: that were trained, in this call.
    """

    def __init__(self, progress: bool = True) -> None:
        self.best: Validated | None = None
        self.seconds = 0.0
        self.epochs = 0
        self._progress = progress
        self._bar: Progress | None = None
        self._began = self._epoch_began = self._told = 0.0
        self._last = Validated(0, {})
        self._is_best = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says what is trained on what, and as which run."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, SequenceDataModule):
            train, val = (_amount(data.sequences[part]) for part in ("train", "val"))
            tell(f"{_method(trainer, pl_module)}: trains on {train} of {Path(data.root).name}, is validated on {val}")
        if isinstance(trainer.logger, RunLogger) and trainer.is_global_zero:
            tell(f"Run {trainer.logger.run_id}, {trainer.logger.run_name}")
            _note(trainer, pl_module, "is being trained on", "train", {})
        self._began = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._epoch_began = self._told = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Gives a sign of life in a long epoch."""
        now = time.monotonic()
        if now - self._told >= _WITHIN_S and self._lines(trainer):
            self._told = now
            done = f"{batch_idx + 1} of {trainer.num_training_batches} batches, {now - self._epoch_began:.0f} s"
            tell(f"{_number(trainer)}  {done}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the measures of an epoch, and whether they are the best so far."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._end_stage()
            tell(measured(trainer.callback_metrics, "val"))
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        self._last = Validated(trainer.current_epoch + 1, _named(trainer.callback_metrics, "val"))
        self._is_best = self._improved(trainer)
        if self._is_best:
            self.best = self._last

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells the epoch."""
        values = trainer.callback_metrics
        means = {name: values[name] for name in values if name.startswith("train/") and name.endswith("_epoch")}
        losses = {name.removeprefix("train/").removesuffix("_epoch"): float(value) for name, value in means.items()}
        self.epochs += 1
        parts = [f"{name} {value:.3g}" for name, value in losses.items()]
        best = ""
        if self._last.epoch == trainer.current_epoch + 1:
            parts += short(self._last.measures).split(", ")
            best = "  best so far" * self._is_best
        tell("  ".join([_number(trainer), *parts, f"{time.monotonic() - self._epoch_began:.0f} s"]) + best)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock, and notes in the run what it came to."""
        self.seconds = time.monotonic() - self._began
        best = self.best or self._last
        _note(trainer, pl_module, f"trained for {self.epochs} epochs on", "train", best.measures, f"epoch {best.epoch}")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says what is done to which videos."""
        self._begin_stage(trainer, pl_module)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """Tells now and then how far it is."""
        if self._bar is not None:
            self._bar.update(len(batch.frames))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells the measures."""
        self._end_stage()
        tell(measured(trainer.callback_metrics, "test"))
        _note(trainer, pl_module, "tested on", "test", _named(trainer.callback_metrics, "test"), "test")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the bar."""
        self._end_stage()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says what is validated, outside of a training."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._begin_stage(trainer, pl_module)

    on_validation_batch_end = on_test_batch_end
    on_predict_start = on_test_start
    on_predict_batch_end = on_test_batch_end

    def _begin_stage(self, trainer: Trainer, method: LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, SequenceDataModule):
            return
        stage = str(trainer.state.fn.value)  # type: ignore[union-attr]
        videos = data.sequences["val" if stage == "validate" else stage]
        tell(f"{_method(trainer, method)}: {_DOES[stage]} {_amount(videos)} of {Path(data.root).name}")
        if self._lines(trainer) and trainer.is_global_zero:
            frames = sum(map(len, videos)) // trainer.world_size
            self._bar = Progress(stage, max(1, frames))

    def _end_stage(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _lines(self, trainer: Trainer) -> bool:
        """Whether it is for us to tell how far something is: there is no bar, and it is wanted."""
        return self._progress and trainer.progress_bar_callback is None

    def _improved(self, trainer: Trainer) -> bool:
        """Whether the last validation is better than all before; the checkpoint is chosen after this."""
        checkpoints = trainer.checkpoint_callback
        if not isinstance(checkpoints, Checkpoints) or not (checkpoints.monitor or "").startswith("val/"):
            return False
        value = self._last.measures.get(str(checkpoints.monitor).removeprefix("val/"))
        if value is None:
            return False
        score = checkpoints.best_model_score
        before = None if score is None else float(score)
        return before is None or (value > before if checkpoints.mode == "max" else value < before)


_DOES = {"validate": "is validated on", "test": "is tested on", "predict": "tracks"}


@rank_zero_only
def tell(line: str) -> None:
    """Prints a line on process zero, above a bar if there is one."""
    tqdm.write(line)
    sys.stdout.flush()  # a log is read while it grows


def _note(
    trainer: Trainer, method: LightningModule, did: str, part: str, measures: Mapping[str, float], row: str = ""
) -> None:
    """Puts into the run what its page begins with, in Markdown."""
    data, logger = trainer.datamodule, trainer.logger  # type: ignore[attr-defined]
    if not (isinstance(data, SequenceDataModule) and isinstance(logger, RunLogger) and trainer.is_global_zero):
        return
    lines = [f"**{type(method).__name__}** {did} {_amount(data.sequences[part])} of `{Path(data.root).name}`"]
    shown = {name: value for name, value in measures.items() if name not in OPERATIONS}
    if shown:
        names = sorted(shown, key=lambda name: [*MEASURES, name].index(name))
        lines += ["", _cells("", *names), _cells(*["---"] * (len(names) + 1))]
        lines.append(_cells(row, *(f"{shown[name]:.3f}" for name in names)))
    weights = trainer.ckpt_path if part == "test" else getattr(trainer.checkpoint_callback, "best_model_path", "")
    if weights and measures:
        lines += ["", f"`lightning-cells track FRAMES --checkpoint {weights} --out RES --preview`"]
    logger.experiment.log_batch(str(logger.run_id), tags=[RunTag(MLFLOW_RUN_NOTE, "\n".join(lines))])


def _cells(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def measured(values: Mapping[str, Any], stage: str) -> str:
    """All measures of a stage in one line, the known ones in their order."""
    named = {name: value for name, value in _named(values, stage).items() if name not in OPERATIONS}
    order = [name for name in MEASURES if name in named] + [name for name in named if name not in MEASURES]
    return "  ".join(f"{stage}/{name} {named[name]:.3f}" for name in order)


def short(measures: Mapping[str, float]) -> str:
    """The first measures, in words."""
    return ", ".join(f"{name} {value:.3f}" for name, value in _first(measures).items())


def _named(values: Mapping[str, Any], stage: str) -> dict[str, float]:
    return {
        name.removeprefix(f"{stage}/"): float(value) for name, value in values.items() if name.startswith(f"{stage}/")
    }


def _first(measures: Mapping[str, float], most: int = 3) -> dict[str, float]:
    """The measures that are shown where there is room for a few."""
    names = [name for name in FIRST if name in measures] or [name for name in measures if name not in OPERATIONS][:most]
    return {name: measures[name] for name in names}


def _number(trainer: Trainer) -> str:
    most = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
    number = f"{trainer.current_epoch + 1:>{len(str(most or ''))}}"
    return f"epoch {number} of {most}" if most else f"epoch {number}"


def _method(trainer: Trainer, method: LightningModule) -> str:
    parameters = sum(weights.numel() for weights in method.parameters())
    processes = f"{trainer.world_size} processes on " if trainer.world_size > 1 else ""
    return f"{type(method).__name__} ({parameters:,} parameters, {processes}{trainer.strategy.root_device.type})"


def _amount(videos: list[Sequence]) -> str:
    if not videos:
        return "nothing"
    frames = sum(map(len, videos))
    return f"{len(videos)} video{'s' * (len(videos) > 1)} ({frames} frames)"
