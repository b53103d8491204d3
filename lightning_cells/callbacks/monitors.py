"""How fast a training is, how long it waits for data, and what it takes of the machine."""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

import psutil
from lightning.pytorch import Callback, LightningModule, Trainer
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from lightning_cells.data.clips import ClipLoader
from lightning_cells.errors import InputError
from lightning_cells.loggers.mlflow import RunLogger


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


logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)


class SystemMetrics(Callback):
    """Logs ``system/...`` from beginning to end, as MLflow's own monitor measures it, on the machine of process zero.

    GPUs are measured if ``nvidia-ml-py`` is installed.

    Args:
        interval: seconds between measurements; ``$MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL`` wins. 0 measures nothing.

    Raises:
        InputError: if the interval is negative.
    """

    def __init__(self, interval: float = 10.0) -> None:
        if interval < 0:
            raise InputError(f"system.interval={interval}: must be 0 or more")
        self.interval = interval
        self._monitor: _Monitor | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Starts measuring."""
        if self.interval and trainer.is_global_zero and isinstance(trainer.logger, RunLogger) and self._monitor is None:
            self._monitor = _Monitor(trainer.logger, self.interval)
            self._monitor.start()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stops measuring."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stops measuring."""
        self._stop()

    def _stop(self) -> None:
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None


class _Monitor(SystemMetricsMonitor):
    """MLflow's monitor, which logs through ours: its own gives up when the server does not answer once.

    Steps are seconds since the run began, so that a run that goes on counts on.
    """

    def __init__(self, logger: RunLogger, interval: float) -> None:
        super().__init__(logger.run_id, interval, tracking_uri=logger.uri)
        self._logger = logger
        psutil.cpu_percent()  # the first call begins the interval that the next one is about

    def monitor(self) -> None:
        """Measures until it is told to stop; also then, so that a short run has something to show."""
        stopped = False
        while not stopped:
            self.collect_metrics()
            stopped = self._shutdown_event.wait(self.sampling_interval)
            self.publish_metrics(self.aggregate_metrics())

    def publish_metrics(self, metrics: Mapping[str, float]) -> None:
        """Logs."""
        self._logger.log_metrics({f"system/{name}": value for name, value in metrics.items()}, self._logger.seconds)
        for monitor in self.monitors:
            monitor.clear_metrics()

    def finish(self) -> None:
        """Stops measuring."""
        self._shutdown_event.set()
        if isinstance(self._process, threading.Thread):
            self._process.join(timeout=5)
