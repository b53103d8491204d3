"""Tells a worker how the training of a trial goes, and ends the training when the worker says so."""

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_cells.callbacks.checkpoint import Checkpoints
from lightning_cells.experiments.tuning.link import WorkerLink
from lightning_cells.experiments.tuning.mistakes import never_logged
from lightning_cells.experiments.tuning.study_file import Direction
from lightning_cells.loggers.mlflow import RunLogger


class Reporter(Callback):
    """Reports the measures of each validation; the worker answers whether the trial is hopeless.

    Process zero asks, all processes are told the same answer. The objectives' values are those of the validation that
    was best by the first of them, which is also the one that ``best.ckpt`` is of.

    Args:
        objectives: measures and directions.
        link: to the worker; None on the other processes of a trial.

    Attributes:
        best: all measures of the best validation; empty if the first objective was never a number.
        pruned: whether the worker ended the trial.
    """

    def __init__(self, objectives: dict[str, Direction], link: WorkerLink | None) -> None:
        self._objectives = objectives
        self._link = link
        self._validations = 0
        self._seen: set[str] = set()
        self.best: dict[str, float] = {}
        self.pruned = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells which run this is."""
        if self._link is not None and isinstance(trainer.logger, RunLogger):
            checkpoint = trainer.checkpoint_callback
            folder = checkpoint.dirpath if isinstance(checkpoint, Checkpoints) else None
            self._link.send({"run": trainer.logger.run_id, "checkpoints": folder})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reports."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        measures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self._seen |= measures.keys()
        for name in self._objectives:
            if name.startswith("val/") and name not in measures:
                raise never_logged(name, self._seen)
        self._keep(measures)
        stop: Any = False
        if self._link is not None:
            self._link.send({"report": measures, "step": self._validations})
            stop = self._link.receive()["stop"]
        self._validations += 1
        if trainer.strategy.broadcast(stop, src=0):
            self.pruned = True
            trainer.should_stop = True
            if isinstance(trainer.logger, RunLogger):
                trainer.logger.ending = "KILLED"

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks that there is something to compare trials by."""
        self._seen |= trainer.callback_metrics.keys()
        for name in self._objectives:
            if name not in self._seen:
                raise never_logged(name, self._seen)

    def _keep(self, measures: dict[str, float]) -> None:
        name, direction = next(iter(self._objectives.items()))
        sign = 1 if direction == "maximize" else -1
        value = measures.get(name, math.nan)
        if not math.isnan(value) and (not self.best or sign * value > sign * self.best[name]):
            self.best = measures
