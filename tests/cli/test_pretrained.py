"""Models that come with the package: tracking with them, and trainings that start from their weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from cli_cases import METHOD, NO_RUN, QUIET, SHORT, SPLIT, complaint, fit, say
from mlflow import MlflowClient

import lightning_cells as lc
from lightning_cells.errors import InputError
from lightning_cells.methods import ULSTM, pretrained
from lightning_cells.methods.loading import SETTINGS
from lightning_cells.methods.pretrained import pretrained_checkpoint, pretrained_names, ship

Capture = pytest.CaptureFixture[str]
MINE = ["--data.normalisation", "percentile", "--data.scale", "0.5", "--model.channels", "[4, 8]"]


@pytest.fixture(scope="module")
def trained(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(simulated, tmp_path_factory.mktemp("trained"), *MINE, *NO_RUN)


@pytest.fixture
def models(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of models with one, nuclei."""
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "models")
    assert ship(trained, "nuclei") == tmp_path / "models/nuclei.ckpt"
    return tmp_path / "models"


def masks(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_shipped(models: Path, trained: Path) -> None:
    """Weights and settings, as plain tensors and values; no state of the training."""
    shipped = torch.load(models / "nuclei.ckpt", weights_only=True)
    whole = torch.load(trained, weights_only=True)
    assert whole.keys() > shipped.keys()
    assert not {"optimizer_states", "lr_schedulers", "loops", "callbacks", "current_model_state"} & shipped.keys()
    assert all(torch.equal(value, whole["state_dict"][name]) for name, value in shipped["state_dict"].items())
    assert shipped[SETTINGS] == whole[SETTINGS]
    assert [path.name for path in models.iterdir()] == ["nuclei.ckpt"]
    assert isinstance(ULSTM.load_from_checkpoint(models / "nuclei.ckpt"), ULSTM)


def test_too_large_a_model_is_not_shipped(models: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "_LARGEST", 1000)
    with pytest.raises(InputError, match=r"best.ckpt: has 0.\d MB"):
        ship(trained, "large")
    assert pretrained_names() == ["nuclei"]


def test_tracking_with_it(models: Path, trained: Path, simulated: Path, tmp_path: Path, capfd: Capture) -> None:
    words = ["track", simulated / "01", "--device", "cpu", "--out"]
    assert say(capfd, *words, tmp_path / "file", "--checkpoint", trained).status == 0
    for name, chosen in {"default": [], "name": ["--model", "nuclei"], "path": ["--model", trained]}.items():
        assert say(capfd, *words, tmp_path / name, *chosen).status == 0
        assert masks(tmp_path / name) == masks(tmp_path / "file")
    read = lc.Result.read(tmp_path / "file").labels
    for model in ("nuclei", str(trained), models / "nuclei.ckpt"):
        np.testing.assert_array_equal(lc.load(model).track(simulated / "01").labels, read)
    np.testing.assert_array_equal(lc.load().track(simulated / "01").labels, read)
    options = ["--data.root", simulated, "--data.predict", "['01']", "--results.folder", tmp_path, *QUIET]
    assert say(capfd, "predict", "--ckpt_path", pretrained_checkpoint("nuclei"), *options).status == 0
    assert (tmp_path / "01_RES/res_track.txt").is_file()


def test_names_that_are_none(
    models: Path, simulated: Path, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["track", simulated / "01", "--out", tmp_path / "out"]
    assert "model 'nuclie': did you mean 'nuclei'?" in complaint(capfd, *words, "--model", "nuclie")
    assert "model 'cytoplasm': there are nuclei; or" in complaint(capfd, *words, "--model", "cytoplasm")
    assert "no checkpoint 'none.ckpt'" in complaint(capfd, *words, "--model", "none.ckpt")
    assert "no checkpoint 'a/nuclei'" in complaint(capfd, *words, "--model", "a/nuclei")
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "nowhere")
    assert "model 'nuclei': none comes with this version; or give" in complaint(capfd, *words)
    with pytest.raises(InputError, match="none comes with this version"):
        lc.load("nuclei")
    assert not (tmp_path / "out").exists()


def start(simulated: Path, *words: str | Path) -> list[str | Path]:
    """A training of two steps."""
    return ["fit", *words, *QUIET, *SPLIT, *SHORT, "--data.root", simulated, "--trainer.max_epochs", "1"]


def parameters(checkpoint: Path) -> dict[str, torch.Tensor]:
    learnt = {name for name, _ in ULSTM(channels=(4, 8)).named_parameters()}
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    return {name: value for name, value in weights.items() if name in learnt}


@pytest.mark.parametrize("method", [[], [*METHOD, *MINE, "--model.decoder.min_size", "3"]], ids=["its own", "given"])
def test_a_training_starts_from_it(
    method: list[str], models: Path, simulated: Path, home: Path, store: Path, capfd: Capture
) -> None:
    words = start(simulated, *method, "--init", "nuclei", "--model.lr", "1e-12")
    said = say(capfd, *words)
    assert said.status == 0, said.err
    (checkpoint,) = home.glob("checkpoints/*/best.ckpt")
    before, after = parameters(models / "nuclei.ckpt"), parameters(checkpoint)
    assert all(torch.allclose(value, after[name], atol=1e-9) for name, value in before.items())
    saved = torch.load(checkpoint, weights_only=True)
    assert saved[SETTINGS]["data"] == {
        "normalisation": "percentile",
        "scale": 0.5,
        "smoothing": 0.0,
        "sequence": "time",
    }
    assert saved["global_step"] == 2  # it begins at its first step
    client = MlflowClient(f"sqlite:///{store}")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.data.tags["init"] == "nuclei"
    (config,) = home.glob("artifacts/*/artifacts/config.yaml")
    assert yaml.safe_load(config.read_text())["init"] == "nuclei"
    options = ["--ckpt_path", checkpoint, *NO_RUN]
    assert say(capfd, "validate", "-c", config, *options).status == 0  # as any run's configuration


def test_a_share_of_it_is_kept(models: Path, simulated: Path, tmp_path: Path, capfd: Capture) -> None:
    """Validated and saved are weights between those before and those after the training, by default half way."""
    kept = {}
    for name, share in {"none": ["0"], "half": [], "all": ["1"]}.items():
        words = ["--init", "nuclei", *(["--init_share", *share] if share else []), *NO_RUN]
        folder = tmp_path / name
        said = say(capfd, *start(simulated, *words, "--checkpoint.folder", folder, "--seed_everything", "1"))
        assert said.status == 0, said.err
        kept[name] = parameters(folder / "best.ckpt")
    before = parameters(models / "nuclei.ckpt")
    assert all(torch.allclose(value, kept["all"][name], atol=1e-6) for name, value in before.items())
    assert any(not torch.allclose(value, kept["none"][name], atol=1e-4) for name, value in before.items())
    for name, value in before.items():
        torch.testing.assert_close(kept["half"][name], (value + kept["none"][name]) / 2)
    line = complaint(capfd, *start(simulated, "--init", "nuclei", "--init_share", "2"))
    assert "--init_share 2.0: must be from 0 to 1" in line


def test_weights_that_do_not_fit(models: Path, simulated: Path, home: Path, capfd: Capture) -> None:
    line = complaint(capfd, *start(simulated, *METHOD, "--init", "nuclei"))
    assert "--init nuclei: does not fit the configured network (" in line
    assert "leave out -c conf/method/" in line
    assert "model 'nuclie': did you mean" in complaint(capfd, *start(simulated, *METHOD, "--init", "nuclie"))
    assert "no checkpoint 'none.ckpt'" in complaint(capfd, *start(simulated, "--init", "none.ckpt"))
    assert not list(home.glob("artifacts/*"))
