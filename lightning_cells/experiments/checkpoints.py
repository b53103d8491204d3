"""Where and when checkpoints are written."""

from pathlib import Path
from typing import Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_cells.experiments.mlflow import RunLogger
from lightning_cells.paths import output_dir


class Checkpoints(ModelCheckpoint):
    """Keeps ``best.ckpt`` and ``last.ckpt`` of a run under ``outputs/checkpoints/<run id>``.

    The folder is always set and the same on all processes: with Lightning's own default only rank zero knows it, and a
    resumed distributed training goes apart.

    Args:
        folder: the folder; None takes the run's own.
        monitor: the measure that decides which is best.
        mode: whether more or less of it is better.
    """

    def __init__(
        self,
        folder: str | None = None,
        monitor: str = "val/SEG",
        mode: Literal["min", "max"] = "max",
    ) -> None:
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor=monitor,
            mode=mode,
            save_last=True,
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Settles the folder before the base class tells it to all processes."""
        if self.dirpath is None:
            run = trainer.logger.run_id if isinstance(trainer.logger, RunLogger) and stage == "fit" else None
            self.dirpath = str(output_dir() / "checkpoints" / (run or "unlogged"))
        if stage == "fit" and not trainer.datamodule.sequences["val"]:  # type: ignore[attr-defined]
            self.monitor = None  # nothing to compare by: the newest is the best
        super().setup(trainer, pl_module, stage)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sees to it that ``last.ckpt`` is there; the base class would write it in ``fast_dev_run``, too."""
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            super().on_train_end(trainer, pl_module)

    @property
    def best(self) -> Path:
        """The best checkpoint so far."""
        return Path(self.best_model_path)
