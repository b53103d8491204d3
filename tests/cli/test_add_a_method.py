"""The pages that say how to add a method and a loss are right: what stands there runs."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cli_cases import QUIET, SHORT, SPLIT, say

from lightning_cells.methods.loading import checkpoint_settings
from lightning_cells.trust import ALLOW_VARIABLE

pytestmark = pytest.mark.slow

ALLOW = ["--allow", "my_lab"]
PAGES = Path(__file__).parents[2] / "docs/how-to"
BLOCK = re.compile(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", re.DOTALL)


def written(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files of a page, importable."""
    for name, text in BLOCK.findall((PAGES / page).read_text()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_lab"]:
        del sys.modules[name]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from written("add-a-method.md", tmp_path, monkeypatch)


@pytest.fixture
def my_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from written("add-a-loss.md", tmp_path, monkeypatch)


def test_page_has_three_files(package: Path) -> None:
    files = sorted(str(path.relative_to(package)) for path in package.rglob("*") if path.suffix in (".py", ".yaml"))
    assert files == ["conf/method/dice/tiny.yaml", "my_lab/method.py", "my_lab/network.py"]


@pytest.mark.parametrize("network", [[], ["--model.network", "UNet", "--model.network.width", "0.25"]], ids=str)
def test_method_of_the_page_works(
    package: Path, network: list[str], simulated: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["-c", package / "conf/method/dice/tiny.yaml", *QUIET, *SPLIT, *SHORT, "--data.root", simulated, *network]
    said = say(capfd, "fit", *words, "--trainer.max_epochs", "1")
    assert (said.status, said.err) == (0, "")
    assert said.out.count("--allow my_lab") == 2, "of the commands that go on"
    (checkpoint,) = home.glob("checkpoints/*/best.ckpt")
    assert say(capfd, "test", *QUIET, *SPLIT, "--data.root", simulated, "--ckpt_path", checkpoint, *ALLOW).status == 0
    result = home / "RES"
    said = say(capfd, "track", simulated / "03", "--checkpoint", checkpoint, "--out", result, *ALLOW)
    assert said.status == 0
    assert (result / "res_track.txt").exists()


def test_option_of_the_page_reaches_the_network(package: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["-c", package / "conf/method/dice/tiny.yaml", *QUIET, "--model.network.width", "24"]
    said = say(capfd, "fit", *words, "--print_config")
    assert said.status == 0
    assert "width: 24" in said.out


@pytest.mark.parametrize(
    ("method", "option"), [("ulstm", "--model.loss"), ("gruunet", "--model.loss.class_path")], ids=str
)
def test_a_loss_of_ones_own_is_one_file(
    my_lab: Path,
    method: str,
    option: str,
    simulated: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert [path.name for path in my_lab.iterdir()] == ["my_lab.py"]
    chosen = ["-c", f"conf/method/{method}/tiny.yaml", option, "my_lab.Dice", "--model.loss.smooth", "3"]
    words = [*chosen, *QUIET, *SPLIT, *SHORT, "--data.root", simulated, "--trainer.max_epochs", "1"]
    said = say(capfd, "fit", *words)
    assert (said.status, said.err) == (0, "")
    (checkpoint,) = home.glob("checkpoints/*/best.ckpt")
    monkeypatch.setenv(ALLOW_VARIABLE, "my_lab")
    kept = checkpoint_settings(checkpoint)["model"]["init_args"]["loss"]
    assert kept == {"class_path": "my_lab.Dice", "init_args": {"smooth": 3.0}}
    assert say(capfd, "track", simulated / "03", "--checkpoint", checkpoint, "--out", home / "RES").status == 0
    assert (home / "RES" / "res_track.txt").exists()


def test_the_loss_of_the_page_falls_from_one_to_nothing(my_lab: Path) -> None:
    from my_lab import Dice

    classes = torch.tensor([[[[0, 1], [2, -1]]]])
    right = 20 * torch.nn.functional.one_hot(classes.clamp(min=0), 3).movedim(-1, 2).float()
    loss = Dice(smooth=0.0).build()
    assert loss(right, classes=classes) == pytest.approx(0, abs=1e-6)
    assert loss(right.roll(1, 2), classes=classes) == pytest.approx(1, abs=1e-6)
