"""What a training takes of the machine: processors, memory, disk, network, GPUs."""

import logging
import threading
from collections.abc import Mapping

import psutil
from lightning.pytorch import Callback, LightningModule, Trainer
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from lightning_cells.errors import InputError
from lightning_cells.loggers.mlflow import RunLogger

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
