"""Checkpoints: where and when they are written, whole at any time, and what of a training they bring back."""

import errno
import io
import os
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from tqdm import tqdm

from lightning_cells.data.atomic import writing
from lightning_cells.errors import InputError
from lightning_cells.loggers.mlflow import RunLogger
from lightning_cells.paths import output_dir


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and then renames it; Lightning's own may copy from another disk.

    A checkpoint that cannot be written, as on a full disk, leaves the one before as it was. It is told on stderr, once
    until one can be written again, and noted, and the training goes on: with several processes an error in the one that
    writes would leave the others waiting.

    Attributes:
        failure: what kept the newest checkpoint from being written; None if it was written.
    """

    def __init__(self) -> None:
        self.failure: OSError | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any | None = None
    ) -> None:
        """Writes, or notes why it is impossible."""
        try:
            content = io.BytesIO()  # torch hides why a file cannot be written
            torch.save(checkpoint, content)
            with writing(Path(path)) as temporary:
                _write(temporary, content.getbuffer())
            self.failure = None
        except OSError as error:
            if self.failure is None:
                tqdm.write(
                    f"lightning-cells: {path} could not be written ({error.strerror}): the training goes on, and one "
                    "that is continued starts from the checkpoint before",
                    file=sys.stderr,
                )
            self.failure = OSError(error.errno, error.strerror, str(path))


def _write(path: Path, content: memoryview) -> None:
    """Writes a file, which is on disk and not just on its way there when this returns."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


_BOOKS = ("best_k_models", "kth_best_model_path", "kth_value", "best_model_path", "best_model_score", "current_score")


class Checkpoints(ModelCheckpoint):
    """Keeps ``best.ckpt`` and ``last.ckpt`` of a run under ``outputs/checkpoints/<run id>``, after each epoch.

    The folder is always set and the same on all processes: with Lightning's own default only rank zero knows it, and a
    resumed distributed training goes apart. Each file is whole at any time, and a full disk does not end the training.

    A training that goes on from ``last.ckpt`` ends with the same weights as an unbroken one: on one CPU bit by bit, on
    GPUs up to the order of their sums, also from the middle of an epoch. Only the means that are logged for that epoch,
    such as ``train/loss_epoch``, then cover its remaining steps.

    Args:
        folder: the folder; None takes the run's own.
        monitor: the measure that decides which is best.
        mode: whether more or less of it is better.
        every_n_batches: also writes ``last.ckpt`` within epochs; 0 does not. What is lost when the process is killed is
            at most what came after it.

    Raises:
        InputError: if `every_n_batches` is negative.
    """

    def __init__(
        self,
        folder: str | None = None,
        monitor: str = "val/SEG",
        mode: Literal["min", "max"] = "max",
        every_n_batches: int = 0,
    ) -> None:
        if every_n_batches < 0:
            raise InputError(f"checkpoint.every_n_batches={every_n_batches}: must be 0 or more")
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor=monitor,
            mode=mode,
            save_last=True,
            enable_version_counter=False,
        )
        self.every_n_batches = every_n_batches

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Settles the folder before the base class tells it to all processes, and how files are written."""
        if self.dirpath is None:
            run = trainer.logger.run_id if isinstance(trainer.logger, RunLogger) and stage == "fit" else None
            self.dirpath = str(output_dir() / "checkpoints" / (run or "unlogged"))
        if stage == "fit":
            if not trainer.datamodule.sequences["val"]:  # type: ignore[attr-defined]
                self.monitor = None  # nothing to compare by: the newest is the best
            if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
                trainer.strategy.checkpoint_io = AtomicCheckpointIO()
            # With `max_steps` Lightning takes up a finished epoch as if it were unfinished, and counts it twice.
            trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and trainer.is_global_zero:
            for left in Path(str(self.dirpath)).glob(f".*{self.FILE_EXTENSION}.*.tmp"):  # of a killed process
                left.unlink(missing_ok=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes ``last.ckpt`` if it is time; where a validation or the end of the epoch follows, they do."""
        due = self.every_n_batches and (trainer.fit_loop.total_batch_idx + 1) % self.every_n_batches == 0
        validated = trainer.val_check_batch and (batch_idx + 1) % trainer.val_check_batch == 0
        if due and not validated and not trainer.is_last_batch and between_steps(trainer):
            self.save_last_now(trainer)

    def save_last_now(self, trainer: Trainer) -> None:
        """Writes ``last.ckpt``; to be called on all processes, between two steps."""
        self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes both; the base class leaves ``last.ckpt`` as it was after an epoch that is not the best."""
        super().on_train_epoch_end(trainer, pl_module)
        if not self._should_skip_saving_checkpoint(trainer):
            self.save_last_now(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes both after validations within epochs."""
        super().on_validation_end(trainer, pl_module)
        if not self._should_save_on_train_epoch_end(trainer) and not self._should_skip_saving_checkpoint(trainer):
            self.save_last_now(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sees to it that ``last.ckpt`` is there; the base class would write it in ``fast_dev_run``, too.

        Raises:
            OSError: if the result of the training cannot be written.
        """
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        super().on_train_end(trainer, pl_module)
        if self._failed(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
            if self._failed(trainer):
                failure = getattr(trainer.strategy.checkpoint_io, "failure", None)
                raise failure or OSError(errno.EIO, "could not be written by process zero", self.last_model_path)

    def _save_topk_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        """As the base class; a best checkpoint that could not be written does not count as the best."""
        books = {name: getattr(self, name) for name in _BOOKS if hasattr(self, name)}
        books["best_k_models"] = dict(self.best_k_models)
        super()._save_topk_checkpoint(trainer, monitor_candidates)
        if self._failed(trainer):
            vars(self).update(books)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As the base class, which forgets what was the best where the folder of the run was moved."""
        before, here = str(state_dict.get("dirpath")), str(self.dirpath)
        if before != here and Path(before).name == Path(here).name:

            def moved(path: Any) -> Any:
                return str(Path(here, Path(path).name)) if path and isinstance(path, str) else path

            paths = ("best_model_path", "last_model_path", "kth_best_model_path")
            state_dict = state_dict | {name: moved(state_dict.get(name, "")) for name in paths} | {"dirpath": here}
            state_dict["best_k_models"] = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict)

    def _failed(self, trainer: Trainer) -> bool:
        """Whether the newest checkpoint could not be written, on any process."""
        failure = getattr(trainer.strategy.checkpoint_io, "failure", None)
        return trainer.strategy.reduce_boolean_decision(failure is not None, all=False)

    @property
    def best(self) -> Path:
        """The best checkpoint so far."""
        return Path(self.best_model_path)


def between_steps(trainer: Trainer) -> bool:
    """Whether no gradients are being accumulated, which a checkpoint would not hold."""
    return not trainer.fit_loop._should_accumulate()
