"""The commands that newcomers copy from README and the first pages run, in the order in which they stand there.

They run as they are written, with what makes them short added at their end: small videos, one epoch of two batches.
"""

import doctest
import glob
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_cells.cli import main
from lightning_cells.data.simulate import simulate

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "docs/getting-started/first-steps.md", "docs/getting-started/your-data.md"]
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
CPU = ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]
ONCE = ["--trainer.max_epochs", "1", "--data.batches_per_epoch", "2", "--trainer.limit_val_batches", "1"]
SMALL = ["--data.clip_length", "2", "--data.augmentation.crop", "32"]
SHORT = {
    "simulate": ["--frames", "6", "--size", "48", "48"],
    "fit": [*QUIET, *CPU, *ONCE, *SMALL],
    "test": [*QUIET, *CPU],
    "predict": [*QUIET, *CPU],
}
ELSEWHERE = ("demo", "dashboard")  # have tests of their own


def commands(page: str) -> Iterator[list[str]]:
    """The words of each command of a page's blocks."""
    for block in BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def as_a_shell_does(words: list[str]) -> list[str]:
    """The words with files in place of patterns that match any."""
    return [found for word in words for found in (sorted(glob.glob(word)) or [word])]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what the pages take for granted: frames of one's own, and public data under its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIGHTNING_CELLS_HOME")
    small = {"frames": 8, "size": (48, 48)}
    simulate(tmp_path / "data/Fluo-N2DH-SIM+", sequences=1, frames=65, size=(48, 48))
    simulate(tmp_path / "mydata", sequences=2, **small)
    shutil.copytree(tmp_path / "mydata/01", tmp_path / "my_frames")
    shutil.copytree(tmp_path / "mydata/01", tmp_path / "plate/A1")
    shutil.copytree(tmp_path / "mydata/02", tmp_path / "plate/A2")
    stills = simulate(tmp_path / "as_stills", sequences=1, **small)
    (tmp_path / "mystills").mkdir()
    shutil.copytree(stills / "01", tmp_path / "mystills/images")
    (tmp_path / "mystills/labels").mkdir()
    for path in (stills / "01_GT/SEG").iterdir():
        shutil.copy(path, tmp_path / "mystills/labels" / path.name.replace("man_seg", "t"))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_commands_run(page: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = 0
    for words in commands(page):
        if words[0] == "make":
            subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True)
        elif words[0] == "lightning-cells" and words[1] not in ELSEWHERE:
            if "best.ckpt" in words:
                _hand_over(place)
            assert main(_with_runs(_short(as_a_shell_does(words[1:])), place)) == 0, " ".join(words)
            ran += 1
    assert ran >= 2


def _short(words: list[str]) -> list[str]:
    stills = ["--data.clip_length", "1"] if "images" in words else []
    return [*words, *SHORT.get(words[0], []), *stills]


def _with_runs(words: list[str], place: Path) -> list[str]:
    """The id of the newest run for RUN, and that of the one before for a second RUN."""
    runs = sorted((place / "outputs/checkpoints").glob("*/best.ckpt"), key=lambda path: path.stat().st_mtime)
    names = [path.parent.name for path in runs]
    filled = []
    for word in words:
        if re.search(r"\bRUN\b", word):
            word = re.sub(r"\bRUN\b", names.pop() if word == "RUN" else names[-1], word)
        filled.append(word)
    return filled


def _hand_over(place: Path) -> None:
    """The checkpoint of somebody else's training."""
    fit = ["fit", "-c", "conf/method/ulstm/tiny.yaml", "--data.root", "mydata", "--data.train", '["01"]']
    assert main(_short([*fit, "--data.val", '["02"]', "--output_dir", "theirs"])) == 0
    (path,) = (place / "theirs/checkpoints").glob("*/best.ckpt")
    path.rename(place / "best.ckpt")


LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "benchmarks/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    missing = [link for link in LINK.findall((ROOT / page).read_text()) if not ((ROOT / page).parent / link).exists()]
    assert missing == []


def test_the_page_on_python_says_what_happens(place: Path) -> None:
    _hand_over(place)
    page = (ROOT / "docs/how-to/use-from-python.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```pycon\n(.*?)```", page, re.DOTALL))
    test = doctest.DocTestParser().get_doctest(code, {}, "use-from-python.md", None, 0)
    assert len(test.examples) > 15
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)
    assert runner.run(test, out=said.append).failed == 0, "".join(said)
