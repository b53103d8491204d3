"""The code, the packages and the machine behind a result, against what git and Python themselves say."""

import subprocess
from pathlib import Path

import pytest

from lightning_cells.callbacks import run_info


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git checkout that holds a package of one file."""
    folder = tmp_path / "checkout"
    (folder / "package").mkdir(parents=True)
    (folder / "package/code.py").write_text("x = 1\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first")
    monkeypatch.setattr(run_info, "__file__", str(folder / "package/code.py"))
    return folder


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def test_clean_checkout(checkout: Path) -> None:
    state = run_info.git_state()
    assert state == (git(checkout, "rev-parse", "HEAD").strip(), False, "")


def test_difference_can_be_applied(checkout: Path) -> None:
    code = checkout / "package/code.py"
    code.write_text("x = 2\n")
    (checkout / "outside.txt").write_text("new")
    git(checkout, "add", "outside.txt")
    state = run_info.git_state()
    assert state is not None
    assert state.dirty
    git(checkout, "reset", "-q", "--hard")
    (checkout / "state.diff").write_text(state.diff)
    git(checkout, "apply", "state.diff")
    assert code.read_text() == "x = 2\n"
    assert (checkout / "outside.txt").read_text() == "new", "of the whole checkout, not of the package alone"


def test_huge_difference_is_cut(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / "package/code.py").write_text("y = 3\n" * 5000)
    monkeypatch.setattr(run_info, "_MOST_DIFF", 100)
    state = run_info.git_state()
    assert state is not None
    assert len(state.diff) < 200
    assert "# cut: " in state.diff


def test_outside_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(run_info, "__file__", str(tmp_path / "code.py"))
    assert run_info.git_state() is None


def test_packages() -> None:
    lines = run_info.packages().splitlines()
    import numpy

    assert f"numpy=={numpy.__version__}" in lines
    assert lines == sorted(set(lines), key=str.lower)


def test_machine() -> None:
    machine = run_info.machine()
    assert machine["memory_gib"] > 0
    assert machine["torch_threads"] == 1
    assert isinstance(machine["gpus"], list)
