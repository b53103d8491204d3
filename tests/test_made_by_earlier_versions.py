"""What earlier versions made is used as if this one had: checkpoints, a store of runs, a registered model.

`made_by_earlier_versions/README.md` says how the archive was made.
"""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from mlflow import MlflowClient

from lightning_cells.cli import main

ARCHIVE = Path(__file__).parent / "made_by_earlier_versions" / "39353d6.tar.xz"
METHODS = ("three-class", "two-class", "adversarial", "gruunet", "rshn", "brightfield")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, somewhere else than where it was made: the store finds its artifacts."""
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(autouse=True)
def earlier(home: Path, unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its outputs and videos are those of the test."""
    monkeypatch.setenv("LIGHTNING_CELLS_HOME", str(unpacked / "outputs"))
    monkeypatch.setenv("LIGHTNING_CELLS_DATA", str(unpacked / "videos"))
    return unpacked


@pytest.fixture
def store(earlier: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{earlier / 'outputs' / 'mlflow.db'}")


def expected(earlier: Path, name: str) -> tuple[str, list[float]]:
    """Id of a run, and the mean loss of each of its epochs, of which the last was after the archive's checkpoint."""
    known = json.loads((earlier / "expected.json").read_text())
    return known["runs"][name], known["losses"][name]


def assert_tracked_alike(result: Path, earlier: Path, name: str) -> None:
    """Networks of other processors round differently, so that a pixel in a hundred may be another's.

    RSHN's first frame is no longer decoded alone.
    """
    labels = np.stack([tifffile.imread(path) for path in sorted(result.glob("mask*.tif"))])
    before = np.load(earlier / "labels.npz")[name]
    assert before.any()
    assert labels.shape == before.shape
    start = 1 if name == "rshn" else 0
    assert np.mean(labels[start:] != before[start:]) < 0.01


@pytest.mark.parametrize("name", METHODS)
def test_a_checkpoint_tracks_as_it_did(earlier: Path, tmp_path: Path, name: str) -> None:
    run, _ = expected(earlier, name)
    video = earlier / "videos" / ("brightfield" if name == "brightfield" else "nuclei") / "03"
    checkpoint = earlier / "outputs" / "checkpoints" / run / "best.ckpt"
    assert main(["track", str(video), "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")]) == 0
    assert_tracked_alike(tmp_path / "out", earlier, name)


def test_a_registered_model_tracks_as_it_did(earlier: Path, tmp_path: Path) -> None:
    video = earlier / "videos" / "nuclei" / "03"
    assert main(["track", str(video), "--model", "models:/cells/1", "--out", str(tmp_path / "out")]) == 0
    assert_tracked_alike(tmp_path / "out", earlier, "three-class")


@pytest.mark.parametrize("name", METHODS)
def test_a_training_goes_on_as_it_would_have(earlier: Path, store: MlflowClient, name: str) -> None:
    run, losses = expected(earlier, name)
    assert main(["fit", "--resume", run, "--trainer.max_epochs", "3", "--pictures.samples", "1"]) == 0
    metric = "train/estimator_loss_epoch" if name == "adversarial" else "train/loss_epoch"
    after = [point.value for point in store.get_metric_history(run, metric)]
    assert after[:-1] == losses[:-1]
    assert after[-1] == pytest.approx(losses[-1], rel=1e-3)
    assert store.get_run(run).info.status == "FINISHED"


def test_a_checkpoint_is_validated_with_other_options(earlier: Path) -> None:
    run, _ = expected(earlier, "two-class")
    words = ["validate", "--ckpt_path", str(earlier / "outputs" / "checkpoints" / run / "best.ckpt")]
    words += ["--data.root", "nuclei", "--data.val", "['03']", "--model.linker.min_overlap", "0.3"]
    assert main([*words, "--trainer.logger", "false", "--trainer.enable_progress_bar", "false"]) == 0


def test_runs_are_compared(earlier: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["compare", "three-class", "two-class", "--out", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "border_weight" in text
    assert "SEG" in text
    assert "kept no configuration" not in text
    assert "no checkpoint of it was tested" not in text


def test_the_dashboard_opens_on_the_runs(
    earlier: Path, store: MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[str] = []
    monkeypatch.setattr(
        "os.execve", lambda program, command, variables: started.append(variables["MLFLOW_BACKEND_STORE_URI"])
    )
    assert main(["dashboard", "--port", "54998"]) == 0
    assert started == [f"sqlite:///{earlier / 'outputs' / 'mlflow.db'}"]
    assert f"Runs of {started[0]}" in capsys.readouterr().out
    place = store.get_experiment_by_name("earlier")
    assert place is not None
    runs = store.search_runs([place.experiment_id])
    assert {run.info.run_name for run in runs} == {*METHODS, "test-of-three-class", "test-of-two-class"}
    for run in runs:
        assert run.data.params["data.root"] in ("nuclei", "brightfield")
        assert "config.yaml" in {file.path for file in store.list_artifacts(run.info.run_id)}
