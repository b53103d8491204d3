"""What training verbs say: a line for each epoch and stage, no noise, and at the end what to do next."""

import re
import shlex
from pathlib import Path

import pytest
from cli_cases import METHOD, NO_RUN, SHORT, SPLIT, complaint, say

from lightning_cells.cli import main

Capture = pytest.CaptureFixture[str]
CPU = ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]
NOISE = ("Seed set", "GPU available", "TPU", "FLOPs", "site-packages", "logging interval", "Restoring", "max_epochs=")


@pytest.fixture
def trained(simulated: Path, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> str:
    """What a training of two epochs says, in a working folder that holds its outputs."""
    monkeypatch.chdir(store.parent)
    split = [*SPLIT[:4], "--data.test", '["03"]']
    said = say(capfd, "fit", *METHOD, *CPU, *split, *SHORT, "--data.root", simulated, "--trainer.max_epochs", "2")
    assert (said.status, said.err) == (0, "")
    return said.out


def test_a_log_has_a_line_for_each_epoch_and_the_next_commands_run(
    trained: str, store: Path, capfd: Capture, simulated: Path
) -> None:
    lines = trained.splitlines()
    run = next((store.parent / "checkpoints").glob("*")).name
    assert "\r" not in trained
    assert not [word for word in NOISE if word in trained]
    assert re.fullmatch(r"ULSTM \([\d,]+ parameters, cpu\): trains on 2 videos \(24 frames\) of nuclei, .*", lines[0])
    assert lines[1] == f"Run {run}, ulstm-{run[:4]}"
    epochs = [line for line in lines if line.startswith("epoch ")]
    pattern = r"epoch {} of 2  loss [\d.]+  SEG (\d\.\d{{3}})  DET \d\.\d{{3}}  TRA \d\.\d{{3}}  \d+ s(  best so far)?"
    seg = [float(re.fullmatch(pattern.format(number), line)[1]) for number, line in enumerate(epochs, 1)]
    assert epochs[0].endswith("best so far")
    assert epochs[1].endswith("best so far") == (seg[1] > seg[0])
    best = 1 + (seg[1] > seg[0])
    assert f"Run {run}, ulstm-{run[:4]}: 2 epochs in " in trained
    assert f"the best is epoch {best}: SEG {seg[best - 1]:.3f}, DET " in trained

    commands = dict(re.findall(r"^  (\w+ \w+(?: \w+)?) +lightning-cells (.*)$", trained, re.MULTILINE))
    assert set(commands) == {"measure it", "track with it", "train longer", "look at it"}
    assert commands["train longer"].startswith(f"fit --resume {run}")
    tested = say(capfd, *shlex.split(commands["measure it"]), *CPU)
    assert (tested.status, tested.err) == (0, "")
    assert re.search(r"^test/SEG \d\.\d{3}  test/DET ", tested.out, re.MULTILINE)
    report = Path(re.search(r"report +(\S+)", tested.out)[1])
    assert report.is_file()
    assert f"compare {report.parent.name} RUN" in tested.out
    assert not [word for word in NOISE if word in tested.out]
    track = commands["track with it"].replace("FRAMES", str(simulated / "03"))
    assert main(shlex.split(track)) == 0
    assert Path("RES/res_track.txt").is_file()


def test_predict_ends_with_the_command_that_measures(trained: str, capfd: Capture, simulated: Path) -> None:
    checkpoint = re.search(r"best checkpoint +(\S+)", trained)[1]
    words = ["--data.root", str(simulated), "--data.predict", '["03"]', "--ckpt_path", checkpoint]
    said = say(capfd, "predict", *words, *CPU)
    command = re.search(r"lightning-cells (evaluate .*)", said.out)[1]
    measured = say(capfd, *shlex.split(command))
    assert measured.status == 0
    assert "SEG" in measured.out


def test_without_a_run_there_is_none_to_look_at(simulated: Path, home: Path, capfd: Capture) -> None:
    said = say(
        capfd, "fit", *METHOD, *CPU, *SPLIT, *SHORT, *NO_RUN, "--data.root", simulated, "--trainer.max_epochs", "1"
    )
    assert "best checkpoint" in said.out
    assert "Run " not in said.out
    assert "dashboard" not in said.out


def test_a_bar_and_the_summary_of_the_network_can_be_had(simulated: Path, capfd: Capture) -> None:
    said = say(
        capfd,
        *("fit", *METHOD, *CPU, *SPLIT, *SHORT, *NO_RUN, "--data.root", simulated, "--trainer.fast_dev_run", "true"),
        *("--trainer.enable_model_summary", "true"),
    )
    assert said.status == 0
    assert "Trainable params" in said.out


def test_the_warning_of_a_library_is_one_line(capfd: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import warnings

    def warned(*args: object, **kwargs: object) -> Path:
        warnings.warn("first\n  and second line", UserWarning, stacklevel=1)
        return tmp_path

    monkeypatch.setattr("lightning_cells.data.simulate.simulate", warned)
    said = say(capfd, "simulate", tmp_path / "out")
    assert said.err == "lightning-cells simulate: warning: first and second line\n"
    assert "there is no option" in complaint(capfd, "simulate", tmp_path, "--x")
