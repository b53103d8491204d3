"""A real MLflow server that stops and comes back while a training runs."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from mlflow import MlflowClient
from run_cases import words

from lightning_cells.cli import main
from lightning_cells.cli.training import TrainingCLI
from lightning_cells.loggers import outbox
from lightning_cells.loggers.mlflow import EXPERIMENT

Capture = pytest.CaptureFixture[str]
LIMIT = 180  # seconds for a server to start on a busy machine


class Server:
    """``mlflow server`` on a port of its own, with its own store."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self._folder / 'server.db'}", "--workers", "1"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        with (self._folder / "log.txt").open("a") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + LIMIT
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        pytest.fail((self._folder / "log.txt").read_text()[-2000:])

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Not started yet."""
    server = Server(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    for variable in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(outbox, "_PAUSE_S", (0.1, 0.5))
    yield server
    server.stop()


class Outage(Callback):
    """The server stops before one step, and comes back before another, or never."""

    def __init__(self, server: Server, first: int, last: int | None) -> None:
        self.server = server
        self.first = first
        self.last = last

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.first:
            assert trainer.logger.flush(60)
            self.server.stop()
        elif trainer.global_step == self.last:
            self.server.start()


@pytest.mark.slow
def test_server_that_stops_and_comes_back(
    server: Server, simulated: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    """First within a training, then until after its end: all arrives, in one run each."""
    make = TrainingCLI._instantiate_trainer
    server.start()

    def train(outage: Outage) -> list[str]:
        capfd.readouterr()
        with monkeypatch.context() as patch:
            own = "_instantiate_trainer"
            patch.setattr(TrainingCLI, own, lambda cli, config, others: make(cli, config, [outage, *others]))
            assert main(words(simulated)) == 0
        return [line for line in capfd.readouterr().err.splitlines() if line.startswith("lightning-cells:")]

    said = train(Outage(server, 2, 5))
    assert len(said) == 1
    assert f"{server.uri} does not answer" in said[0]

    monkeypatch.setattr(outbox.Outbox.close, "__defaults__", (1.0,))
    said = train(Outage(server, 3, None))
    assert len(said) == 2
    assert "could not be delivered" in said[1]
    assert f"{home}/runs/" in said[1]
    assert main(["deliver", "--wait", "1"]) == 2
    server.start()
    assert main(["deliver"]) == 0
    assert not list(home.glob("runs/*/outbox"))

    client = MlflowClient(server.uri)
    runs = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 2
    for run in runs:
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "train/loss_step")]
        assert steps == list(range(8)), "none missing, none twice"
        assert len(client.get_metric_history(run.info.run_id, "val/SEG")) == 2
        pictures = [info.path for info in client.list_artifacts(run.info.run_id, "images")]
        assert len([path for path in pictures if path.endswith(".png") and "frame_1+" in path]) == 2
        assert {"config.yaml", "environment.txt"} <= {info.path for info in client.list_artifacts(run.info.run_id)}
    assert not (home / "mlflow.db").exists()


@pytest.mark.slow
def test_server_that_is_away_from_beginning_to_end(
    server: Server, simulated: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox.Outbox.close, "__defaults__", (1.0,))
    assert main(words(simulated, "--trainer.max_epochs", "1")) == 0
    (folder,) = (home / "checkpoints").iterdir()
    assert folder.name.startswith("local-")
    server.start()
    monkeypatch.setattr(outbox.Outbox.close, "__defaults__", (120.0,))
    assert main(["fit", "--resume", folder.name, "--trainer.max_epochs", "2"]) == 0
    client = MlflowClient(server.uri)
    (run,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["lightning_cells.local_id"] == folder.name
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "train/loss_step")]
    assert steps == list(range(8))
    assert main(["fit", "--resume", run.info.run_id]) == 0, "it is found by either name"
