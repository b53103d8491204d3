"""The runs of tables in MLflow: a parent for each table, and a run for each job, found again by what makes it."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from lightning_cells.experiments.papers.code import code_version
from lightning_cells.experiments.papers.plan import Job
from lightning_cells.experiments.runner import CHILD, digest
from lightning_cells.loggers.mlflow import EXPERIMENT
from lightning_cells.loggers.store import open_experiment, open_store, tracking_uri
from lightning_cells.paths import output_dir

IDENTITY, CODE, RESULT = "reproduce.identity", "reproduce.code", "reproduce.result"
"""Tags of a job's run: what makes its result, by which code, and the measures of each column as JSON."""
_TABLE, _SCALE, _OVERRIDES = "reproduce.table", "reproduce.scale", "reproduce.overrides"
_CALL = "reproduce.call"  # digest of these three

Measures = dict[str, dict[str, float]]
"""Column -> measure -> value."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: the job.
        run: id of its run; empty if it never began one.
        measures: of each column; empty if it failed.
        error: why it failed, in one line; empty if it did not.
    """

    job: Job
    run: str
    measures: Measures = field(default_factory=dict)
    error: str = ""


class TableRuns:
    """The runs of one table.

    Args:
        name: of the table.
        scale: how it is run.
        overrides: options from the command line.

    Attributes:
        parent: id of the parent run.
    """

    def __init__(self, name: str, scale: str, overrides: dict[str, Any]) -> None:
        self._client: MlflowClient = open_store(tracking_uri())
        self._place = open_experiment(self._client, EXPERIMENT).experiment_id
        tags = {_TABLE: name, _SCALE: scale, _OVERRIDES: json.dumps(overrides, sort_keys=True)}
        tags[_CALL] = digest(tags)
        found = self._client.search_runs([self._place], f"tags.`{_CALL}` = '{tags[_CALL]}'", max_results=1)
        if found:
            self.parent: str = found[0].info.run_id
            self._client.update_run(self.parent, status="RUNNING")
        else:
            run = self._client.create_run(self._place, tags=tags, run_name=f"reproduce {name} {scale}")
            self.parent = run.info.run_id

    def finished(self, identity: str) -> tuple[str, Measures] | None:
        """Run and measures of what ran before with the same identity and code, for whichever table."""
        for run in self._with(identity, f" and tags.`{CODE}` = '{code_version()}'"):
            if RESULT in run.data.tags:
                return run.info.run_id, json.loads(run.data.tags[RESULT])
        return None

    def outdated(self, identity: str) -> str | None:
        """The newest code by which the same ran before."""
        for run in self._with(identity, ""):
            if RESULT in run.data.tags and run.data.tags[CODE] != code_version():
                return run.data.tags[CODE]
        return None

    def _with(self, identity: str, further: str) -> list[Run]:
        chosen = f"tags.`{IDENTITY}` = '{identity}'{further}"
        return list(self._client.search_runs([self._place], chosen, order_by=["attributes.start_time DESC"]))

    def logger(self, job: Job, identity: str) -> dict[str, Any]:
        """Arguments of the logger of a job's run."""
        return {
            "experiment_name": EXPERIMENT,
            "run_name": job.name,
            "uri": self._client.tracking_uri,
            "tags": {MLFLOW_PARENT_RUN_ID: self.parent, CHILD: job.name, IDENTITY: identity, CODE: code_version()},
        }

    def failed(self, job: Job) -> str:
        """Ends the run of a job that failed or was killed, if it had begun one; returns its id."""
        chosen = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self.parent}'"
        children = self._client.search_runs([self._place], chosen, order_by=["attributes.start_time DESC"])
        runs = [run for run in children if run.data.tags.get(CHILD) == job.name]
        for run in runs:
            if run.info.status in ("RUNNING", "SCHEDULED"):
                self._client.set_terminated(run.info.run_id, "KILLED")
        return runs[0].info.run_id if runs and RESULT not in runs[0].data.tags else ""

    def end(self, failures: int, metrics: dict[str, float], files: list[Path]) -> None:
        """Writes the results of the table to the parent run, and ends it."""
        for key, value in metrics.items():
            self._client.log_metric(self.parent, key, value)
        for file in files:
            self._client.log_artifact(self.parent, str(file))
        self._client.set_terminated(self.parent, "FAILED" if failures else "FINISHED")

    def broken_off(self) -> None:
        """Ends the parent run when the table was interrupted."""
        interrupted = isinstance(sys.exception(), KeyboardInterrupt)
        self._client.set_terminated(self.parent, "KILLED" if interrupted else "FAILED")


def checkpoint(run: str, job: Job) -> Path:
    """The weights of a trained job that are measured."""
    return output_dir() / "checkpoints" / run / f"{job.weights}.ckpt"
