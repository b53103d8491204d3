"""A study in a real MLflow store: a parent run, and below it one run for each trial in its true state."""

import shutil
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import TrialState
from sweep_cases import OBJECTIVE, make_plan

from lightning_cells.errors import InputError
from lightning_cells.experiments.tuning.mlflow_runs import PARENT, StudyRuns
from lightning_cells.experiments.tuning.report import readable, summary, write_report
from lightning_cells.experiments.tuning.storage import Storage
from lightning_cells.experiments.tuning.study import Trials, open_study
from lightning_cells.loggers.store import tracking_uri

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage")


def children(parent: str) -> dict[int, Run]:
    client = MlflowClient(tracking_uri())
    experiment = client.get_run(parent).info.experiment_id
    runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    numbers = [int(run.data.tags["optuna.trial"]) for run in runs]
    assert len(set(numbers)) == len(numbers), "none has two"
    return dict(zip(numbers, runs, strict=True))


def test_runs_of_a_study(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(store, tmp_path / "other.db")
    plan = make_plan(tmp_path, trials=9)
    storage = Storage(None)
    study = open_study(plan, storage, join=False)
    record = StudyRuns(plan, study, storage, tmp_path)
    client = MlflowClient(tracking_uri())
    assert study.user_attrs[PARENT] == record.parent.run_id
    assert client.get_run(record.parent.run_id).info.status == "RUNNING"
    assert StudyRuns(plan, study, storage, tmp_path).parent.run_id == record.parent.run_id, (
        "another worker takes the same"
    )

    ends = {0: "COMPLETE", 1: "PRUNED", 2: "FAIL", 3: "INTERRUPTED", 4: "LOST"}
    trials = Trials(study, plan, storage)
    for number, state in ends.items():
        trial = trials.claim()
        chosen = plan.space.suggest(trial)
        run = record.begin(trial.number, chosen)
        record.log(run, [{OBJECTIVE: 0.1, "val/LNK": float("nan")}, {OBJECTIVE: 0.2}])
        record.end(run, state, "the lamp went out" if state == "FAIL" else "")
        assert record.find(number) == run
    record.best(0, {OBJECTIVE: 0.2})
    runs = children(record.parent.run_id)
    statuses = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED", "INTERRUPTED": "KILLED", "LOST": "FAILED"}
    for number, state in ends.items():
        run = runs[number]
        assert (run.info.status, run.data.tags["optuna.state"]) == (statuses[state], state)
        assert run.info.run_name == f"pretended {number}"
        assert set(run.data.params) == {"x", "how"}
        assert [p.value for p in client.get_metric_history(run.info.run_id, OBJECTIVE)] == [0.1, 0.2]
        assert "val/LNK" not in run.data.metrics
    assert runs[2].data.tags["optuna.reason"] == "the lamp went out"

    record.close("FINISHED", {"sweep.state": "complete"})
    parent = client.get_run(record.parent.run_id)
    assert (parent.info.status, parent.info.run_name) == ("FINISHED", "sweep pretended")
    assert parent.data.params["objective"] == f"maximize {OBJECTIVE}"
    assert parent.data.metrics[f"best/{OBJECTIVE}"] == 0.2
    assert [file.path for file in client.list_artifacts(record.parent.run_id)] == ["sweep.yaml"]

    # What workers that died before they could say it have left: a trial without run, one whose run seems to go on.
    told = [trials.claim() for _ in range(2)]
    for trial in told:
        plan.space.suggest(trial)
        study.tell(trial.number, 0.5)
    record.begin(told[0].number, {})
    study.tell(0, 0.25)
    record.settle(study.get_trials())
    runs = children(record.parent.run_id)
    assert sorted(runs) == [0, 1, 2, 3, 4, 5, 6]
    for trial in told:
        assert (runs[trial.number].info.status, runs[trial.number].data.tags["optuna.state"]) == (
            "FINISHED",
            "COMPLETE",
        )
    assert runs[4].data.tags["optuna.state"] == "LOST", "as it was"

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(InputError, match=r"study 'pretended' has its runs in another store than sqlite:///.*other\.db"):
        StudyRuns(plan, study, storage, tmp_path)


@pytest.mark.usefixtures("store")
def test_store_that_goes_away_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow.exceptions import MlflowException

    plan = make_plan(tmp_path)
    storage = Storage(None)
    record = StudyRuns(plan, open_study(plan, storage, join=False), storage, tmp_path)

    def away(*args: object, **kwargs: object) -> None:
        raise MlflowException("no answer\nand a long story")

    for name in ("create_run", "log_batch", "set_terminated", "log_artifact", "search_runs"):
        monkeypatch.setattr(record._client, name, away)
    assert record.begin(0, {"x": 1}) is None
    assert record.find(0) is None
    record.log("run", [{OBJECTIVE: 1.0}])
    record.end("run", "COMPLETE")
    record.settle([])
    record.artifacts([plan.path])
    record.close("FINISHED", {})
    said = [line for line in capsys.readouterr().err.splitlines() if "mlflow.store.db" not in line]
    assert said == ["lightning-cells: not all is written to MLflow: no answer"], "once"


def test_report_of_a_study(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, ("good", "<script>alert(1)</script>"))
    study = optuna.create_study(study_name=plan.study, direction="maximize")
    trials = {0: 0.25, 1: 0.75, 2: TrialState.PRUNED, 3: TrialState.FAIL, 4: 0.5}
    for end in trials.values():
        trial = study.ask()
        chosen = plan.space.suggest(trial)
        trial.report(0.1, 0)
        trial.set_user_attr("measures", {OBJECTIVE: 0.1, "val/TRA": chosen["x"]})
        study.tell(trial, **({"state": end} if isinstance(end, TrialState) else {"values": end}))
    files = write_report(tmp_path / "report", study, plan, lambda chosen: f"x: {chosen['x']}\n")
    assert {path.name for path in files} == {
        "best_config.yaml",
        "trials.csv",
        "study.html",
        *(f"{kind}.png" for kind in ("history", "importances", "slice", "parallel_coordinate")),
        *(f"{kind}.png" for kind in ("intermediate_values", "timeline")),
    }
    assert {path.name for path in (tmp_path / "report").iterdir()} == {path.name for path in files}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in files if path.suffix == ".png")
    heading, command, best = (tmp_path / "report/best_config.yaml").read_text().splitlines()
    assert best == f"x: {study.get_trials()[1].params['x']}"
    assert heading.startswith("# Trial 1 of study pretended: val/SEG 0.750000")
    assert command == "# lightning-cells fit -c best_config.yaml"

    rows = [line.split(",") for line in (tmp_path / "report/trials.csv").read_text().splitlines()]
    assert rows[0][:5] == ["trial", "state", OBJECTIVE, "x", "how"]
    assert [row[1] for row in rows[1:]] == ["COMPLETE", "COMPLETE", "PRUNED", "FAIL", "COMPLETE"]
    assert [row[2] for row in rows[1:]] == ["0.25", "0.75", "0.1", "0.1", "0.5"]
    page = (tmp_path / "report/study.html").read_text()
    assert "<script>alert(1)" not in page
    assert 'src="http' not in page, "it opens offline"
    assert page.count("Plotly.newPlot(") == 6
    assert summary(study, plan)[0] == "5 trials: 3 complete, 1 pruned, 1 fail"
    assert summary(study, plan)[2].startswith("best: trial 1: val/SEG 0.7500: x ")


def test_plots_use_short_names(tmp_path: Path) -> None:
    space = {
        "model.decoder.min_size": {"int": [1, 9]},
        "model.decoder.clustering": {"choices": ["cells.a.MeanShift", "cells.b.HDBSCAN"]},
        "model.lr": {"float": [0, 1]},
        "data.min_size": {"int": [1, 9]},
    }
    plan = make_plan(tmp_path, space=space)
    study = optuna.create_study(direction="maximize")
    for value in (0.5, None, 0.75):
        trial = study.ask()
        plan.space.suggest(trial)
        if value is not None:  # one is still under way
            study.tell(trial, value)
    shown = readable(study)
    assert [trial.value for trial in shown.get_trials()] == [0.5, 0.75]
    first, same = study.get_trials()[0], shown.get_trials()[0]
    values = {**first.params, "model.decoder.clustering": first.params["model.decoder.clustering"].split(".")[-1]}
    short = ["decoder.min_size", "decoder.clustering", "model.lr", "data.min_size"]
    assert same.params == dict(zip(short, values.values(), strict=True))
    assert (same.datetime_start, same.datetime_complete) == (first.datetime_start, first.datetime_complete)


def test_report_of_several_objectives(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, objective={OBJECTIVE: "maximize", "val/FP": "minimize"})
    study = optuna.create_study(directions=["maximize", "minimize"])
    for values in ([0.5, 3], [0.6, 4], [0.4, 5]):
        trial = study.ask()
        plan.space.suggest(trial)
        study.tell(trial, values)
    files = write_report(tmp_path / "report", study, plan, lambda chosen: f"x: {chosen['x']}\n")
    names = {path.name for path in files}
    assert {"pareto_front.png", "history.png", "history2.png", "pareto_config_0000.yaml"} <= names
    assert "pareto_config_0001.yaml" in names
    assert "pareto_config_0002.yaml" not in names, "worse in both"
    best = (tmp_path / "report/best_config.yaml").read_text()
    assert best == (tmp_path / "report/pareto_config_0001.yaml").read_text(), "the first objective decides"


def test_report_of_a_study_without_values(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    plan.space.suggest(trial)
    study.tell(trial, state=TrialState.FAIL)
    files = {path.name for path in write_report(tmp_path / "report", study, plan, lambda chosen: "")}
    assert {"trials.csv", "study.html"} <= files
    assert "best_config.yaml" not in files
