"""Cross-validation in a real store: each fold a child run, nothing done twice, means and deviations."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from lightning_cells.cli import main
from lightning_cells.data.ctc import write_image
from lightning_cells.errors import InputError
from lightning_cells.experiments import child_runs, cross_validation
from lightning_cells.experiments.cross_validation import Table

# Takes the place of the package in the working directory, where Python looks first.
CHILD = """
import pathlib, signal, sys, time

def end(*_):
    pathlib.Path("ended").touch()
    sys.exit(1)

signal.signal(signal.SIGTERM, end)
pathlib.Path("began").write_text(" ".join(sys.argv[1:]))
time.sleep(300)
"""
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


class Commands:
    """In place of trainings and tests: what they would leave in the store and in the folder, and nothing else."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.all: list[list[str]] = []
        self.fail: dict[int, int] = {}  # number of the call -> status

    def __call__(self, words: Sequence[str]) -> int:
        self.all.append(list(words))
        if status := self.fail.get(len(self.all)):
            return status
        given = dict(word.removeprefix("--").split("=", 1) for word in words if word.startswith("--") and "=" in word)
        logger = json.loads(given["trainer.logger"])["init_args"]
        if words[0] == "test":
            Path(logger["save_dir"], "metrics.csv").write_text(
                f"step,test/Dice,test/SEG,test/FN\n2,,,\n2,{0.5 + 0.2 * int(given['data.fold'])},nan,3\n"
            )
        else:
            client = MlflowClient(f"sqlite:///{self.home / 'mlflow.db'}")
            experiment = client.get_experiment_by_name(logger["experiment_name"]).experiment_id
            run = client.create_run(experiment, tags=logger["tags"], run_name=logger["run_name"])
            client.set_terminated(run.info.run_id)
        return 0


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, home: Path) -> Commands:
    found = Commands(home)
    monkeypatch.setattr(cross_validation.cross_validate, "__defaults__", ("last", found))
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


def test_folds_are_children_and_none_is_done_twice(
    stills: Path, home: Path, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.fail = {3: 1}  # the second fold's training
    assert main(words(stills)) == 2
    assert "fold 1 of 2: the training failed" in capsys.readouterr().err
    ((parent,), (first,)) = runs(home)
    assert (parent.info.status, first.info.status) == ("FAILED", "FINISHED")

    assert main(words(stills, "--data.num_workers", "0")) == 0
    said = capsys.readouterr().out
    ((parent,), (again, second)) = runs(home)
    assert again.info.run_id == first.info.run_id
    assert [line[0] for line in commands.all] == ["fit", "test", "fit", "fit", "test"]
    assert f"fold 0 of 2: run {first.info.run_id}, as it was" in said
    for run, dice in ((again, 0.5), (second, 0.7)):
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.metrics == pytest.approx({"test/Dice": dice, "test/FN": 3})
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics == pytest.approx({"test/Dice": 0.6, "test/Dice_sd": 0.02**0.5})
    assert said.splitlines()[-1].split() == ["Dice", "0.5000", "0.7000", "0.6000", "0.1414"]
    assert (home / f"artifacts/{parent.info.run_id}/artifacts/folds.txt").read_text().strip() in said

    assert main(words(stills)) == 0
    assert len(commands.all) == 5
    assert capsys.readouterr().out.count("as it was") == 2


def test_other_options_or_data_are_another_cross_validation(stills: Path, home: Path, commands: Commands) -> None:
    assert main(words(stills)) == 0
    assert main(words(stills, "--model.lr", "0.01")) == 0
    assert main(words(stills, "--weights", "best")) == 0
    write_image(stills / "images/3.tif", np.zeros((24, 24), np.uint8))
    assert main(words(stills)) == 0
    parents, children = runs(home)
    assert len(parents) == 4
    assert len(children) == 8
    assert len({run.data.tags["cross_validation"] for run in parents}) == 4
    assert [Path(line[-2]).name for line in commands.all if line[0] == "test"] == ["last.ckpt"] * 4 + [
        "best.ckpt"
    ] * 2 + ["last.ckpt"] * 2


def test_run_that_was_killed_is_done_again(stills: Path, home: Path, commands: Commands) -> None:
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
    stills: Path, home: Path, commands: Commands, capsys: pytest.CaptureFixture[str]
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
    assert "'7' is no" in complaint("--weights", "7") or "invalid choice" in complaint("--weights", "7")
    assert commands.all == []
    assert not (home / "mlflow.db").exists()


def test_five_folds_by_default(stills: Path, home: Path, commands: Commands) -> None:
    line = words(stills)
    position = line.index("--data.folds")
    assert main(line[:position] + line[position + 2 :]) == 0
    assert len(runs(home)[1]) == 5


def test_table() -> None:
    folds = [
        {"SEG": 0.5, "Dice": 0.25, "FN": 3.0, "loss": 2.0},
        {"SEG": 0.7, "Dice": 0.5, "FN": 4.0, "loss": 1.0, "TRA": 1.0},
        {"SEG": 0.9, "Dice": 0.75, "FN": 5.0, "loss": 3.0},
    ]
    table = Table("A title", folds)
    assert table.names == ["SEG", "Dice", "loss"], "those of all folds; counts depend on a fold's size"
    assert table.mean("SEG") == pytest.approx(0.7)
    assert table.sd("SEG") == pytest.approx(statistics.stdev([0.5, 0.7, 0.9])) == pytest.approx(0.2)
    lines = str(table).splitlines()
    assert lines[0] == "A title"
    assert lines[2].split() == ["fold", "0", "1", "2", "mean", "sd"]
    assert lines[3].split() == ["Dice", "0.2500", "0.5000", "0.7500", "0.5000", "0.2500"]
    assert len({len(line) for line in lines[2:]}) == 1


def test_child_that_vanishes_is_told(home: Path) -> None:
    """A launch that says it succeeded, but leaves no run."""
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    parent = client.create_run(client.create_experiment("some"))
    children = child_runs.ChildRuns(client, parent, lambda words: 0)
    assert children.finished("one") is None
    with pytest.raises(InputError, match="one: the training failed"):
        children.run("one", [])


@pytest.mark.slow
def test_as_a_user_does_with_processes_of_its_own(stills: Path, home: Path) -> None:
    assert main(words(stills)) == 0
    ((parent,), children) = runs(home)
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
    assert not list(home.glob("test*")), "the table of the test was temporary"


@pytest.mark.slow
def test_a_command_ends_with_the_process_that_runs_it(tmp_path: Path) -> None:
    """A child that would sleep for minutes is told, and has time to leave a note."""
    (tmp_path / "lightning_cells.py").write_text(CHILD)
    script = f"from lightning_cells.experiments.child_runs import command\nimport os\nos.chdir({str(tmp_path)!r})\n"
    process = subprocess.Popen([sys.executable, "-c", script + "command(['fit', 'it'])"], stderr=subprocess.PIPE)
    for _ in range(3000):
        if (tmp_path / "began").exists():
            break
        time.sleep(0.1)
    process.terminate()
    assert process.wait(60) != 0
    assert b"KeyboardInterrupt" in process.stderr.read()
    assert (tmp_path / "began").read_text() == "fit it"
    assert (tmp_path / "ended").exists()
