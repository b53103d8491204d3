"""How a machine is divided between trials."""

import os
import sys
from pathlib import Path

import pytest

from lightning_cells.errors import InputError
from lightning_cells.experiments.tuning import places as module
from lightning_cells.experiments.tuning.child import Child
from lightning_cells.experiments.tuning.places import Place, places


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    def make(cores: int, gpus: list[str]) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
        monkeypatch.setattr(module, "_gpus", lambda: gpus)

    return make


def test_cores_are_shared_out_whole_and_disjoint(machine) -> None:
    machine(16, [])
    for workers in (1, 2, 3, 5, 16):
        shares = [place.cores for place in places(workers, "auto", "auto")]
        assert sorted(core for share in shares for core in share) == list(range(16))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert places(3, "cpu", 1)[0].cores == (0, 1, 2, 3, 4)


def test_more_trials_than_cores_take_turns(machine) -> None:
    machine(2, [])
    assert [place.cores for place in places(5, "cpu", 1)] == [(0,), (1,), (0,), (1,), (0,)]


def test_each_trial_has_gpus_of_its_own(machine) -> None:
    machine(8, ["0", "1", "2", "3"])
    assert [place.gpus for place in places(4, "auto", "auto")] == [("0",), ("1",), ("2",), ("3",)]
    assert [place.gpus for place in places(2, "gpu", 2)] == [("0", "1"), ("2", "3")]
    assert [place.gpus for place in places(2, "gpu", [0, 1])] == [("0", "1"), ("2", "3")]
    assert [place.gpus for place in places(6, "cpu", 1)] == [None] * 6
    with pytest.raises(InputError, match=r"--workers 5: need 5 GPUs at 1 for each trial, .* are 4: give --workers 4"):
        places(5, "auto", "auto")
    with pytest.raises(InputError, match=r"or fewer trainer\.devices"):
        places(1, "gpu", 8)


def test_no_worker() -> None:
    with pytest.raises(InputError, match="--workers 0: must be at least 1"):
        places(0, "cpu", 1)


def test_environment_of_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("OMP_NUM_THREADS")
    variables = Place((0, 1, 2, 3), ("2", "3"), processes=2).environment()
    assert (variables["CUDA_VISIBLE_DEVICES"], variables["OMP_NUM_THREADS"]) == ("2,3", "2")
    assert not [name for name in variables if name.startswith("SLURM_")], "a trial is no task of the job"
    assert os.environ["SLURM_NTASKS"] == "4"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert Place((0, 1, 2, 3), None).environment()["OMP_NUM_THREADS"] == "1", "as the user wants it"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot pin")
def test_process_is_pinned_with_all_that_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    core = max(os.sched_getaffinity(0))
    (tmp_path / "pinned.py").write_text(
        "import os, subprocess, sys, time; time.sleep(0.5); "
        "print(sorted(os.sched_getaffinity(0)), flush=True); "
        "subprocess.run([sys.executable, '-c', 'import os; print(sorted(os.sched_getaffinity(0)))'])"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    child = Child("pinned", Place((core,), None), tmp_path / "log")
    assert child.link.receive() is None
    assert child.end() == f"ended with status 0: [{core}]"
    assert (tmp_path / "log").read_text() == f"[{core}]\n" * 2
