"""An MLflow client whose writes go through an outbox, and what carries them out."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import requests
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from lightning_cells.errors import without_passwords
from lightning_cells.loggers.outbox import Letter, Outbox, Refused
from lightning_cells.loggers.run_folder import RunFolder
from lightning_cells.loggers.store import open_experiment

LOCAL_ID = "lightning_cells.local_id"
"""Tag of a run that began while the server was away: the name under which this machine knows it."""
MERGED = "log_batch"
"""The call of which several can be carried out as one."""
_REFUSALS = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "NOT_IMPLEMENTED",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
}
_WORTH_TRYING_AGAIN = (401, 403, 404, 408, 425, 429)  # of the HTTP statuses that blame the request
_MOST = {"metrics": 1000, "params": 100, "tags": 100}  # that MLflow takes at once


class QueuedClient(MlflowClient):
    """MLflow's client of a run: what is logged is delivered in the background, what is asked is answered at once.

    Logging of metrics, parameters, tags, artifacts of all kinds, tables and inputs never fails and never waits for the
    store. Time stamps never go back, whatever the system's clock does. All other calls are those of the base class.

    Args:
        uri: address of the store.
        outbox: takes what is logged.
        since: when the run began, in milliseconds since 1970; no time stamp goes below.
    """

    def __init__(self, uri: str, outbox: Outbox, since: int = 0) -> None:
        super().__init__(uri)
        self.since = since
        self._outbox = outbox
        self._latest = since

    def now(self) -> int:
        """Milliseconds since 1970, never less than before."""
        self._latest = max(self._latest, time.time_ns() // 1_000_000)
        return self._latest

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
        synchronous: bool | None = None,
    ) -> None:
        """Logs several things at once."""
        self._latest = max([self._latest, *(metric.timestamp for metric in metrics)])
        content = {
            "metrics": [(metric.key, float(metric.value), self._latest, metric.step) for metric in metrics],
            "params": [(param.key, str(param.value)) for param in params],
            "tags": [(tag.key, str(tag.value)) for tag in tags],
        }
        self._outbox.put(MERGED, content)

    def log_metric(  # type: ignore[override]
        self, run_id: str, key: str, value: float, timestamp: int | None = None, step: int | None = None, **other: Any
    ) -> None:
        """Logs a number."""
        self.log_batch(run_id, metrics=[Metric(key, value, timestamp or self.now(), step or 0)])

    def log_param(self, run_id: str, key: str, value: Any, synchronous: bool | None = None) -> Any:
        """Logs a parameter."""
        self.log_batch(run_id, params=[Param(key, value)])
        return value

    def set_tag(self, run_id: str, key: str, value: Any, synchronous: bool | None = None) -> None:
        """Sets a tag."""
        self.log_batch(run_id, tags=[RunTag(key, value)])

    def log_artifact(self, run_id: str, local_path: str | Path, artifact_path: str | None = None) -> None:
        """Logs a file; those of `log_image`, `log_text`, `log_dict` and `log_figure` come here, too."""
        self._outbox.put("log_artifact", {"path": artifact_path}, Path(local_path))

    def log_artifacts(self, run_id: str, local_dir: str | Path, artifact_path: str | None = None) -> None:
        """Logs the files of a folder."""
        for path in sorted(Path(local_dir).rglob("*")):
            if path.is_file():
                parent = PurePosixPath(artifact_path or "") / path.parent.relative_to(local_dir).as_posix()
                self.log_artifact(run_id, path, None if str(parent) == "." else str(parent))

    def log_table(self, run_id: str, data: dict[str, Any] | pd.DataFrame, artifact_file: str) -> None:
        """Logs a table of plain values, or appends to one."""
        table = data if isinstance(data, pd.DataFrame) else pd.DataFrame(data)
        content = json.loads(table.to_json(orient="split", index=False, date_format="iso"))
        self._outbox.put("log_table", {"columns": content["columns"], "rows": content["data"], "file": artifact_file})

    def log_inputs(
        self,
        run_id: str,
        datasets: Sequence[DatasetInput] | None = None,
        models: Sequence[LoggedModelInput] | None = None,
    ) -> None:
        """Logs which data sets went in."""
        plain = [{"dataset": dict(d.dataset), "tags": [(tag.key, tag.value) for tag in d.tags]} for d in datasets or []]
        self._outbox.put("log_inputs", {"datasets": plain})

    def update_run(self, run_id: str, status: str | None = None, name: str | None = None) -> None:
        """Changes status or name of the run."""
        self._outbox.put("update_run", {"status": status, "name": name})

    def set_terminated(self, run_id: str, status: str | None = None, end_time: int | None = None) -> None:
        """Ends the run."""
        self._outbox.put("set_terminated", {"status": status, "end_time": end_time or self.now()})


class Delivery:
    """Carries out letters of a `QueuedClient`, in the store, for one run.

    Args:
        uri: address of the store.
        folder: the run; its record says under which id the store knows it, and is told that id when it is new there.
    """

    def __init__(self, uri: str, folder: RunFolder) -> None:
        self._uri = uri
        self._folder = folder
        self._client: MlflowClient | None = None

    def __call__(self, letters: list[Letter]) -> None:
        """Carries out one letter, or several of the call that can be merged.

        Raises:
            Refused: if they can never be carried out.
        """
        if self._client is None:
            self._client = MlflowClient(self._uri)
        try:
            if letters[0].call == MERGED:
                self._log_batch(self._client, letters)
            else:
                self._carry_out(self._client, letters[0])
        except Exception as error:
            if refused(error):
                raise Refused(str(error)) from error
            raise

    def _log_batch(self, client: MlflowClient, letters: list[Letter]) -> None:
        kinds: dict[str, Callable[..., Any]] = {"metrics": Metric, "params": Param, "tags": RunTag}
        for kind, entity in kinds.items():
            entries = [entity(*entry) for letter in letters for entry in letter.content[kind]]
            for start in range(0, len(entries), _MOST[kind]):
                some: dict[str, Any] = {kind: entries[start : start + _MOST[kind]]}
                client.log_batch(self._folder.run_id, **some)

    def _carry_out(self, client: MlflowClient, letter: Letter) -> None:
        content = letter.content
        if letter.call == "create_run":
            self._folder.write(run_id=create_run(client, **content))
            return
        run = self._folder.run_id
        if letter.call == "log_artifact":
            client.log_artifact(run, str(letter.file), content["path"])
        elif letter.call == "log_table":
            client.log_table(run, pd.DataFrame(content["rows"], columns=content["columns"]), content["file"])
        elif letter.call == "log_inputs":
            client.log_inputs(run, [_dataset_input(entry) for entry in content["datasets"]])
        elif letter.call == "update_run":
            client.update_run(run, content["status"], content["name"])
        elif letter.call == "set_terminated":
            client.set_terminated(run, content["status"], content["end_time"])
        else:
            raise Refused("a damaged entry of the outbox")


def open_outbox(uri: str, folder: RunFolder) -> Outbox:
    """The outbox of a run, with what an earlier process may have left in it."""
    return Outbox(folder.outbox, Delivery(uri, folder), merge=MERGED, place=without_passwords(uri))


def refused(error: Exception) -> bool:
    """Whether it is the request that is wrong, and not the store that is away."""
    if isinstance(error, MlflowException):
        return error.error_code in _REFUSALS
    if isinstance(error, requests.HTTPError):
        status = 500 if error.response is None else error.response.status_code
        return 400 <= status < 500 and status not in _WORTH_TRYING_AGAIN
    return isinstance(error, (Refused, AttributeError, KeyError, TypeError))


def create_run(client: MlflowClient, experiment: str, tags: dict[str, str], start_time: int) -> str:
    """Makes a run, or finds the one that an interrupted attempt has made, and returns its id."""
    place = open_experiment(client, experiment).experiment_id
    if LOCAL_ID in tags:
        for run in client.search_runs([place], f"tags.`{LOCAL_ID}` = '{tags[LOCAL_ID]}'"):
            return run.info.run_id
    return client.create_run(place, start_time, tags).info.run_id


def _dataset_input(entry: dict[str, Any]) -> DatasetInput:
    return DatasetInput(Dataset(**entry["dataset"]), [InputTag(*tag) for tag in entry["tags"]])
