"""Cross-validation in a real store: each fold a child run, nothing done twice, means and deviations."""

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from lightning_cells.cli import main
from lightning_cells.data.image_files import write_image
from lightning_cells.experiments import runner
from lightning_cells.experiments.cross_validation import fold_table, printed
from lightning_cells.experiments.processes import Place, ProcessPool
from lightning_cells.experiments.runner import Job, Outcome, ParentRun, Progress, log_result, run_job

QUIET = ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]
QUIET += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
SMALL = ["--data.augmentation.crop", "16", "--data.batches_per_epoch", "1", "--trainer.max_epochs", "1"]
TINY = ["-c", "conf/method/brightfield/tiny.yaml", *QUIET, *SMALL, "--model.network.width", "0.1"]


@pytest.fixture
def stills(tmp_path: Path) -> Path:
    """Five images of a disc with a core, and their classes."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:24, :24]
    root = tmp_path / "discs"
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    for number in range(5):
        radius = np.hypot(rows - 12, columns - 12)
        classes = np.where(radius < 4, 1, np.where(radius < 9, 2, 0)).astype(np.uint8)
        write_image(root / f"images/{number}.tif", (classes * 60 + rng.integers(0, 20, (24, 24))).astype(np.uint8))
        write_image(root / f"labels/{number}.tif", classes)
    return root


class Trainings:
    """In place of the processes of folds: what they would leave in the store, and nothing else."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.fail: set[int] = set()  # numbers of calls

    def __call__(self, job: Job, parent: ParentRun, pool: Any, weights: Path | None) -> Outcome:
        self.jobs.append(job)
        if len(self.jobs) in self.fail:
            return Outcome(job, "crash", error="no light")
        logger = parent.logger(job)
        place = parent.client.get_experiment_by_name(logger["experiment_name"]).experiment_id
        run_id = parent.client.create_run(place, tags=logger["tags"], run_name=logger["run_name"]).info.run_id
        parent.client.set_terminated(run_id)
        fold = int(next(word for word in job.fit if word.startswith("--data.fold=")).partition("=")[2])
        measures = {"test": {"Dice": 0.5 + 0.2 * fold, "FN": 3.0}}
        log_result(parent.client, run_id, measures)
        return Outcome(job, "finished", run_id, measures=measures)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    found = Trainings()
    monkeypatch.setattr(runner, "run_job", found)
    return found


def words(root: Path, *more: str) -> list[str]:
    still = ["--data.root", str(root), "--data.layout", "images", "--data.label_kind", "classes"]
    return ["cross-validate", *TINY, *still, "--data.folds", "2", *more]


def runs(home: Path) -> tuple[list[Run], list[Run]]:
    """Common runs, and their children, oldest first."""
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, order_by=["attributes.start_time ASC"])
    return [r for r in found if "cross_validation" in r.data.tags], [r for r in found if "child" in r.data.tags]


@pytest.mark.usefixtures("store")
def test_folds_are_children_and_none_is_done_twice(
    stills: Path, home: Path, trainings: Trainings, capsys: pytest.CaptureFixture[str]
) -> None:
    trainings.fail = {2}
    assert main(words(stills)) == 2
    err = capsys.readouterr().err
    assert "fold 1 of 2 failed: no light: see " in err
    assert "fold 1 of 2.log, mend it, and run this again" in err
    ((parent,), (first,)) = runs(home)
    assert (parent.info.status, first.info.status) == ("FAILED", "FINISHED")

    assert main(words(stills, "--data.num_workers", "0")) == 0
    said = capsys.readouterr().out
    ((parent,), (again, second)) = runs(home)
    assert again.info.run_id == first.info.run_id
    assert [job.name for job in trainings.jobs] == ["fold 0 of 2", "fold 1 of 2", "fold 1 of 2"]
    assert f"fold 0 of 2: run {first.info.run_id}, as it was" in said
    for run, dice in ((again, 0.5), (second, 0.7)):
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.metrics == pytest.approx({"test/Dice": dice, "test/FN": 3})
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics == pytest.approx({"test/Dice": 0.6, "test/Dice_sd": 0.02**0.5})
    assert said.splitlines()[-3].split() == ["Dice", "0.5000", "0.7000", "0.6000", "0.1414"]
    assert (home / f"artifacts/{parent.info.run_id}/artifacts/folds.txt").read_text().strip() in said

    assert main(words(stills)) == 0
    assert len(trainings.jobs) == 3
    assert capsys.readouterr().out.count("as it was") == 2


@pytest.mark.usefixtures("store")
def test_other_options_or_data_are_another_cross_validation(stills: Path, home: Path, trainings: Trainings) -> None:
    assert main(words(stills)) == 0
    assert main(words(stills, "--model.lr", "0.01")) == 0
    assert main(words(stills, "--weights", "best")) == 0
    write_image(stills / "images/3.tif", np.zeros((24, 24), np.uint8))
    assert main(words(stills)) == 0
    parents, children = runs(home)
    assert len(parents) == 4
    assert len(children) == 8
    assert len({run.data.tags["cross_validation"] for run in parents}) == 4
    assert [job.weights for job in trainings.jobs] == ["last"] * 4 + ["best"] * 2 + ["last"] * 2
    line = words(stills)
    position = line.index("--data.folds")
    assert main(line[:position] + line[position + 2 :]) == 0
    assert len(runs(home)[1]) - len(children) == 5, "folds by default"


@pytest.mark.usefixtures("store")
def test_run_that_was_killed_is_done_again(stills: Path, home: Path, trainings: Trainings) -> None:
    """One that stands as running, and one that was trained but not tested."""
    assert main(words(stills)) == 0
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (_, (first, second)) = runs(home)
    client.update_run(first.info.run_id, status="RUNNING")
    client.delete_run(second.info.run_id)
    assert main(words(stills)) == 0
    (_, children) = runs(home)
    assert [run.info.status for run in children] == ["KILLED", "FINISHED", "FINISHED"]
    assert children[1].data.metrics == first.data.metrics


def test_mistakes_are_told_before_anything_is_run(
    stills: Path, home: Path, trainings: Trainings, capsys: pytest.CaptureFixture[str]
) -> None:
    def complaint(*more: str) -> str:
        assert main(words(stills, *more)) == 2
        err = capsys.readouterr().err
        assert err.startswith("lightning-cells cross-validate: error: ")
        assert err.count("\n") == 1
        return err

    assert "did you mean 'model.lr'?" in complaint("--model.lrr", "1")
    assert "data.folds=1" in complaint("--data.folds", "1")
    assert "data.folds=6: sequence 0 has only 1 frames" in complaint("--data.folds", "6")
    assert "--workers 0: must be at least 1" in complaint("--workers", "0")
    assert "'7' is no" in complaint("--weights", "7") or "invalid choice" in complaint("--weights", "7")
    assert trainings.jobs == []
    assert not (home / "mlflow.db").exists()


def test_table() -> None:
    folds = [
        {"SEG": 0.5, "Dice": 0.25, "FN": 3.0, "loss": 2.0},
        {"SEG": 0.7, "Dice": 0.5, "FN": 4.0, "loss": 1.0, "TRA": 1.0},
        {"SEG": 0.9, "Dice": 0.75, "FN": 5.0, "loss": 3.0},
    ]
    table = fold_table(folds)
    assert list(table.index) == ["Dice", "SEG", "loss"], "those of all folds; counts depend on a fold's size"
    assert table.loc["SEG", "mean"] == pytest.approx(0.7)
    assert table.loc["SEG", "sd"] == pytest.approx(statistics.stdev([0.5, 0.7, 0.9])) == pytest.approx(0.2)
    lines = printed(table).splitlines()
    assert lines[0].split() == ["fold", "0", "1", "2", "mean", "sd"]
    assert lines[1].split() == ["Dice", "0.2500", "0.5000", "0.7500", "0.5000", "0.2500"]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_as_a_user_does_with_processes_of_its_own(stills: Path, home: Path) -> None:
    assert main(words(stills, "--workers", "2")) == 0
    ((parent,), children) = runs(home)
    children.sort(key=lambda run: run.data.tags["child"])
    for fold, run in enumerate(children):
        assert run.info.status == "FINISHED"
        assert run.data.params["data.fold"] == str(fold)
        # the training's last validation was on the same fold and of the same weights
        assert run.data.metrics["test/Dice"] == pytest.approx(run.data.metrics["val/Dice"], abs=1e-6)
        held_out = run.data.tags["data.val"].split()
        assert held_out == [f"{number}[0:1]" for number in range(5) if number % 2 == fold]
        assert not set(held_out) & set(run.data.tags["data.train"].split())
    values = [run.data.metrics["test/Dice"] for run in children]
    assert values[0] != values[1]
    assert parent.data.metrics["test/Dice"] == pytest.approx(statistics.fmean(values))
    assert "child" not in (home / f"artifacts/{children[0].info.run_id}/artifacts/config.yaml").read_text(), (
        "who repeats a training from its configuration does not repeat the fold"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_a_training_of_two_processes_is_tested_by_one(stills: Path, home: Path) -> None:
    """The other process leaves after the training, and neither waits for the other."""
    options = (*words(stills, "--data.fold=0", "--trainer.devices=2", "--trainer.strategy=ddp")[1:],)
    job = Job(name="fold 0", fit=options, tests={"test": options}, weights="last")
    told: list[Progress] = []
    again = Job(name="again", fit=options, tests={"test": options}, weights_of=job)
    with ParentRun.open("a", "b", {}, "c", home) as parent, ProcessPool([Place((), None, 2)]) as pool:
        outcome = run_job(job, parent, pool, lambda progress: bool(told.append(progress)))
        measured = run_job(again, parent, pool, weights=outcome.weights)
    assert outcome.ending == "finished", (home / "fold 0.log").read_text()[-3000:]
    assert "GLOBAL_RANK: 1, MEMBER: 2/2" in (home / "fold 0.log").read_text()
    assert [progress.step for progress in told] == [-1, 0]
    assert measured.measures == outcome.measures, (home / "again.log").read_text()[-3000:]
    run, other = runs(home)[1]
    assert other.info.run_id == measured.run
    assert run.data.metrics["test/Dice"] == outcome.measures["test"]["Dice"]
    assert run.data.metrics["test/Dice"] == pytest.approx(run.data.metrics["val/Dice"], abs=1e-6)
