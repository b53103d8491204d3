"""Child processes: how a machine is divided between them, what is said, and how they end."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lightning_cells.errors import InputError
from lightning_cells.experiments import processes as module
from lightning_cells.experiments.processes import Child, Place, ProcessPool, places

HERE = Place((), None)
# A process that answers until it is told to end, and has started another one.
CHATTY = """
import os, subprocess, sys
from lightning_cells.experiments.processes import ParentLink

link = ParentLink(int(sys.argv[1]))
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
link.send({"pids": [os.getpid(), other.pid]})
while (message := link.receive()) != {"word": "end"}:
    link.send({"heard": message})
print("that was all", flush=True)
link.close()
other.kill()
other.wait()
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where Python looks for modules."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "chatty.py").write_text(CHATTY)
    return tmp_path


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def until(ready: Callable[[], object], limit: float = 60) -> None:
    end = time.monotonic() + limit
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.02)


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


def test_more_processes_than_cores_take_turns(machine) -> None:
    machine(2, [])
    assert [place.cores for place in places(5, "cpu", 1)] == [(0,), (1,), (0,), (1,), (0,)]


def test_each_process_has_gpus_of_its_own(machine) -> None:
    machine(8, ["0", "1", "2", "3"])
    assert [place.gpus for place in places(4, "auto", "auto")] == [("0",), ("1",), ("2",), ("3",)]
    assert [place.gpus for place in places(2, "gpu", 2)] == [("0", "1"), ("2", "3")]
    assert [place.gpus for place in places(2, "gpu", [0, 1])] == [("0", "1"), ("2", "3")]
    assert [place.gpus for place in places(6, "cpu", 1)] == [None] * 6
    with pytest.raises(InputError, match=r"--workers 5: need 5 GPUs at 1 for each training, .* 4: give --workers 4"):
        places(5, "auto", "auto")
    with pytest.raises(InputError, match=r"or fewer trainer\.devices"):
        places(1, "gpu", 8)


def test_no_worker() -> None:
    with pytest.raises(InputError, match="--workers 0: must be at least 1"):
        places(0, "cpu", 1)


def test_environment_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("OMP_NUM_THREADS")
    variables = Place((0, 1, 2, 3), ("2", "3"), processes=2).environment()
    assert (variables["CUDA_VISIBLE_DEVICES"], variables["OMP_NUM_THREADS"]) == ("2,3", "2")
    assert not [name for name in variables if name.startswith("SLURM_")], "it is no task of the job"
    assert os.environ["SLURM_NTASKS"] == "4"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert Place((0, 1, 2, 3), None).environment()["OMP_NUM_THREADS"] == "1", "as the user wants it"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot pin")
def test_process_is_pinned_with_all_that_it_starts(modules: Path) -> None:
    core = max(os.sched_getaffinity(0))
    (modules / "pinned.py").write_text(
        "import os, subprocess, sys, time; time.sleep(0.5); "
        "print(sorted(os.sched_getaffinity(0)), flush=True); "
        "subprocess.run([sys.executable, '-c', 'import os; print(sorted(os.sched_getaffinity(0)))'])"
    )
    child = Child("pinned", Place((core,), None), modules / "log")
    assert child.receive() is None
    assert child.end() == f"ended with status 0: [{core}]"
    assert (modules / "log").read_text() == f"[{core}]\n" * 2


def test_messages_go_both_ways(modules: Path) -> None:
    with ProcessPool([HERE]) as pool, pool.start("chatty", modules / "log") as child:
        (pid, _) = child.receive()["pids"]
        assert pid == child.pid == os.getpgid(pid) != os.getpgid(0), "Ctrl-C in the terminal does not reach it"
        for value in (0.5, "text", None):
            child.send({"value": value})
            assert child.receive() == {"heard": {"value": value}}
        child.send({"word": "end"})
        assert child.receive() is None
        assert child.end() == "ended with status 0: that was all"
        child.send({"word": "nobody hears it"})


@pytest.mark.parametrize(
    ("code", "died"),
    [
        ("print('the lamp went out'); raise SystemExit(7)", "ended with status 7: the lamp went out"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL: out of memory?"),
        ("import os; os.kill(os.getpid(), 15)", "killed by SIGTERM"),
    ],
)
def test_what_it_died_of(code: str, died: str, modules: Path) -> None:
    (modules / "dies.py").write_text(code)
    with ProcessPool([HERE]) as pool, pool.start("dies", modules / "log") as child:
        assert child.receive() is None
        assert child.end() == died


def test_no_process_is_left_after_its_block(modules: Path) -> None:
    pids = []

    def fail() -> None:
        with pool.start("chatty", modules / "log") as child:
            pids.extend(child.receive()["pids"])
            raise ValueError("enough")

    with ProcessPool([HERE]) as pool, pytest.raises(ValueError, match="enough"):
        fail()
    until(lambda: not any(map(alive, pids)))


def test_one_process_at_each_place(modules: Path) -> None:
    (modules / "short.py").write_text("import time; began = time.time(); time.sleep(0.3); print(began, time.time())")
    logs = [modules / f"log{number}" for number in range(4)]

    def run(log: Path) -> None:
        with pool.start("short", log) as child:
            child.receive()

    with ProcessPool([HERE, HERE]) as pool:
        threads = [threading.Thread(target=run, args=(log,)) for log in logs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    times = [tuple(map(float, log.read_text().split())) for log in logs]
    for began, _ in times:
        assert sum(other <= began < end for other, end in times) <= 2


@pytest.fixture
def busy(modules: Path) -> Iterator[Callable[[ProcessPool], tuple[list[threading.Thread], list[int], list[type]]]]:
    """Has threads wait for two processes, and a third one for a place."""

    def start(pool: ProcessPool) -> tuple[list[threading.Thread], list[int], list[type]]:
        pids: list[int] = []
        raised: list[type] = []

        def wait() -> None:
            try:
                with pool.start("chatty", modules / "log") as child:
                    pids.extend(child.receive()["pids"])
                    assert child.receive() is None
                    pool.check()
            except BaseException as error:
                raised.append(type(error))

        threads = [threading.Thread(target=wait) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: len(pids) == 4)
        return threads, pids, raised

    return start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_processes_and_breaks_in_nowhere(number: int, busy) -> None:
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with ProcessPool([HERE, HERE]) as pool:
        threads, pids, raised = busy(pool)
        os.kill(os.getpid(), number)
        for thread in threads:
            thread.join()
        assert pool.closed
        assert raised == [KeyboardInterrupt] * 3
        until(lambda: not any(map(alive, pids)))
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_closed_pool_ends_all_processes(busy) -> None:
    pool = ProcessPool([HERE, HERE])
    threads, pids, raised = busy(pool)
    pool.close()
    for thread in threads:
        thread.join()
    assert raised == [KeyboardInterrupt] * 3
    until(lambda: not any(map(alive, pids)))


def test_processes_do_not_outlive_their_parent(modules: Path) -> None:
    code = (
        "from pathlib import Path; from lightning_cells.experiments.processes import *; "
        "pool = ProcessPool([Place((), None)]); start = pool.start('chatty', Path('log')); "
        "print(*start.__enter__().receive()['pids'], flush=True); input()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], cwd=modules, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        pids = [*map(int, parent.stdout.readline().split())]
        assert len(pids) == 2
        assert all(map(alive, pids))
    finally:
        parent.kill()
        parent.communicate()
    until(lambda: not any(map(alive, pids)))
