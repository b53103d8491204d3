"""The page that says how to add a method is right: what stands there runs."""

import re
import sys
from pathlib import Path

import pytest
from cli_cases import QUIET, SHORT, SPLIT, say

PAGE = Path(__file__).parents[2] / "docs/how-to/add-a-method.md"
BLOCK = re.compile(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", re.DOTALL)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The files of the page, importable."""
    for name, text in BLOCK.findall(PAGE.read_text()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_lab"]:
        del sys.modules[name]


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
    (checkpoint,) = home.glob("checkpoints/*/best.ckpt")
    assert say(capfd, "test", *QUIET, *SPLIT, "--data.root", simulated, "--ckpt_path", checkpoint).status == 0
    result = home / "RES"
    said = say(capfd, "track", simulated / "03", "--checkpoint", checkpoint, "--out", result)
    assert said.status == 0
    assert (result / "res_track.txt").exists()


def test_option_of_the_page_reaches_the_network(package: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["-c", package / "conf/method/dice/tiny.yaml", *QUIET, "--model.network.width", "24"]
    said = say(capfd, "fit", *words, "--print_config")
    assert said.status == 0
    assert "width: 24" in said.out
