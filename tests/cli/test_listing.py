"""What there is to name, and completion of it in a shell."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli_cases import METHOD, QUIET, SHORT, SPLIT, complaint, run_python, say

import lightning_cells
from lightning_cells.cli import TRAINING, VERBS, main
from lightning_cells.cli.inventory import SECTIONS, purpose
from lightning_cells.data.public_sets import DATASETS

Capture = pytest.CaptureFixture[str]
ROOT = Path(lightning_cells.__file__).parents[1]


def listed(capfd: Capture, *words: str) -> dict[str, list[dict]]:
    said = say(capfd, "list", *words, "--json")
    assert (said.status, said.err) == (0, "")
    return json.loads(said.out)


def test_all_that_comes_with_the_package_is_there(capfd: Capture) -> None:
    found = listed(capfd)
    assert list(found) == list(SECTIONS)
    names = {section: [item["name"] for item in items] for section, items in found.items()}
    assert names["methods"] == sorted(path.name for path in (ROOT / "conf/method").iterdir())
    files = [
        path.relative_to(ROOT) for folder in ("method", "trainer") for path in (ROOT / "conf" / folder).rglob("*.yaml")
    ]
    assert sorted(names["presets"]) == sorted(map(str, files))
    assert names["tables"] == sorted(path.stem for path in (ROOT / "conf/reproduce").glob("*.yaml"))
    assert sorted(names["sweeps"]) == sorted(str(path.relative_to(ROOT)) for path in (ROOT / "sweeps").rglob("*.yaml"))
    assert "nuclei" in names["models"]
    assert names["data"] == [*DATASETS]
    assert names["runs"] == []
    assert all(item["says"] for items in found.values() for item in items)


def test_a_line_each(capfd: Capture) -> None:
    said = say(capfd, "list", "methods")
    lines = said.out.splitlines()
    assert lines[0] == "methods"
    assert len(lines) == 1 + len(listed(capfd, "methods")["methods"])
    assert say(capfd, "list", "runs").out == "runs\n  none yet\n"
    assert "invalid choice: 'mehtods'" in complaint(capfd, "list", "mehtods")


def test_data_sets_at_hand_have_their_size(
    simulated: Path, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTNING_CELLS_DATA", str(simulated.parent))
    (item,) = [item for item in listed(capfd, "data")["data"] if item["name"] == simulated.name]
    assert item["says"] == "3 videos, 36 frames"
    absent = listed(capfd, "data")["data"][2]
    assert "lightning-cells download DIC-C2DH-HeLa" in absent["says"]


def test_runs_have_their_best_measure_and_weights(simulated: Path, store: Path, capfd: Capture) -> None:
    words = [*METHOD, *QUIET, *SPLIT, *SHORT, "--data.root", str(simulated), "--trainer.max_epochs", "2"]
    assert main(["fit", *words]) == 0
    (run,) = listed(capfd, "runs")["runs"]
    from mlflow import MlflowClient

    history = MlflowClient(f"sqlite:///{store}").get_metric_history(run["id"], "val/SEG")
    assert run["best"] == max(point.value for point in history)
    assert Path(run["checkpoint"]).is_file()
    assert run["name"] == f"ulstm-{run['id'][:4]}"
    line = say(capfd, "list", "runs").out.splitlines()[1]
    assert run["id"] in line
    assert f"val/SEG {run['best']:.3f}" in line


def test_lists_without_runs_import_nothing_heavy() -> None:
    code = (
        "import sys, lightning_cells.cli as cli; cli.main(['list'])\n"
        "print(sorted({'torch', 'lightning', 'skimage'} & set(sys.modules)), file=sys.stderr)"
    )
    assert run_python("-c", code).err == "[]\n"


def test_purpose_ends_at_the_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("# Payer et al. 2019, table 3: the\n# bandwidth. And more.\nmodel: x\n")
    assert purpose(tmp_path / "a.yaml") == "Payer et al. 2019, table 3: the bandwidth"


def test_a_reader_that_leaves_is_no_error() -> None:
    done = subprocess.run(
        f"'{sys.executable}' -m lightning_cells list data | head -1",
        shell=True,
        text=True,
        capture_output=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("data\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_all_verbs(shell: str, capfd: Capture) -> None:
    said = say(capfd, "--completion", shell)
    assert (said.status, said.err) == (0, "")
    assert all(verb in said.out for verb in (*TRAINING, *VERBS))
    assert "--data.root" in said.out


def test_bash_completes(capfd: Capture, tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(say(capfd, "--completion", "bash").out)
    ask = 'COMP_WORDS=(lightning-cells {}); COMP_CWORD={}; _shtab_lightning_cells; echo "${{COMPREPLY[@]}}"'
    for words, expected in (("sim", "simulate"), ("track --dev", "--device"), ("simulate --kind fi", "fibres")):
        asked = ask.format(words, len(words.split()))
        done = subprocess.run(["bash", "-c", f"source {script}; {asked}"], text=True, capture_output=True, check=False)
        assert done.stdout.split() == [expected], done.stderr


def test_completion_for_no_shell(capfd: Capture) -> None:
    assert "give one of bash, zsh" in say(capfd, "--completion", "fish").err
