"""The command line: verbs, exit statuses, precedence of options, and what mistakes say."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from cli_cases import METHOD, NO_RUN, QUIET, SHORT, SPLIT, complaint, fit, run_python, say

from lightning_cells import __version__
from lightning_cells.cli import TRAINING, VERBS, main
from lightning_cells.cli.training import TrainingCLI
from lightning_cells.data.ctc import frame_paths, read_mask

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def trained(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with preprocessing and options that are not the defaults of any configuration."""
    return fit(
        simulated,
        tmp_path_factory.mktemp("trained"),
        *["--data.normalisation", "percentile", "--data.scale", "0.5", "--model.channels", "[4, 8]"],
        *["--model.min_overlap", "0.3", "--model.decoder.min_size", "7", *NO_RUN],
    )


def printed(capfd: Capture, *words: str | Path) -> dict:
    """The configuration that a command would run with."""
    said = say(capfd, *words, "--print_config")
    assert said.status == 0
    return yaml.safe_load(said.out)


# --- verbs ------------------------------------------------------------------------------------------------------------


def test_overview_names_all_verbs(capfd: Capture) -> None:
    said = say(capfd, "--help")
    assert (said.status, said.err) == (0, "")
    assert all(f"\n  {verb} " in said.out for verb in (*TRAINING, *VERBS))
    assert said == say(capfd, "-h")


def test_no_verb_is_a_mistake_that_shows_the_overview(capfd: Capture) -> None:
    said = say(capfd)
    assert said.status == 2
    assert "usage: lightning-cells VERB" in said.out + said.err


def test_version(capfd: Capture) -> None:
    assert say(capfd, "--version") == (0, f"lightning-cells {__version__}\n", "")


@pytest.mark.parametrize("verb", [*TRAINING, *VERBS])
def test_help_of_each_verb(verb: str, capfd: Capture) -> None:
    said = say(capfd, verb, "--help")
    assert (said.status, said.err) == (0, "")
    assert "--output_dir" in said.out
    if verb in TRAINING:
        assert all(option in said.out for option in ("--data.root", "--model", "--ckpt_path", "--print_config"))


def test_module_is_the_command() -> None:
    said = run_python("-m", "lightning_cells", "--version")
    assert said == (0, f"lightning-cells {__version__}\n", "")
    command = Path(sys.executable).with_name("lightning-cells")
    assert subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout == said.out
    assert run_python("-m", "lightning_cells", "fti").status == 2


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, lightning_cells.cli as cli; before = set(sys.modules); status = cli.main(['--help']); "
        "print(sorted({'torch', 'mlflow', 'lightning', 'numpy'} & set(sys.modules)), status)"
    )
    assert run_python("-c", code).out.endswith("[] 0\n")


@pytest.mark.parametrize(("verb", "near"), [("fti", "fit"), ("simulat", "simulate"), ("predicted", "predict")])
def test_unknown_verb(verb: str, near: str, capfd: Capture) -> None:
    assert complaint(capfd, verb) == f"there is no such verb: did you mean '{near}'?"


def test_verb_like_no_other(capfd: Capture) -> None:
    assert complaint(capfd, "xyzzy") == "there is no such verb: see 'lightning-cells --help'"


def test_interruption_is_told_in_one_line(capfd: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_cells.data.simulate.simulate", interrupted)
    said = say(capfd, "simulate", tmp_path / "out")
    assert (said.status, said.err) == (130, "lightning-cells simulate: interrupted\n")


def test_full_disk_is_told_in_one_line(capfd: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "out"))

    monkeypatch.setattr("lightning_cells.data.simulate.simulate", full)
    assert "No space left on device" in complaint(capfd, "simulate", tmp_path / "out")


def test_a_defect_of_ours_is_not_disguised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("lightning_cells.data.simulate.simulate", broken)
    with pytest.raises(ZeroDivisionError):
        main(["simulate", str(tmp_path / "out")])


# --- simulate, evaluate, download, dashboard, demo --------------------------------------------------------------------


def test_simulate(tmp_path: Path, capfd: Capture) -> None:
    said = say(capfd, "simulate", tmp_path / "new", "--sequences", "2", "--frames", "3", "--size", "48", "64")
    assert said.status == 0
    assert str(tmp_path / "new") in said.out
    masks = frame_paths(tmp_path / "new/02_GT/SEG", "man_seg")
    assert list(masks) == [0, 1, 2]
    assert read_mask(masks[0]).shape == (48, 64)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--frames", "0"], "frames is 0"),
        (["--frames", "x"], "--frames: invalid int value: 'x'"),
        (["--kind", "nuclie"], "'nuclei', 'brightfield', 'fibres'"),
        (["--sqeuences", "2"], "did you mean 'sequences'?"),
        (["--sequence", "2"], "did you mean 'sequences'?"),  # no abbreviations: a later option might be meant
        (["--size", "8", "8"], "32 or more"),
    ],
)
def test_simulate_refuses(words: list[str], expected: str, tmp_path: Path, capfd: Capture) -> None:
    assert expected in complaint(capfd, "simulate", tmp_path / "new", *words)
    assert not list(tmp_path.iterdir())


def test_evaluate_truth_against_itself(simulated: Path, tmp_path: Path, capfd: Capture) -> None:
    result = tmp_path / "01_RES"
    result.mkdir()
    for number, path in frame_paths(simulated / "01_GT/TRA", "man_track").items():
        (result / f"mask{number:03d}.tif").write_bytes(path.read_bytes())
    (result / "res_track.txt").write_text((simulated / "01_GT/TRA/man_track.txt").read_text())
    said = say(capfd, "evaluate", result, simulated / "01_GT", "--json")
    assert (said.status, said.err) == (0, "")
    measures = json.loads(said.out)
    assert [measures[name] for name in ("SEG", "DET", "TRA", "LNK", "OP_CSB", "OP_CTB")] == [1.0] * 6
    assert [measures[name] for name in ("NS", "FN", "FP", "ED", "EA", "EC")] == [0] * 6
    cells = sum(len(np.unique(read_mask(p))) - 1 for p in frame_paths(simulated / "01_GT/SEG", "man_seg").values())
    assert measures["seg_cells"] == cells

    table = dict(line.split() for line in say(capfd, "evaluate", result, simulated / "01_GT").out.splitlines())
    assert {name: float(value) for name, value in table.items()} == measures

    for path in sorted(result.glob("mask*.tif"))[4:]:
        path.unlink()
    first = json.loads(say(capfd, "evaluate", result, simulated / "01_GT", "--frames", "0", "4", "--json").out)
    assert first["TRA"] == 1.0
    assert first["seg_cells"] < cells
    assert "none of frame 4" in complaint(capfd, "evaluate", result, simulated / "01_GT")


def test_download(tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(*args: object, **kwargs: object) -> Path:
        asked.extend([*args, *kwargs.values()])
        return tmp_path / "Fluo-N2DH-SIM+"

    monkeypatch.setattr("lightning_cells.data.download.download", download)
    said = say(capfd, "download", "Fluo-N2DH-SIM+", "--root", tmp_path, "--url", "http://127.0.0.1/x.zip")
    assert said.status == 0
    assert asked[:3] == ["Fluo-N2DH-SIM+", tmp_path, "http://127.0.0.1/x.zip"]
    assert str(tmp_path / "Fluo-N2DH-SIM+") in said.out


def test_download_of_an_unknown_set(capfd: Capture) -> None:
    assert "did you mean Fluo-N2DH-SIM+?" in complaint(capfd, "download", "Fluo-N2DH-SIM")


def test_dashboard_is_bound_to_this_machine(capfd: Capture, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    started: list[str] = []
    monkeypatch.setattr("os.execv", lambda program, words: started.extend(words))
    said = say(capfd, "dashboard", "--port", "0")
    assert (said.status, started) == (2, [])
    said = say(capfd, "dashboard", "--port", "54999")
    assert said.status == 0
    assert "http://127.0.0.1:54999/#/experiments/" in said.out
    words = dict(itertools.pairwise(started))
    assert words["--host"] == "127.0.0.1"
    assert words["--port"] == "54999"
    assert words["--backend-store-uri"] == f"sqlite:///{home / 'mlflow.db'}"


def test_dashboard_leaves_a_server_alone(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://runs.example")
    assert "open https://runs.example" in say(capfd, "dashboard").out


def test_demo_goes_the_whole_way(
    tmp_path: Path, home: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch, simulated: Path
) -> None:
    """With a shorter training and shorter videos, which changes nothing of the way."""
    from lightning_cells.data import simulate as module

    original = module.simulate
    monkeypatch.setattr(module, "simulate", lambda out, **kwargs: original(out, **kwargs, frames=6, size=(48, 48)))
    config = yaml.safe_load((Path(__file__).parents[2] / "conf/method/ulstm/tiny.yaml").read_text())
    config["data"]["batches_per_epoch"] = 2
    (tmp_path / "conf/method/ulstm").mkdir(parents=True)
    (tmp_path / "conf/method/ulstm/tiny.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    said = say(capfd, "demo", "--epochs", "1")
    assert said.status == 0
    table = said.out[said.out.index("Held-out video 10") :].splitlines()
    rows = {line[:18].strip(): line[18:].split() for line in table if line}
    assert rows[""] == ["SEG", "DET", "TRA"]
    for name in ("U-LSTM, tiny", "Otsu, components", "Otsu, watershed"):
        assert all(0 <= float(value) <= 1 for value in rows[name])
    assert (home / "demo/tracked.png").stat().st_size > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


# --- configurations ---------------------------------------------------------------------------------------------------


def test_later_configurations_win_and_options_win_over_all(tmp_path: Path, capfd: Capture) -> None:
    for number in (1, 2):
        text = f"data:\n  batch_size: {number}\n  stride: {number}\nmodel:\n  init_args:\n    lr: {number}.0e-5\n"
        (tmp_path / f"{number}.yaml").write_text(text)
    one, two = (["-c", tmp_path / f"{number}.yaml"] for number in (1, 2))
    config = printed(capfd, "fit", *METHOD, *one, *two)
    assert (config["data"]["batch_size"], config["model"]["init_args"]["lr"]) == (2, 2e-5)
    config = printed(capfd, "fit", *METHOD, *two, *one, "--data.batch_size", "5", "--model.lr=0.25")
    assert (config["data"]["batch_size"], config["data"]["stride"]) == (5, 1)
    assert config["model"]["init_args"]["lr"] == 0.25
    assert config["model"]["init_args"]["channels"] == [8, 16, 32, 64]  # of the first of all


def test_shipped_configurations_are_found_from_anywhere(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert printed(capfd, "fit", "-c", "conf/method/ulstm/tiny.yaml") == printed(capfd, "fit", f"--config={METHOD[1]}")
    (tmp_path / "conf/method/ulstm").mkdir(parents=True)
    (tmp_path / "conf/method/ulstm/tiny.yaml").write_text("model:\n  class_path: ULSTM\n  init_args:\n    lr: 0.5\n")
    assert printed(capfd, "fit", *METHOD)["model"]["init_args"]["lr"] == 0.5, "the user's own file comes first"


def test_printed_configuration_is_taken_again(tmp_path: Path, capfd: Capture) -> None:
    config = printed(capfd, "fit", *METHOD, *QUIET, *SPLIT, "--model.decoder.min_size", "3")
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(config))
    assert printed(capfd, "fit", "-c", tmp_path / "again.yaml") == config


def test_output_dir_holds_for_one_command(
    simulated: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*METHOD, *QUIET, *SPLIT, *SHORT, "--data.root", str(simulated), "--trainer.max_epochs", "1"]
    assert main(["fit", *words, "--output_dir", "else where #1"]) == 0
    other = tmp_path / "else where #1"
    assert {"mlflow.db", "artifacts", "checkpoints", "cache"} <= {path.name for path in other.iterdir()}
    assert list(other.glob("artifacts/*/artifacts/config.yaml"))
    assert not list(home.iterdir())
    assert main(["fit", *words, *NO_RUN]) == 0
    assert len(list(home.glob("checkpoints/*/best.ckpt"))) == 1
    assert len(list(other.glob("checkpoints/*"))) == 1


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_checkpoint_is_enough_for_predict(simulated: Path, trained: Path, tmp_path: Path) -> None:
    words = [*QUIET, "--data.root", str(simulated), "--results.folder", str(tmp_path / "results")]
    cli = TrainingCLI(["predict", "--ckpt_path", str(trained), *words])
    assert (cli.datamodule.normalisation, cli.datamodule.scale) == ("percentile", 0.5)
    assert cli.model.hparams["channels"] == [4, 8]
    assert cli.model.hparams["min_overlap"] == 0.3
    assert cli.model.decoder.min_size == 7
    weights = torch.load(trained, weights_only=True)["state_dict"]
    assert all(torch.equal(value, weights[name]) for name, value in cli.model.state_dict().items())
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["01_RES", "02_RES", "03_RES"]
    assert list(frame_paths(tmp_path / "results/02_RES", "mask")) == list(range(12))
    assert read_mask(tmp_path / "results/02_RES/mask003.tif").shape == (64, 64), "of the size on disk"
    assert cli.trainer.predict_loop.return_predictions is False, "kept in memory they would fill it"


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_users_values_win_over_the_checkpoints(verb: str, simulated: Path, trained: Path, capfd: Capture) -> None:
    words = [verb, "--ckpt_path", trained, "--data.root", simulated, "--model.min_overlap", ".9"]
    config = printed(capfd, *words, "--model.decoder.seed_threshold", ".55", "--data.scale", "0.25")
    model = config["model"]["init_args"]
    assert (model["min_overlap"], model["decoder"]["init_args"]["seed_threshold"]) == (0.9, 0.55)
    assert (model["decoder"]["init_args"]["min_size"], model["channels"]) == (7, [4, 8])  # the checkpoint's
    assert (config["data"]["scale"], config["data"]["normalisation"]) == (0.25, "percentile")
    config = printed(capfd, *words, "--model.decoder", "ArgmaxDecoder")
    assert config["model"]["init_args"]["decoder"]["class_path"].endswith("ArgmaxDecoder")


def test_users_values_win_in_a_configuration_file_too(
    simulated: Path, trained: Path, tmp_path: Path, capfd: Capture
) -> None:
    (tmp_path / "mine.yaml").write_text("model:\n  init_args:\n    min_overlap: 0.8\ndata:\n  normalisation: zscore\n")
    config = printed(capfd, "test", "-c", tmp_path / "mine.yaml", f"--ckpt_path={trained}")
    assert (config["model"]["init_args"]["min_overlap"], config["model"]["init_args"]["channels"]) == (0.8, [4, 8])
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


# --- mistakes ---------------------------------------------------------------------------------------------------------

MISTAKES = {
    "--data.btch_size 3": "there is no option 'data.btch_size': did you mean 'data.batch_size'?",
    "--data.augmentation.corp 3": "there is no option 'data.augmentation.corp': did you mean 'data.augmentation.crop'?",
    "--trainer.max_epoch 3": "there is no option 'trainer.max_epoch': did you mean 'trainer.max_epochs'?",
    "--ckpt x.ckpt": "there is no option 'ckpt': did you mean 'ckpt_path'?",
    "--model.lstm_kernal 3": "there is no option 'model.lstm_kernal': did you mean 'model.lstm_kernel'?",
    "--model.decoder.seed_treshold .4": (
        "there is no option 'model.decoder.seed_treshold': did you mean 'model.decoder.seed_threshold'?"
    ),
    "--trainer.logger.experiment x": (
        "there is no option 'trainer.logger.experiment': did you mean 'trainer.logger.experiment_name'?"
    ),
    "--data.batch_size many": "data.batch_size: Expected int. Got value: many",
    "--model.lr high": "model.lr: Expected float. Got value: high",
    "--model.norm grp": "model.norm: Expected Literal['none', 'group', 'layer']. Got value: grp",
    "--model.decoder.border x": "model.decoder.border: Expected int. Got value: x",
    "--trainer.max_epochs many": "trainer.max_epochs: Expected int. Got value: many",
    "--data.augmentation.scale [1]": "data.augmentation.scale: Expected a tuple with 2 elements. Got value: [1]",
    "--seed_everything x": "seed_everything: Expected bool or Expected int. Got value: x",
    "--model.decoder Nope": "model.decoder: 'Nope' is no class: give its import path",
    "--trainer.callbacks Nope": "trainer.callbacks: 'Nope' is no class: give its import path",
    "--data.root": "argument --data.root: expected one argument",
    "stray": "there is no option 'stray': see --help",
    "-c nofile.yaml": ("no file 'nofile.yaml', neither in the working directory nor shipped with lightning_cells"),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistake_in_an_option(words: str, simulated: Path, home: Path, capfd: Capture) -> None:
    line = complaint(capfd, "fit", *METHOD, *QUIET, "--data.root", simulated, *words.split(" "))
    assert line == MISTAKES[words]
    assert not list(home.iterdir()), "nothing was begun"


VALUES = {
    "--model UNET": "model: 'UNET' is no method: give -c conf/method/NAME/tiny.yaml, --model NAME with one of ",
    "--model lightning_cells.methods.CellMethod": "model: no method is chosen: give -c conf/method/NAME/tiny.yaml",
    "--model.decoder.seed_threshold 4": "seed_threshold: 4.0 is no probability",
    "--model.kernel 2": "kernel 2",
    "--model.lr -1": "model.lr=-1.0: must be positive",
    "--trainer.devices x": "trainer: `devices`",
    "--trainer.accelerator gpuu": "trainer: You selected an invalid accelerator name",
    "--trainer.strategy dpp": "trainer: You selected an invalid strategy name",
    "--trainer.callbacks.decay 3": "Invalid decay value 3.0",
    "--pictures.samples 0": "pictures.samples=0",
    "--data.batch_size 0": "data.batch_size=0: must be at least 1",
    "--data.batches_per_epoch 0": "data.batches_per_epoch=0: must be at least 1",
    "--data.clip_length 0": "data.clip_length=0: must be at least 1",
    "--data.clip_length 13": "fewer than data.clip_length=13",
    "--data.stride 0": "data.stride=0: must be at least 1",
    "--data.chunk 0": "data.chunk=0: must be at least 1",
    "--data.num_workers -1": "data.num_workers=-1: must be 0 or more",
    "--data.folds 1": "data.folds=1: must be 2 or more",
    "--data.scale 0": "data.scale=0.0",
    "--data.train ['07']": "data.train: no sequence matches '07'",
    "--data.val ['01[40:]']": "data.val: sequence 01 has no frame in [40:12]",
}


def test_values_out_of_range(simulated: Path, home: Path, capfd: Capture) -> None:
    for words, expected in VALUES.items():
        line = complaint(capfd, "fit", *METHOD, *QUIET, *NO_RUN, "--data.root", simulated, *words.split(" ", 1))
        assert expected in line, words
    assert [path.name for path in home.iterdir()] == ["cache"]


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_nothing_to_measure_on(verb: str, simulated: Path, trained: Path, capfd: Capture) -> None:
    line = complaint(capfd, verb, "--ckpt_path", trained, *QUIET, *NO_RUN, "--data.root", simulated)
    assert line.startswith(f"there is nothing to {verb} on")


def test_no_method(simulated: Path, capfd: Capture) -> None:
    for verb in TRAINING:
        assert complaint(capfd, verb, "--data.root", simulated).startswith("model: no method is chosen: give -c")


FILES = {
    "data:\n  btch_size: 3\n": "there is no option 'data.btch_size': did you mean 'data.batch_size'?",
    "dta:\n  batch_size: 3\n": "there is no option 'dta.batch_size': did you mean 'data.batch_size'?",
    "model:\n  init_args:\n    lrr: 3\n": "there is no option 'model.lrr': did you mean 'model.lr'?",
    "model:\n  init_args:\n    decoder:\n      init_args:\n        min_sise: 3\n": (
        "there is no option 'model.decoder.min_sise': did you mean 'model.decoder.min_size'?"
    ),
    "trainer:\n  max_epoch: 3\n": "there is no option 'trainer.max_epoch': did you mean 'trainer.max_epochs'?",
    "data:\n  batch_size: many\n": "data.batch_size: Expected int. Got value: many",
    "data: [\n": "{file}, line 2: is no valid YAML",
    "data:\n\tbatch_size: 3\n": "{file}, line 2: is no valid YAML",
    "- data\n": "{file}: is no configuration",
    "hello": "{file}: is no configuration",
    "\x00": "{file}: is not a readable text file",
}


@pytest.mark.parametrize("text", FILES)
def test_mistake_in_a_file(text: str, simulated: Path, tmp_path: Path, home: Path, capfd: Capture) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    line = complaint(capfd, "fit", *METHOD, *QUIET, "--data.root", simulated, "-c", file)
    assert line.startswith(FILES[text].format(file=file))
    assert not list(home.iterdir())


def test_files_that_are_no_text(simulated: Path, tmp_path: Path, capfd: Capture) -> None:
    for path in (tmp_path, simulated / "01/t000.tif"):
        assert f"{path}: is not a readable text file" in complaint(capfd, "fit", "-c", path)


def test_mistake_is_all_that_processes_say_on_stderr(tmp_path: Path, home: Path) -> None:
    """Where nothing captures Lightning's reports; the second process is not even started."""
    words = ["fit", *METHOD, *QUIET, "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    said = run_python("-m", "lightning_cells", *words, "--data.root", tmp_path / "none")
    assert said.status == 2
    assert said.err.startswith(f"lightning-cells fit: error: no data folder '{tmp_path / 'none'}'")
    assert said.err.count("\n") == 1
    assert not (home / "checkpoints").exists()
