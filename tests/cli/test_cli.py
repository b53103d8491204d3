"""The verbs of the command line: what they do, their exit statuses, and that nothing heavy is imported."""

import argparse
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from cli_cases import complaint, run_python, say

from lightning_cells import __version__
from lightning_cells.cli import TRAINING, VERBS, main, verb_module
from lightning_cells.data.ctc import frame_paths
from lightning_cells.data.image_files import read_mask

Capture = pytest.CaptureFixture[str]


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
    assert f"lightning-cells {verb}" in said.out.partition("\n")[2], "an example"


@pytest.mark.parametrize("verb", TRAINING)
def test_help_of_trainings(verb: str, capfd: Capture) -> None:
    """The short one fits a screen, and has nothing that the whole one does not."""
    short, whole = say(capfd, verb, "--help"), say(capfd, verb, "--help-all")
    assert (whole.status, whole.err) == (0, "")
    for said in (short, whole):
        assert said.out.startswith(f"usage: lightning-cells {verb} [-c FILE ...] [--option VALUE ...]\n")
        assert all(option in said.out for option in ("--data.root", "--model", "--print_config"))
    assert "--ckpt_path" in whole.out
    assert short.out.count("\n") <= 24
    assert max(map(len, short.out.splitlines())) <= 120
    options = set(re.findall(r"(?<![\w-])--[a-z_.]*[a-z]", short.out))
    assert {option for option in options if option not in whole.out} <= {
        "--model.lr",
        "--model.loss",
        "--model.decoder",
    }


@pytest.mark.parametrize("verb", VERBS)
def test_examples_of_the_help(verb: str) -> None:
    """They are what the verb takes."""
    module = verb_module(verb)
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    module.add_arguments(parser)
    examples = re.findall(r"^ *lightning-cells (\S+) ?(.*)$", module.__doc__, re.MULTILINE)
    assert verb in dict(examples)
    for name, words in examples:
        if name == verb:
            _, others = parser.parse_known_args(shlex.split(words))
            assert not others or module.PASSES_ON


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


HEAVY = "{'torch', 'mlflow', 'lightning', 'skimage'}"


def test_help_of_a_verb_imports_nothing_heavy() -> None:
    code = (
        "import sys, lightning_cells.cli as cli\n"
        "for verb in (*cli.TRAINING, *cli.VERBS):\n"
        f"    cli.main([verb, '--help']); print('heavy', verb, sorted({HEAVY} & set(sys.modules)))"
    )
    told = [line.split(maxsplit=2) for line in run_python("-c", code).out.splitlines() if line.startswith("heavy ")]
    assert {verb: modules for _, verb, modules in told} == dict.fromkeys((*TRAINING, *VERBS), "[]")


def test_measuring_a_result_imports_nothing_heavy() -> None:
    code = f"import sys, lightning_cells.metrics.evaluate; print(sorted({HEAVY} & set(sys.modules)))"
    assert run_python("-c", code).out == "[]\n"


@pytest.mark.parametrize("words", [["fit"], ["cross-validate"], ["launch", "slurm", "--dry-run", "--", "fit"]])
def test_a_file_that_is_not_there_is_told_before_anything_heavy_is_imported(words: list[str]) -> None:
    words = [*words, "-c", "conf/method/ulstm/tinny.yaml"]
    code = f"import sys, lightning_cells.cli as cli; cli.main({words!r}); print(sorted({HEAVY} & set(sys.modules)))"
    said = run_python("-c", code)
    assert said.out == "[]\n", "no script, either"
    assert "no file 'conf/method/ulstm/tinny.yaml'" in said.err
    assert said.err.endswith("did you mean 'conf/method/ulstm/tiny.yaml'?\n")


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
    variables: dict[str, str] = {}
    monkeypatch.setattr("os.execve", lambda program, words, env: (started.extend(words), variables.update(env)))
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(
        "lightning_cells.cli.dashboard._when_it_answers", lambda health, lines, opens: told.extend(lines)
    )
    said = say(capfd, "dashboard", "--port", "0")
    assert (said.status, started) == (2, [])
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--bind 0.0.0.0:80")
    monkeypatch.setenv("MLFLOW_UVICORN_OPTS", "--host 0.0.0.0")
    said = say(capfd, "dashboard", "--port", "54999")
    assert said.status == 0
    assert told[0][1].startswith("http://127.0.0.1:54999/#/experiments/")
    words = dict(itertools.pairwise(started))
    assert words["--host"] == "127.0.0.1"
    assert words["--port"] == "54999"
    assert variables["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{home / 'mlflow.db'}"
    assert not any("0.0.0.0" in value for value in variables.values()), "whatever the environment says"
    assert variables["PATH"] == os.environ["PATH"]


def test_dashboard_leaves_a_server_alone(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://runs.example")
    assert "open https://runs.example" in say(capfd, "dashboard").out


@pytest.mark.slow
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
    first, table = (
        said.out[: said.out.index("Now a network")],
        said.out[said.out.index("Held-out video 10") :].splitlines(),
    )
    assert "nuclei, as shipped" in first
    assert (home / "demo/nuclei.png").stat().st_size > 1000
    rows = {line[:18].strip(): line[18:].split() for line in table if line}
    assert rows[""] == ["SEG", "DET", "TRA"]
    for name in ("nuclei, as shipped", "U-LSTM, tiny", "Otsu, components", "Otsu, watershed"):
        assert all(0 <= float(value) <= 1 for value in rows[name])
    assert (home / "demo/tracked.png").stat().st_size > 1000
    (report,) = home.glob("reports/*/report.html")
    assert said.out.count(str(report.relative_to(tmp_path.parent))) >= 1
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]
