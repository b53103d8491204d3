"""Which of several configurations, options and checkpoints wins, and what a checkpoint remembers."""

from pathlib import Path

import pytest
import torch
import yaml
from cli_cases import METHOD, NO_RUN, QUIET, SHORT, SPLIT, complaint, fit, printed, say

from lightning_cells.cli import main
from lightning_cells.cli.training import TrainingCLI
from lightning_cells.data.ctc import frame_paths
from lightning_cells.data.image_files import read_mask
from lightning_cells.instances.linkers import Overlap

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def trained(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with preprocessing and options that are not the defaults of any configuration."""
    return fit(
        simulated,
        tmp_path_factory.mktemp("trained"),
        *["--data.normalisation", "percentile", "--data.scale", "0.5", "--model.channels", "[4, 8]"],
        *["--model.linker.min_overlap", "0.4", "--model.decoder.min_size", "7", *NO_RUN],
    )


def test_later_configurations_win_and_options_win_over_all(tmp_path: Path, capfd: Capture) -> None:
    for number in (1, 2):
        text = f"data:\n  batch_size: {number}\n  stride: {number}\nmodel:\n  init_args:\n    lr: {number}.0e-5\n"
        (tmp_path / f"{number}.yaml").write_text(text)
    one, two = (["-c", tmp_path / f"{number}.yaml"] for number in (1, 2))
    config = printed(capfd, "fit", *METHOD, *one, *two)
    assert (config["data"]["batch_size"], config["model"]["init_args"]["optimization"]["lr"]) == (2, 2e-5)
    config = printed(capfd, "fit", *METHOD, *two, *one, "--data.batch_size", "5", "--model.lr=0.25")
    assert (config["data"]["batch_size"], config["data"]["stride"]) == (5, 1)
    assert config["model"]["init_args"]["optimization"]["lr"] == 0.25
    assert config["model"]["init_args"]["channels"] == [8, 16, 32, 64]  # of the first of all


def test_shipped_configurations_are_found_from_anywhere(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert printed(capfd, "fit", "-c", "conf/method/ulstm/tiny.yaml") == printed(capfd, "fit", f"--config={METHOD[1]}")
    (tmp_path / "conf/method/ulstm").mkdir(parents=True)
    (tmp_path / "conf/method/ulstm/tiny.yaml").write_text("model:\n  class_path: ULSTM\n  init_args:\n    lr: 0.5\n")
    assert printed(capfd, "fit", *METHOD)["model"]["init_args"]["optimization"]["lr"] == 0.5, (
        "the user's own file comes first"
    )


def test_printed_configuration_is_taken_again(tmp_path: Path, capfd: Capture) -> None:
    config = printed(capfd, "fit", *METHOD, *QUIET, *SPLIT, "--model.decoder.min_size", "3")
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(config))
    assert printed(capfd, "fit", "-c", tmp_path / "again.yaml") == config


def test_output_dir_holds_for_one_command(
    simulated: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*METHOD, *QUIET, *SPLIT, *SHORT, "--data.root", str(simulated), "--trainer.max_epochs", "1"]
    assert main(["fit", *words, "--output_dir", "else where 1"]) == 0
    other = tmp_path / "else where 1"
    assert {"mlflow.db", "artifacts", "checkpoints", "cache"} <= {path.name for path in other.iterdir()}
    assert list(other.glob("artifacts/*/artifacts/config.yaml"))
    assert not list(home.iterdir())
    assert main(["fit", *words, *NO_RUN]) == 0
    assert len(list(home.glob("checkpoints/*/best.ckpt"))) == 1
    assert len(list(other.glob("checkpoints/*"))) == 1


def test_checkpoint_is_enough_for_predict(simulated: Path, trained: Path, tmp_path: Path) -> None:
    words = [*QUIET, "--data.root", str(simulated), "--results.folder", str(tmp_path / "results")]
    cli = TrainingCLI(["predict", "--ckpt_path", str(trained), *words])
    assert (cli.datamodule.normalisation, cli.datamodule.scale) == ("percentile", 0.5)
    assert cli.model.hparams["channels"] == [4, 8]
    assert cli.model.linker == Overlap(min_overlap=0.4)
    assert cli.model.decoder.min_size == 7
    weights = torch.load(trained, weights_only=True)["state_dict"]
    assert all(torch.equal(value, weights[name]) for name, value in cli.model.state_dict().items())
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["01_RES", "02_RES", "03_RES"]
    assert list(frame_paths(tmp_path / "results/02_RES", "mask")) == list(range(12))
    assert read_mask(tmp_path / "results/02_RES/mask003.tif").shape == (64, 64), "of the size on disk"
    assert cli.trainer.predict_loop.return_predictions is False, "kept in memory they would fill it"


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_users_values_win_over_the_checkpoints(verb: str, simulated: Path, trained: Path, capfd: Capture) -> None:
    words = [verb, "--ckpt_path", trained, "--data.root", simulated, "--model.linker.min_overlap", ".9"]
    config = printed(capfd, *words, "--model.decoder.seed_threshold", ".55", "--data.scale", "0.25")
    model = config["model"]["init_args"]
    assert (model["linker"]["init_args"]["min_overlap"], model["decoder"]["init_args"]["seed_threshold"]) == (0.9, 0.55)
    assert (model["decoder"]["init_args"]["min_size"], model["channels"]) == (7, [4, 8])  # the checkpoint's
    assert (config["data"]["scale"], config["data"]["normalisation"]) == (0.25, "percentile")
    words = words[:-2]
    config = printed(capfd, *words, "--model.decoder", "ArgmaxDecoder", "--model.linker", "Lap")
    assert config["model"]["init_args"]["decoder"]["class_path"].endswith("ArgmaxDecoder")
    assert config["model"]["init_args"]["linker"]["class_path"].endswith("Lap")


def test_users_values_win_in_a_configuration_file_too(
    simulated: Path, trained: Path, tmp_path: Path, capfd: Capture
) -> None:
    linker = "model:\n  init_args:\n    linker:\n      init_args:\n        min_overlap: 0.8\n"
    (tmp_path / "mine.yaml").write_text(f"{linker}data:\n  normalisation: zscore\n")
    config = printed(capfd, "test", "-c", tmp_path / "mine.yaml", f"--ckpt_path={trained}")
    model = config["model"]["init_args"]
    assert (model["linker"]["init_args"]["min_overlap"], model["channels"]) == (0.8, [4, 8])
    assert (config["data"]["normalisation"], config["data"]["scale"]) == ("zscore", 0.5)


def test_users_decoder_is_at_work(simulated: Path, trained: Path, home: Path, capfd: Capture) -> None:
    """No cell is larger than the frame, so none is left."""
    words = ["predict", "--ckpt_path", trained, *QUIET, "--data.root", simulated, "--data.predict", "['01']"]
    assert say(capfd, *words, "--model.decoder.min_size", "5000").status == 0
    (folder,) = home.glob("predictions/*/01_RES")
    assert not any(read_mask(path).any() for path in frame_paths(folder, "mask").values())
    assert (folder / "res_track.txt").read_text() == ""


def test_checkpoint_of_a_configuration_file(simulated: Path, trained: Path, tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / "mine.yaml").write_text(f"ckpt_path: {trained}\n")
    config = printed(capfd, "predict", "-c", tmp_path / "mine.yaml")
    assert (config["data"]["scale"], config["model"]["init_args"]["channels"]) == (0.5, [4, 8])
    line = complaint(capfd, "predict", "-c", tmp_path / "mine.yaml", "--ckpt_path", "other.ckpt", *QUIET)
    assert line.startswith("no checkpoint 'other.ckpt'"), "the last one counts"


def test_training_goes_on_from_a_checkpoint(simulated: Path, trained: Path, home: Path) -> None:
    words = [*QUIET, *NO_RUN, *SPLIT, *SHORT, "--data.root", str(simulated), "--trainer.max_epochs", "2"]
    trainer = TrainingCLI(["fit", "--ckpt_path", str(trained), *words]).trainer
    assert (trainer.current_epoch, trainer.global_step) == (2, 4)
    folder = Path(trainer.checkpoint_callback.best_model_path).parent
    assert folder == home / "checkpoints/unlogged", "the earlier run's checkpoints are not touched"
    words += ["--checkpoint.folder", str(folder), "--ckpt_path", "last", "--model.channels", "[4, 8]"]
    trainer = TrainingCLI(["fit", *METHOD, *words, "--trainer.max_epochs", "3"]).trainer
    assert (trainer.current_epoch, trainer.global_step) == (3, 6)


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_untrained_weights_are_refused(verb: str, simulated: Path, home: Path, capfd: Capture) -> None:
    line = complaint(capfd, verb, *METHOD, *QUIET, *SPLIT, "--data.root", simulated)
    assert line.startswith(f"{verb} needs trained weights: give --ckpt_path")
    assert "no checkpoint 'best'" in complaint(capfd, verb, *METHOD, *QUIET, "--ckpt_path", "best")
    assert not list(home.iterdir())


def test_last_needs_a_folder(simulated: Path, capfd: Capture) -> None:
    line = complaint(capfd, "fit", *METHOD, *QUIET, *NO_RUN, *SPLIT, "--data.root", simulated, "--ckpt_path", "last")
    assert "--checkpoint.folder" in line


def test_checkpoints_that_cannot_be_used(simulated: Path, trained: Path, tmp_path: Path, capfd: Capture) -> None:
    def refused(path: Path, *words: str) -> str:
        return complaint(capfd, "predict", "--ckpt_path", path, *QUIET, "--data.root", simulated, *words)

    assert str(tmp_path / "none.ckpt") in refused(tmp_path / "none.ckpt")
    assert str(tmp_path) in refused(tmp_path)
    whole = trained.read_bytes()
    for content in (b"", b"hello", whole[:1000], whole[: len(whole) // 2]):
        (tmp_path / "broken.ckpt").write_bytes(content)
        line = refused(tmp_path / "broken.ckpt")
        assert str(tmp_path / "broken.ckpt") in line
        assert "damaged" in line
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    assert "was not written by a method of lightning_cells" in refused(tmp_path / "other.ckpt")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "code.ckpt")
    assert "not loaded" in refused(tmp_path / "code.ckpt"), "code within a file is never executed"
    assert "does not fit the configured method (size mismatch" in refused(trained, "--model.channels", "[4, 4]")
    assert "does not fit the configured method" in refused(trained, "--model.temporal", "single-frame")


def test_predict_from_two_parts_of_a_video(simulated: Path, trained: Path, home: Path, capfd: Capture) -> None:
    """They would be written to one result folder."""
    words = ["--ckpt_path", trained, *QUIET, "--data.root", simulated, "--data.predict", "['01[0:5]', '01[6:12]']"]
    assert "video 01 is chosen twice" in complaint(capfd, "predict", *words)
    assert not (home / "predictions").exists()


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_nothing_to_measure_on(verb: str, simulated: Path, trained: Path, capfd: Capture) -> None:
    line = complaint(capfd, verb, "--ckpt_path", trained, *QUIET, *NO_RUN, "--data.root", simulated)
    assert line.startswith(f"there is nothing to {verb} on")
