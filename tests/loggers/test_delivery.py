"""What is logged through our client arrives in a real MLflow store as MLflow's own client would have logged it."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from lightning_cells.errors import InputError
from lightning_cells.loggers import delivery, outbox
from lightning_cells.loggers import mlflow as module
from lightning_cells.loggers.mlflow import RunLogger
from lightning_cells.loggers.run_folder import RunFolder, undelivered

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store for all tests of this file: setting one up takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'runs.db'}"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "LINGER_S", 0.02)
    monkeypatch.setattr(outbox, "_PAUSE_S", (0.01, 0.05))
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)


@pytest.fixture
def logger(uri: str) -> Iterator[RunLogger]:
    logger = RunLogger(uri=uri)
    yield logger
    logger.finalize()


def artifact(client: MlflowClient, run: str, path: str) -> Path:
    return Path(unquote(urlparse(client.get_run(run).info.artifact_uri).path)) / path


def test_all_that_can_be_logged(logger: RunLogger, uri: str, tmp_path: Path) -> None:
    client, run = logger.experiment, str(logger.run_id)
    client.log_metric(run, "a", 1.5, step=3)
    client.log_batch(run, metrics=[Metric("b", 2.0, 1, 4)], params=[Param("p", "q")], tags=[RunTag("t", "u")])
    client.log_param(run, "number", 7)
    client.set_tag(run, "truth", True)
    client.log_text(run, "said", "texts/words.txt")
    client.log_dict(run, {"k": [1, 2]}, "plain.json")
    client.log_image(run, np.zeros((8, 8, 3), np.uint8), key="val/montage", step=2)
    client.log_image(run, np.zeros((8, 8, 3), np.uint8), "one.png")
    client.log_table(run, {"frame": [1, 2], "kind": ["missed", "split"]}, "cells.json")
    client.log_table(run, pd.DataFrame({"frame": [3], "kind": ["merged"]}), "cells.json")
    client.log_table(run, {"frame": [1]}, "other.json")
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "top.txt").write_text("top")
    (folder / "below" / "deep.txt").write_text("deep")
    client.log_artifacts(run, str(folder), "files")
    data = Dataset("nuclei", "0123456789abcdef", "local", json.dumps({"uri": "/data"}), profile="{}")
    client.log_inputs(run, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
    client.update_run(run, name="renamed")
    assert logger.flush(60)

    plain = MlflowClient(uri)
    logged = plain.get_run(run)
    assert logged.data.metrics == {"a": 1.5, "b": 2.0}
    assert plain.get_metric_history(run, "a")[0].step == 3
    assert logged.data.params == {"p": "q", "number": "7"}
    assert (logged.data.tags["t"], logged.data.tags["truth"]) == ("u", "True")
    assert (logged.info.run_name, logged.info.status) == ("renamed", "RUNNING")
    assert artifact(plain, run, "texts/words.txt").read_text() == "said"
    assert json.loads(artifact(plain, run, "plain.json").read_text()) == {"k": [1, 2]}
    assert artifact(plain, run, "files/below/deep.txt").read_text() == "deep"
    images = sorted(Path(info.path).suffix for info in plain.list_artifacts(run, "images"))
    assert images == [".png", ".webp"]
    table = json.loads(artifact(plain, run, "cells.json").read_text())
    assert (table["columns"], table["data"]) == (["frame", "kind"], [[1, "missed"], [2, "split"], [3, "merged"]])
    tables = json.loads(logged.data.tags["mlflow.loggedArtifacts"])
    assert [entry["path"] for entry in tables] == ["cells.json", "other.json"], "both are shown"
    assert logged.inputs.dataset_inputs[0].dataset.digest == "0123456789abcdef"


def test_end_of_a_run(uri: str) -> None:
    for ours, theirs in (("success", "FINISHED"), ("failed", "FAILED")):
        logger = RunLogger(uri=uri)
        run = logger.run_id
        logger.finalize(ours)
        assert MlflowClient(uri).get_run(run).info.status == theirs
    logger = RunLogger(uri=uri)
    run = logger.run_id
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        logger.finalize("failed")
    assert MlflowClient(uri).get_run(run).info.status == "KILLED"


def test_logging_after_the_end_arrives_too(uri: str) -> None:
    logger = RunLogger(uri=uri)
    run = str(logger.run_id)
    logger.finalize()
    logger.experiment.log_metric(run, "test/SEG", 0.5)
    assert logger.flush(60)
    assert MlflowClient(uri).get_run(run).data.metrics == {"test/SEG": 0.5}


def test_clock_that_goes_back(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stamps do not go with it: a run would end before it began, and points would come before earlier ones."""
    now = time.time()
    ticks = iter([now, now + 100, now - 5000, now - 4000, now - 3000])
    last = [now]

    def clock() -> float:
        last[0] = next(ticks, last[0] + 1)
        return last[0]

    monkeypatch.setattr("lightning.pytorch.loggers.mlflow.time", clock)
    monkeypatch.setattr(delivery.time, "time_ns", lambda: int(clock() * 1e9))
    logger = RunLogger(uri=uri)
    run = str(logger.run_id)
    for step in range(4):
        logger.log_metrics({"train/loss": 1.0 / (step + 1)}, step=step)
    logger.finalize()
    client = MlflowClient(uri)
    points = sorted(client.get_metric_history(run, "train/loss"), key=lambda point: point.step)
    stamps = [point.timestamp for point in points]
    assert len(stamps) == 4
    assert stamps == sorted(stamps)
    info = client.get_run(run).info
    assert info.start_time <= stamps[0]
    assert stamps[-1] <= info.end_time
    assert logger.seconds >= 0


def away(*args: object, **kwargs: object) -> None:
    raise MlflowException("API request to http://... failed with exception Connection refused")


def test_store_that_is_away_from_the_beginning(
    uri: str, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    """The run is begun here, under a name of its own, and in the store when that is back."""
    with monkeypatch.context() as patch:
        patch.setattr(delivery.MlflowClient, "create_run", away)
        logger = RunLogger(uri=uri, run_name="patient", tags={"a": "b"})
        name = str(logger.run_id)
        assert name.startswith("local-")
        logger.log_metrics({"train/loss": 0.5}, step=1)
        logger.experiment.log_text(name, "said", "words.txt")
        monkeypatch.setattr(outbox.Outbox.close, "__defaults__", (0.2,))
        logger.finalize()
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 2
    assert f"{uri} does not answer" in said[0]
    assert "could not be delivered" in said[1]
    assert [folder.name for folder in undelivered()] == [name]

    assert main_deliver() == 0
    assert undelivered() == []
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(module.EXPERIMENT)
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`{delivery.LOCAL_ID}` = '{name}'")
    assert (run.info.run_name, run.info.status, run.data.tags["a"]) == ("patient", "FINISHED", "b")
    assert run.data.metrics == {"train/loss": 0.5}
    assert artifact(client, run.info.run_id, "words.txt").read_text() == "said"


def main_deliver() -> int:
    from lightning_cells.cli import main

    return main(["deliver"])


def test_run_that_the_store_does_not_want(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is no absence: the training does not begin."""

    def no(*args: object) -> None:
        raise MlflowException.invalid_parameter_value("no more runs, please")

    monkeypatch.setattr(delivery.MlflowClient, "create_run", no)
    with pytest.raises(InputError, match="does not take the run: no more runs, please"):
        _ = RunLogger(uri=uri).run_id


def test_run_is_made_once(uri: str) -> None:
    """Also if the process was killed between the store's answer and its note."""
    tags = {delivery.LOCAL_ID: "local-1"}
    client = MlflowClient(uri)
    ids = {delivery.create_run(client, "lightning_cells", tags, 1) for _ in range(3)}
    assert len(ids) == 1


def test_deliver_says_what_is_left(uri: str, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    assert main_deliver() == 0
    assert capfd.readouterr().out == "All is delivered\n"
    logger = RunLogger(uri=uri)
    monkeypatch.setattr(outbox.Outbox.close, "__defaults__", (0.05,))
    with monkeypatch.context() as patch:
        patch.setattr(delivery.MlflowClient, "log_batch", away)
        logger.log_metrics({"a": 1.0})
        logger.finalize()
        from lightning_cells.cli import main

        assert main(["deliver", "--wait", "0.1"]) == 2
    said = capfd.readouterr()
    assert "2 entries are still not delivered" in said.err
    assert main_deliver() == 0
    assert f"run {logger.run_id}: 2 of 2 entries delivered to {uri}" in capfd.readouterr().out


def test_deliver_leaves_runs_at_work_alone(uri: str, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    logger = RunLogger(uri=uri)
    with monkeypatch.context() as patch:
        patch.setattr(delivery.MlflowClient, "log_batch", away)
        logger.log_metrics({"a": 1.0})
        assert main_deliver() == 0
    assert "is at work and delivers by itself" in capfd.readouterr().out
    logger.finalize()


def test_run_that_goes_on_is_that_of_its_store(uri: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says by then; a run that was deleted in the dashboard is restored."""
    logger = RunLogger(uri=uri)
    run = str(logger.run_id)
    logger.folder.config.write_text("model: x\n")
    logger.finalize()
    client = MlflowClient(uri)
    client.delete_run(run)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'other.db'}")
    again = RunLogger(run_id=run)
    with pytest.raises(InputError, match="at work in another process"):
        RunLogger(run_id=run)
    again.log_metrics({"a": 1.0})
    again.finalize()
    found = client.get_run(run)
    assert (again.uri, found.info.lifecycle_stage, found.data.metrics) == (uri, "active", {"a": 1.0})
    assert not (home / "other.db").exists()
    with pytest.raises(InputError, match=f"run 0123abcd is not in {uri}: .*--ckpt_path"):
        RunLogger(uri=uri, run_id="0123abcd")
    assert [path.name for path in (home / "runs").iterdir()] == [run]


def test_refusals_and_absences() -> None:
    import requests
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, TEMPORARILY_UNAVAILABLE

    def status(code: int) -> requests.HTTPError:
        response = requests.Response()
        response.status_code = code
        return requests.HTTPError(response=response)

    for error in (
        MlflowException("bad", INVALID_PARAMETER_VALUE),
        MlflowException("gone", RESOURCE_DOES_NOT_EXIST),
        status(400),
        status(413),
        KeyError("defect"),
    ):
        assert delivery.refused(error), error
    for error in (
        MlflowException("connection refused"),
        MlflowException("busy", TEMPORARILY_UNAVAILABLE),
        status(503),
        status(429),
        status(401),
        ConnectionError(),
        TimeoutError(),
        OSError(28, "No space left on device"),
        json.JSONDecodeError("a proxy's page", "<html>", 0),
    ):
        assert not delivery.refused(error), error


def test_what_the_store_refuses_holds_back_nothing(uri: str, capfd: Capture) -> None:
    logger = RunLogger(uri=uri)
    run = str(logger.run_id)
    logger.experiment.log_param(run, "p", "1")
    logger.experiment.log_param(run, "p", "2")  # parameters cannot change
    logger.experiment.log_text(run, "out of the folder", "words.txt")
    logger.log_metrics({"a": 1.0})
    logger.finalize()
    logged = MlflowClient(uri).get_run(run)
    assert (logged.data.params, logged.data.metrics, logged.info.status) == ({"p": "1"}, {"a": 1.0}, "FINISHED")
    assert "does not take what is logged" in capfd.readouterr().err


def test_names_that_would_lead_out_of_folders(uri: str, home: Path) -> None:
    name = "../../<script>alert(1)</script>"
    logger = RunLogger(uri=uri, run_name=name, tags={"note": "<b>../x</b>", "../../tag": "x"})
    run_id = logger.run_id
    logger.finalize()
    run = MlflowClient(uri).get_run(run_id)
    assert (run.info.run_name, run.data.tags["note"]) == (name, "<b>../x</b>")
    assert {path.name for path in home.iterdir()} == {".mlflow.lock", "runs"}
    assert list((home / "runs").iterdir()) == [], "nothing is kept of a run that is no training"
    for bad in ("../evil", "/etc", "a/b", "", ".", "..", "<b>", "a b", "-x"):
        with pytest.raises(InputError, match="is no id of a run"):
            RunFolder(bad)
