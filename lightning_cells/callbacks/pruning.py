"""Tells another process how a training goes, and ends the training when that process says so."""

from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_cells.callbacks.checkpoint import Checkpoints
from lightning_cells.loggers.mlflow import RunLogger

Tell = Callable[[Mapping[str, Any]], bool]
"""Tells something; returns whether the training is to end."""


class Pruning(Callback):
    """Tells the beginning of a training and the measures of each validation, and ends a training that is hopeless.

    Messages have ``run``, ``checkpoints`` (a folder), ``step`` (how many validations there were before, -1 at the
    beginning), and ``measures``. Process zero asks, all processes do what it was told.

    Args:
        tell: told each message; None on the other processes of a distributed training.

    Attributes:
        stopped: whether the training was ended.
        logged: the last value of all that was logged.
    """

    def __init__(self, tell: Tell | None) -> None:
        self._tell = tell
        self._step = -1
        self.stopped = False
        self.logged: dict[str, float] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells which run this is."""
        self._ask(trainer, {})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells the measures."""
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._ask(trainer, _measures(trainer))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the last values."""
        self.logged = _measures(trainer)

    def _ask(self, trainer: Trainer, measures: dict[str, float]) -> None:
        stop: Any = False
        if self._tell is not None:
            checkpoint = trainer.checkpoint_callback
            stop = self._tell(
                {
                    "run": str(trainer.logger.run_id) if isinstance(trainer.logger, RunLogger) else "",
                    "checkpoints": checkpoint.dirpath if isinstance(checkpoint, Checkpoints) else None,
                    "step": self._step,
                    "measures": measures,
                }
            )
        self._step += 1
        if trainer.strategy.broadcast(stop, src=0):
            self.stopped = True
            trainer.should_stop = True
            if isinstance(trainer.logger, RunLogger):
                trainer.logger.ending = "KILLED"


def _measures(trainer: Trainer) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items()}
