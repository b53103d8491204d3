"""What is kept of a run on this machine, and how an interrupted job finds it again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_cells.errors import InputError
from lightning_cells.loggers.run_folder import RunFolder, find_run, interrupted_run, remember_job

WORDS = ("fit", "-c", "conf/method/ulstm/tiny.yaml")


@pytest.fixture(autouse=True)
def _no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)


def test_notes_are_added_to(home: Path) -> None:
    folder = RunFolder("abc")
    assert folder.read() == {}
    assert folder.run_id == "abc"
    folder.write(start_time=5)
    folder.write(run_id="def")
    assert RunFolder("abc").read() == {"start_time": 5, "run_id": "def"}
    assert RunFolder("abc").run_id == "def"
    assert [path.name for path in (home / "runs/abc").iterdir()] == ["run.json"]


def test_find_by_name_and_by_id() -> None:
    for name in ("abc", "local-1"):
        folder = RunFolder(name)
        folder.path.mkdir(parents=True)
        folder.config.write_text("model: x\n")
    RunFolder("local-1").write(run_id="0123")
    assert find_run("abc").name == "abc"
    assert find_run("local-1").name == "local-1"
    assert find_run("0123").name == "local-1"
    RunFolder("test").write(run_id="test")  # no training: it has no configuration
    for unknown in ("nowhere", "test"):
        with pytest.raises(InputError, match=f"--resume {unknown}: .*has no training of that id"):
            find_run(unknown)


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc/passwd", "..", ".", "", "<script>", "a\nb", "a b", "--x", "é"])
def test_names_that_are_no_ids(name: str, home: Path) -> None:
    with pytest.raises(InputError, match="is no id of a run"):
        find_run(name)
    assert not list(home.iterdir())


def test_one_process_at_a_time(home: Path) -> None:
    """A process that is killed gives the run back."""
    code = (
        "import sys; from lightning_cells.loggers.run_folder import RunFolder; folder = RunFolder('abc'); "
        "folder.claim(); print('claimed', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    other = subprocess.Popen([sys.executable, "-c", code], text=True, **pipes)
    assert other.stdout is not None
    assert other.stdout.readline() == "claimed\n"
    with pytest.raises(InputError, match="run abc is at work in another process"):
        RunFolder("abc").claim()
    other.kill()
    other.wait()
    folder = RunFolder("abc")
    folder.claim()
    folder.write(start_time=1)
    folder.release()
    assert not folder.path.exists(), "nothing is left of a run that is no training"


def test_job_that_is_queued_again_finds_its_run(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    remember_job(WORDS, "abc")
    assert not list(home.iterdir()), "outside of a job nothing is remembered"
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert interrupted_run(WORDS) is None
    remember_job(WORDS, "abc")
    assert interrupted_run(WORDS) is None, "the first attempt begins a run of its own"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert interrupted_run(WORDS) == "abc"
    assert interrupted_run((*WORDS, "--seed_everything", "2")) is None, "another training of the same job"
    monkeypatch.setenv("SLURM_JOB_ID", "18")
    assert interrupted_run(WORDS) is None, "another job"


def test_workers_that_torchrun_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    remember_job(WORDS, "abc")
    assert interrupted_run(WORDS) is None
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert interrupted_run(WORDS) == "abc"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # given to all that have no name
    remember_job(WORDS, "def")
    assert interrupted_run(WORDS) is None


def test_names_of_jobs_stay_in_the_folder(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "../../../evil")
    remember_job(WORDS, "abc")
    assert {path.name for path in home.iterdir()} == {"runs"}
    (note,) = (path for path in home.rglob("*") if path.is_file())
    assert os.path.commonpath([note.resolve(), home.resolve()]) == str(home.resolve())
