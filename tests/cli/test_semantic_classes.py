"""Data with semantic classes on the command line: what does not fit is told in one line, before a run is logged."""

from pathlib import Path

import pytest
from cli_cases import NO_RUN, QUIET, SHORT, complaint, run_python, say
from mlflow import MlflowClient

from lightning_cells.cli.training import TrainingCLI
from lightning_cells.data.image_files import read_mask, write_image
from lightning_cells.data.simulate import simulate

TINY = ["-c", "conf/method/brightfield/tiny.yaml", *QUIET, *SHORT, "--data.train", "['01']", "--data.val", "['02']"]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    return simulate(tmp_path / "cells", "brightfield", sequences=2, frames=3, size=(32, 32), cells=2)


def test_instance_labels_alone(simulated: Path, home: Path, capfd: Capture) -> None:
    line = complaint(capfd, "fit", *TINY, "--data.root", simulated)
    assert line.startswith("data.train: no semantic classes for 01: set data.label_kind=classes")
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    assert not client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    fast = ["--trainer.fast_dev_run", "true", "--model.target", "three_class"]
    assert say(capfd, "fit", *TINY, *fast, "--data.root", simulated).status == 0


def test_class_that_the_network_lacks(cells: Path, capfd: Capture) -> None:
    path = cells / "02_GT/SEM/man_sem002.tif"
    write_image(path, read_mask(path) + 2)
    line = complaint(capfd, "fit", *TINY, *NO_RUN, "--data.root", cells)
    assert line.startswith(f"{path}: holds class ")
    assert "0 to 2 (background, nucleus, cytoplasm)" in line


@pytest.mark.parametrize("fold", ["2", "-1"])
def test_fold_out_of_range(cells: Path, capfd: Capture, fold: str) -> None:
    words = [*TINY, "--data.root", cells, "--data.train", "null", "--data.val", "null", "--data.folds", "2"]
    line = complaint(capfd, "fit", *words, *NO_RUN, f"--data.fold={fold}")
    assert line == f"data.fold={fold} is out of range: data.folds=2 has folds 0 to 1"


def test_a_network_is_chosen_by_its_name(cells: Path, capfd: Capture) -> None:
    words = ["--data.root", cells, "--trainer.fast_dev_run", "true"]
    other = ["--model.network", "DeepLab", "--model.network.width", "0.05", "--model.network.middle", "1"]
    assert say(capfd, "fit", *TINY, *words, *other).status == 0
    assert "did you mean 'model.network.middle'?" in complaint(
        capfd, "fit", *TINY, *words, *other, "--model.network.midle", "2"
    )


@pytest.mark.slow
def test_two_processes_measure_as_one(tmp_path: Path, home: Path) -> None:
    """Three validation videos on two processes: what they log is what one process finds with their weights."""
    root = simulate(tmp_path / "cells", "brightfield", sequences=4, frames=2, size=(32, 32), cells=2)
    words = [*TINY, "--data.root", str(root), "--data.val", "['02', '03', '04']", "--data.clip_length", "1"]
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_epochs", "1"]
    said = run_python("-m", "lightning_cells", "fit", *words, *two, LIGHTNING_CELLS_HOME=str(home))
    assert said.status == 0, said.err[-3000:]
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    checkpoint = home / "checkpoints" / run.info.run_id / "last.ckpt"
    alone = TrainingCLI(["validate", *words, *NO_RUN, "--ckpt_path", str(checkpoint)]).trainer.callback_metrics
    measured = {key: value for key, value in run.data.metrics.items() if key.startswith(("val/Dice", "val/loss"))}
    assert len(measured) == 10
    assert measured == pytest.approx({key: float(alone[key]) for key in measured}, abs=1e-5)
