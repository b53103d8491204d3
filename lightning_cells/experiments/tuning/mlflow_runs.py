"""A study in MLflow: a parent run, and one run for each trial, in its true state."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from lightning_cells.errors import InputError, first_line
from lightning_cells.experiments.runner import ParentRun
from lightning_cells.experiments.tuning.space import Chosen
from lightning_cells.experiments.tuning.storage import Storage
from lightning_cells.experiments.tuning.study import REASON
from lightning_cells.experiments.tuning.study_file import StudyFile
from lightning_cells.loggers.mlflow import EXPERIMENT
from lightning_cells.loggers.store import open_experiment, open_store, tracking_uri

PARENT = "mlflow_parent_run"
"""Attribute of the study: its run."""
STATES = {
    "COMPLETE": "FINISHED",
    "PRUNED": "KILLED",
    "FAIL": "FAILED",
    "INTERRUPTED": "KILLED",
    "LOST": "FAILED",
}
"""What became of a trial, the tag ``optuna.state`` of its run -> the status of that run."""
_TRIAL, _STATE = "optuna.trial", "optuna.state"
_MOST = 900  # metrics at a time
_REST_S = 60.0  # without MLflow after it did not answer: waiting for it must not look like death
_T = TypeVar("_T")


class StudyRuns:
    """Writes a study's runs.

    Once there is a parent run, an MLflow store that is away holds nothing up: it is said once, and what cannot be
    written is left out.

    Args:
        plan: the sweep.
        study: the study.
        storage: where the study is kept.
        logs: folder for what the trials' processes print.

    Raises:
        InputError: if the store does not have the run that other workers of this study have begun.

    Attributes:
        parent: the run that those of the trials belong to.
    """

    def __init__(self, plan: StudyFile, study: Study, storage: Storage, logs: Path) -> None:
        self._plan = plan
        self._away_until = 0.0
        uri = tracking_uri()
        self._client = client = open_store(uri)
        with storage.alone(plan.study):
            known = study.user_attrs.get(PARENT)
            try:
                self._experiment = open_experiment(client, EXPERIMENT).experiment_id
                self.parent = ParentRun(client, known or self._begin_study(storage.shown), logs)
                if known is None:
                    study.set_user_attr(PARENT, self.parent.run_id)
                client.update_run(self.parent.run_id, status="RUNNING")
            except (MlflowException, OSError) as error:
                if known is None:
                    raise InputError(f"MLFLOW_TRACKING_URI {uri}: does not take runs: {first_line(error)}") from error
                raise InputError(
                    f"study '{plan.study}' has its runs in another store than {uri}: set MLFLOW_TRACKING_URI as where "
                    f"it began, or give {plan.path} another 'study'"
                ) from error

    def _begin_study(self, place: str) -> str:
        plan = self._plan
        tags = {
            "sweep.study": plan.study,
            "sweep.kind": "clustering" if plan.clustering else "training",
            "optuna.storage": place,
        }
        parameters = {
            "objective": ", ".join(f"{direction} {name}" for name, direction in plan.objectives.items()),
            "sampler": plan.sampler.class_path,
            "pruner": "none" if plan.pruner is None else plan.pruner.class_path,
            "configs": ", ".join(plan.configs),
            **{f"space.{path}": part["parts"] for path, part in plan.space.describe().items()},
            **plan.settings,
        }
        run = self._create(f"sweep {plan.study}", tags, parameters)
        self._client.log_artifact(run, str(plan.path))
        return run

    def _create(self, name: str, tags: dict[str, str], parameters: Mapping[str, Any]) -> str:
        run = self._client.create_run(self._experiment, tags=tags, run_name=name).info.run_id
        self._client.log_batch(run, params=[Param(key, str(value)[:6000]) for key, value in parameters.items()])
        return run

    def labels(self, number: int) -> tuple[str, dict[str, str]]:
        """Name and tags of the run of a trial."""
        tags = {MLFLOW_PARENT_RUN_ID: self.parent.run_id, "sweep.study": self._plan.study, _TRIAL: str(number)}
        return f"{self._plan.study} {number}", tags

    def find(self, number: int) -> str | None:
        """Id of the run that the process of a trial has begun, if it has."""
        found = self._tried(lambda: self.parent.runs({MLFLOW_PARENT_RUN_ID: self.parent.run_id, _TRIAL: str(number)}))
        return found[0].info.run_id if found else None

    def begin(self, number: int, chosen: Chosen) -> str | None:
        """Begins the run of a trial that does not log by itself; returns its id."""
        checkpoint = {} if self._plan.checkpoint is None else {"ckpt_path": self._plan.checkpoint}
        return self._tried(lambda: self._create(*self.labels(number), chosen | checkpoint))

    def log(self, run: str | None, reports: Sequence[Mapping[str, float]]) -> None:
        """Logs the measures that a trial reported, step by step; those that are not a number (NaN) are left out."""
        if run is None:
            return
        now = time.time_ns() // 1_000_000
        metrics = [
            Metric(name, value, now, step)
            for step, measures in enumerate(reports)
            for name, value in measures.items()
            if value == value
        ]
        for first in range(0, len(metrics), _MOST):
            self._tried(partial(self._client.log_batch, run, metrics[first : first + _MOST]))

    def end(self, run: str | None, state: str, reason: str = "", log: Path | None = None) -> None:
        """Ends the run of a trial in its true state, with what its process printed."""
        if run is None:
            return

        def end() -> None:
            tags = {_STATE: state} | ({"optuna.reason": reason[:5000]} if reason else {})
            self._client.log_batch(run, tags=[RunTag(*tag) for tag in tags.items()])
            if log is not None and log.is_file():
                self._client.log_artifact(run, str(log))
            self._client.set_terminated(run, STATES[state])

        self._tried(end)

    def settle(self, trials: list[FrozenTrial]) -> None:
        """Gives each ended trial its run in its true state, where a worker died before it could."""
        found = self._tried(lambda: self.parent.runs({MLFLOW_PARENT_RUN_ID: self.parent.run_id}))
        if found is None:
            return
        runs = {int(run.data.tags[_TRIAL]): run for run in found if _TRIAL in run.data.tags}
        for trial in trials:
            run = runs.get(trial.number)
            reason = trial.user_attrs.get(REASON, "")
            state = trial.state.name if trial.state != TrialState.FAIL or reason else "LOST"
            known = state if run is None else run.data.tags.get(_STATE, state)
            if run is None:
                self.end(self.begin(trial.number, self._plan.space.chosen(trial.params)), state, reason)
            elif run.info.status != STATES[known]:
                self.end(run.info.run_id, known, reason)

    def best(self, step: int, values: dict[str, float]) -> None:
        """Logs the best values so far, which make a curve of the study."""
        now = time.time_ns() // 1_000_000
        metrics = [Metric(f"best/{name}", value, now, step) for name, value in values.items()]
        self._tried(lambda: self._client.log_batch(self.parent.run_id, metrics=metrics))

    def artifacts(self, paths: list[Path]) -> None:
        """Adds files to the parent run."""
        for path in paths:
            self._tried(partial(self._client.log_artifact, self.parent.run_id, str(path)))

    def close(self, status: str, tags: dict[str, str]) -> None:
        """Ends the parent run."""
        entries = [RunTag(*tag) for tag in tags.items()]
        self._tried(lambda: self._client.log_batch(self.parent.run_id, tags=entries))
        self._tried(lambda: self._client.set_terminated(self.parent.run_id, status))

    def _tried(self, write: Callable[[], _T]) -> _T | None:
        if time.monotonic() < self._away_until:
            return None
        try:
            return write()
        except (MlflowException, OSError) as error:
            if not self._away_until:
                print(f"lightning-cells: not all is written to MLflow: {first_line(error)}", file=sys.stderr)
            self._away_until = time.monotonic() + _REST_S
            return None
