"""How fast a training is, and how long it waits for data."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_cells.data.clips import ClipLoader


class Throughput(Callback):
    """Logs ``speed/frames_per_second`` of all processes, and ``speed/data_wait``, for each epoch of training.

    The first counts the frames of training clips and the time between steps, without validation. The second is the
    share of that time, from 0 to 1, that process zero waited for its next batch; with ``data.num_workers=0`` it
    prepares the batch in that time.
    """

    def __init__(self) -> None:
        self._frames = 0
        self._elapsed = 0.0
        self._waited = 0.0
        self._mark = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._frames, self._elapsed, self._waited = 0, 0.0, _waited(trainer)
        self._mark = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts."""
        self._frames += batch.frames.shape[0] * batch.frames.shape[1]
        now = time.perf_counter()
        self._elapsed += now - self._mark
        self._mark = now

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves out the validation."""
        self._mark = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs."""
        if not self._elapsed:
            return
        measured = {
            "speed/frames_per_second": self._frames * trainer.world_size / self._elapsed,
            "speed/data_wait": min(1.0, (_waited(trainer) - self._waited) / self._elapsed),
        }
        pl_module.log_dict(measured, rank_zero_only=True)


def _waited(trainer: Trainer) -> float:
    loader = trainer.train_dataloader
    return loader.waited if isinstance(loader, ClipLoader) else 0.0
