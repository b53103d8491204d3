"""A study in MLflow: a parent run, and one run for each trial, in its true state."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME
from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from lightning_cells.errors import InputError, first_line
from lightning_cells.experiments.tuning.storage import Storage
from lightning_cells.experiments.tuning.study import REASON
from lightning_cells.experiments.tuning.study_file import Chosen, StudyFile
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


class StudyRecord:
    """Writes a study's runs.

    Once there is a parent run, an MLflow store that is away holds nothing up: it is said once, and what cannot be
    written is left out.

    Args:
        plan: the sweep.
        study: the study.
        storage: where the study is kept.

    Raises:
        InputError: if the store does not have the run that other workers of this study have begun.

    Attributes:
        parent: id of the parent run.
    """

    def __init__(self, plan: StudyFile, study: Study, storage: Storage) -> None:
        self._plan = plan
        self._study = study
        self._away_until = 0.0
        uri = tracking_uri()
        self._client = open_store(uri)
        with storage.alone(plan.study):
            known = study.user_attrs.get(PARENT)
            try:
                self._experiment = open_experiment(self._client, EXPERIMENT).experiment_id
                if known is None:
                    known = self._begin(storage.shown)
                    study.set_user_attr(PARENT, known)
                self._client.update_run(known, status="RUNNING")
            except (MlflowException, OSError) as error:
                if known is None:
                    raise InputError(f"MLFLOW_TRACKING_URI {uri}: does not take runs: {first_line(error)}") from error
                raise InputError(
                    f"study '{plan.study}' has its runs in another store than {uri}: set MLFLOW_TRACKING_URI as where "
                    f"it began, or give {plan.path} another 'study'"
                ) from error
        self.parent: str = known

    def _begin(self, place: str) -> str:
        tags = {
            MLFLOW_RUN_NAME: f"sweep {self._plan.study}",
            "sweep.study": self._plan.study,
            "sweep.kind": "clustering" if self._plan.clustering else "training",
            "optuna.storage": place,
        }
        run = self._client.create_run(self._experiment, tags=tags).info.run_id
        plan = self._plan
        parameters = {
            "objective": ", ".join(f"{direction} {name}" for name, direction in plan.objectives.items()),
            "sampler": plan.sampler.class_path,
            "pruner": "none" if plan.pruner is None else plan.pruner.class_path,
            "configs": ", ".join(plan.configs),
            **{f"space.{path}": str(part["parts"]) for path, part in plan.space.describe().items()},
            **plan.settings,
        }
        self._client.log_batch(run, params=[Param(key, str(value)[:6000]) for key, value in parameters.items()])
        self._client.log_artifact(run, str(plan.path))
        return run

    def labels(self, number: int) -> tuple[str, dict[str, str]]:
        """Name and tags of the run of a trial."""
        tags = {MLFLOW_PARENT_RUN_ID: self.parent, "sweep.study": self._plan.study, _TRIAL: str(number)}
        return f"{self._plan.study} {number}", tags

    def find(self, number: int) -> str | None:
        """Id of the run that the process of a trial has begun, if it has."""
        chosen = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self.parent}' and tags.`{_TRIAL}` = '{number}'"
        runs = self._tried(lambda: self._client.search_runs([self._experiment], chosen))
        return runs[0].info.run_id if runs else None

    def begin(self, number: int, chosen: Chosen) -> str | None:
        """Begins the run of a trial that does not log by itself; returns its id."""

        def begin() -> str:
            name, tags = self.labels(number)
            run = self._client.create_run(self._experiment, tags=tags, run_name=name).info.run_id
            parameters = [Param(key, str(value)[:6000]) for key, value in chosen.items()]
            if self._plan.checkpoint is not None:
                parameters.append(Param("ckpt_path", str(self._plan.checkpoint)))
            self._client.log_batch(run, params=parameters)
            return run

        return self._tried(begin)

    def log(self, run: str | None, reports: list[dict[str, float]]) -> None:
        """Logs the measures that a trial reported, step by step."""
        now = time.time_ns() // 1_000_000
        metrics = [
            Metric(name, value, now, step)
            for step, measures in enumerate(reports)
            for name, value in measures.items()
            if value == value
        ]
        if run is not None and metrics:
            for first in range(0, len(metrics), _MOST):
                self._tried(lambda part=metrics[first : first + _MOST]: self._client.log_batch(run, part))  # type: ignore[misc]

    def end(self, run: str | None, state: str, reason: str = "", log: Path | None = None) -> None:
        """Ends the run of a trial in its true state."""
        if run is None:
            return

        def end() -> None:
            tags = [RunTag(_STATE, state)]
            if reason:
                tags.append(RunTag("optuna.reason", reason[:5000]))
            self._client.log_batch(run, tags=tags)
            if log is not None and log.is_file():
                self._client.log_artifact(run, str(log))
            self._client.set_terminated(run, STATES[state])

        self._tried(end)

    def settle(self, trials: list[FrozenTrial]) -> None:
        """Gives each ended trial its run in its true state, where a worker died before it could."""
        chosen = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self.parent}'"
        pages = self._tried(lambda: list(self._pages(chosen)))
        if pages is None:
            return
        runs = {int(run.data.tags[_TRIAL]): run for run in pages if _TRIAL in run.data.tags}
        for trial in trials:
            run = runs.get(trial.number)
            reason = trial.user_attrs.get(REASON, "")
            state = trial.state.name if trial.state != TrialState.FAIL or reason else "LOST"
            known = state if run is None else run.data.tags.get(_STATE, state)
            if run is None:
                self.end(self.begin(trial.number, self._plan.space.chosen(trial.params)), state, reason)
            elif run.info.status != STATES[known]:
                self.end(run.info.run_id, known, reason)

    def _pages(self, chosen: str) -> Iterator[Run]:
        token = None
        while True:
            page = self._client.search_runs([self._experiment], chosen, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def best(self, step: int, values: dict[str, float]) -> None:
        """Logs the best values so far, which make a curve of the study."""
        now = time.time_ns() // 1_000_000
        metrics = [Metric(f"best/{name}", value, now, step) for name, value in values.items()]
        self._tried(lambda: self._client.log_batch(self.parent, metrics=metrics))

    def artifacts(self, paths: list[Path]) -> None:
        """Adds files to the parent run."""
        for path in paths:
            self._tried(lambda path=path: self._client.log_artifact(self.parent, str(path)))  # type: ignore[misc]

    def close(self, status: str, tags: dict[str, Any] | None = None) -> None:
        """Ends the parent run."""
        entries = [RunTag(key, str(value)) for key, value in (tags or {}).items()]
        self._tried(lambda: self._client.log_batch(self.parent, tags=entries))
        self._tried(lambda: self._client.set_terminated(self.parent, status))

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
