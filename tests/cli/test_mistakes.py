"""What mistakes in options and configuration files say: one line, with the nearest right name."""

from pathlib import Path

import pytest
from cli_cases import METHOD, NO_RUN, QUIET, complaint, run_python

from lightning_cells.cli import TRAINING
from lightning_cells.errors import InputError, without_passwords

Capture = pytest.CaptureFixture[str]


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
    "--model.lr high": "model.optimization.lr: Expected float. Got value: high",
    "--model.norm grp": "model.norm: Expected Literal['none', 'group', 'layer']. Got value: grp",
    "--model.decoder.border x": "model.decoder.border: Expected int. Got value: x",
    "--trainer.max_epochs many": "trainer.max_epochs: Expected int. Got value: many",
    "--data.augmentation.scale [1]": "data.augmentation.scale: Expected a tuple with 2 elements. Got value: [1]",
    "--data.train [01]": (
        'data.train: Expected str. Got value: 1: quote names that look like numbers, as in \'["01", "02"]\''
    ),
    "--data.train 01": (
        "data.train: Expected list. Got value: 01: write a list in brackets, as in '[\"01\", \"02\"]' or '[1, 2]'"
    ),
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


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("data: {root: }", "data.root: Expected str"),
        ("data:\n  batch_size:", "data.batch_size: Expected int"),
        ("data: {augmentation: {noise: }}", "data.augmentation.noise: Expected float"),
        ("model: {init_args: {channels: }}", "model.channels: Expected tuple"),
        ("model: {decoder: {border: }}", "model.decoder.border: Expected int"),
        ("trainer: {max_steps: }", "trainer.max_steps: Expected int"),
        ("checkpoint: {mode: }", "checkpoint.mode: Expected Literal['min', 'max']"),
    ],
)
def test_empty_value_in_a_file(text: str, option: str, home: Path, tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / "empty.yaml").write_text(text)
    line = complaint(capfd, "fit", *METHOD, *QUIET, "-c", tmp_path / "empty.yaml")
    assert line == f"{option}. Got value: None: give one, or leave the option out"
    assert not list(home.iterdir())


VALUES = {
    "--model UNET": "model: 'UNET' is no method: give -c conf/method/NAME/tiny.yaml, --model NAME with one of ",
    "--model lightning_cells.methods.CellMethod": "model: no method is chosen: give -c conf/method/NAME/tiny.yaml",
    "--model.decoder.seed_threshold 4": "seed_threshold: 4.0 is no probability",
    "--model.kernel 2": "kernel 2",
    "--model.lr -1": "model.optimization.lr=-1.0: must be positive",
    "--trainer.devices x": "trainer: `devices`",
    "--trainer.accelerator gpuu": "trainer: You selected an invalid accelerator name",
    "--trainer.strategy dpp": "trainer: You selected an invalid strategy name",
    "--trainer.callbacks.decay 3": "AveragedWeights: decay 3.0: must be from 0 to 1",
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


def test_passwords_are_not_shown() -> None:
    said = "runs cannot be kept in postgresql://me:s3:cr/t@db.example/runs"
    assert without_passwords("postgresql://me:secret@db.example:5432/runs: away") == (
        "postgresql://me:***@db.example:5432/runs: away"
    )
    assert without_passwords("sqlite:////a/b.db") == "sqlite:////a/b.db"
    assert without_passwords("http://runs.example:5000 and a@b") == "http://runs.example:5000 and a@b"
    assert "s3" not in without_passwords(said.replace("/t", "t"))
    several = "uri: postgresql://:geheim@host:5432/x\nother: http://host:5000/a@b"
    assert without_passwords(several) == "uri: postgresql://:***@host:5432/x\nother: http://host:5000/a@b"


SECRET = ["postgresql://h/db?user=me&password=secret&sslmode=require", "http://me:se@secret@h:5000"]
SECRET += ["uri: postgresql://h/db?sslpassword=secret", "--storage=postgresql://h/db?Password=secret"]
SECRET += ["a://b/?api_key=secret", "s3://h/?a=1&X-Token=secret"]


@pytest.mark.parametrize("address", SECRET)
def test_passwords_in_queries_are_not_shown(address: str) -> None:
    shown = without_passwords(address)
    assert "secret" not in shown
    assert "***" in shown
    assert without_passwords(shown) == shown
    assert "secret" not in str(InputError(f"{address} is away"))


def test_error_does_not_show_the_password_of_a_store(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresl://me:secret@db.example/runs")
    said = complaint(capfd, "register", "a_run", "nuclei")
    assert "db.example" in said
    assert "secret" not in said
