"""Trainings that belong together: each is a run of its own, below one that they share."""

import csv
import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Literal, NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from lightning_cells.errors import InputError
from lightning_cells.paths import output_dir

Launch = Callable[[Sequence[str]], int]
Weights = Literal["last", "best"]

CHILD = "child"
"""Tag of a run below another one: its name among them."""
_STAGE = "test/"
_END_S = 60  # that a process may take to end by itself


class Measured(NamedTuple):
    """A training that has been tested.

    Attributes:
        run_id: its run.
        measures: by name, without ``test/``; those that could be computed.
        new: whether it was trained just now.
    """

    run_id: str
    measures: dict[str, float]
    new: bool


def command(words: Sequence[str]) -> int:
    """Runs a command of this package in a process of its own, and returns its exit status.

    So each training starts afresh, with all memory and any number of processes of its own. It ends when this process
    is told to: what is typed at the terminal reaches both, and a signal to this one is passed on.
    """
    process = subprocess.Popen([sys.executable, "-m", "lightning_cells", *words])

    def pass_on(number: int, frame: FrameType | None) -> None:
        process.terminate()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class ChildRuns:
    """Trains and tests below a common run, and finds what has been done there before.

    Args:
        client: of the store.
        parent: the common run.
        launch: runs a command.
    """

    def __init__(self, client: MlflowClient, parent: Run, launch: Launch = command) -> None:
        self._client = client
        self._parent = parent
        self._launch = launch

    def finished(self, child: str) -> Measured | None:
        """Returns the measures of a child that was trained and tested before."""
        for run in self._runs(child):
            measures = _tested(run)
            if run.info.status == "FINISHED" and measures:
                return Measured(run.info.run_id, measures, new=False)
        return None

    def run(self, child: str, words: Sequence[str], weights: Weights = "best", name: str | None = None) -> Measured:
        """Trains and tests, unless it has been done before; the test's measures become part of the training's run.

        Args:
            child: tells it from the others.
            words: options of ``fit``, without the verb; ``test`` gets the same.
            weights: which checkpoint is tested.
            name: of the run; None takes `child`.

        Raises:
            InputError: if one of the two ended with an error, which it has told itself.
        """
        known = self.finished(child)
        if known is not None:
            return known
        self._give_up(child)
        tags = {MLFLOW_PARENT_RUN_ID: self._parent.info.run_id, CHILD: child}
        experiment = self._client.get_experiment(self._parent.info.experiment_id).name
        logger = {
            "experiment_name": experiment,
            "run_name": name or child,
            "uri": self._client.tracking_uri,
            "tags": tags,
        }
        # after the user's own words, so that they win
        own = [_logger("lightning_cells.loggers.mlflow.RunLogger", logger), "--checkpoint.folder=null"]
        here = f"--output_dir={output_dir()}"
        status = self._launch(["fit", *words, *own, here])
        runs = self._runs(child)
        if status or not runs or runs[0].info.status != "FINISHED":
            self._give_up(child)
            raise InputError(f"{child}: the training failed (status {status}), see above: mend it, and run this again")
        run_id = runs[0].info.run_id
        checkpoint = output_dir() / "checkpoints" / run_id / f"{weights}.ckpt"
        with tempfile.TemporaryDirectory() as folder:
            plain = {"save_dir": folder, "name": "", "version": ""}
            own = [_logger("lightning.pytorch.loggers.CSVLogger", plain), f"--ckpt_path={checkpoint}"]
            status = self._launch(["test", *words, *own, here])
            measures = {} if status else _read(Path(folder) / "metrics.csv")
        if not measures:
            raise InputError(f"{child}: the test failed (status {status}), see above: mend it, and run this again")
        now = time.time_ns() // 1_000_000
        metrics = [Metric(_STAGE + key, value, now, 0) for key, value in measures.items()]
        self._client.log_batch(run_id, metrics=metrics)
        return Measured(run_id, measures, new=True)

    def _runs(self, child: str) -> list[Run]:
        """The runs of a child, newest first; after failures there are several."""
        chosen = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self._parent.info.run_id}' and tags.`{CHILD}` = '{child}'"
        found = self._client.search_runs(
            [self._parent.info.experiment_id], chosen, order_by=["attributes.start_time DESC"]
        )
        return list(found)

    def _give_up(self, child: str) -> None:
        """Ends runs of which the process was killed, and which would look as if they went on."""
        for run in self._runs(child):
            if run.info.status in ("RUNNING", "SCHEDULED"):
                self._client.set_terminated(run.info.run_id, "KILLED")


def _logger(class_path: str, arguments: dict) -> str:
    return "--trainer.logger=" + json.dumps({"class_path": class_path, "init_args": arguments})


def _tested(run: Run) -> dict[str, float]:
    return {key.removeprefix(_STAGE): value for key, value in run.data.metrics.items() if key.startswith(_STAGE)}


def _read(path: Path) -> dict[str, float]:
    """The measures of a test from the table that Lightning writes."""
    measures: dict[str, float] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            found = {key.removeprefix(_STAGE): float(row[key]) for key in row if key.startswith(_STAGE) and row[key]}
            measures |= {key: value for key, value in found.items() if math.isfinite(value)}
    return measures
