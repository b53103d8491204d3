"""Where studies are kept: addresses, what is told when they cannot be used, and that nobody gets in between."""

import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from plan_cases import environment, make_plan

from lightning_cells.errors import InputError
from lightning_cells.experiments.tuning.storage import Storage
from lightning_cells.experiments.tuning.study import open_study

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage")


def test_default_lies_in_the_output_folder(home: Path) -> None:
    storage = Storage(None)
    assert storage.shown == f"sqlite:///{home / 'optuna.db'}"
    assert (home / "optuna.db").is_file()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("nonsense", "--storage 'nonsense': is no database address: give sqlite:///FILE or postgresql://"),
        ("sqlite://", "--storage: a database in memory is lost at the end"),
        ("sqlite:///:memory:", "--storage: a database in memory is lost at the end"),
        ("mysql://me@host/db", "--storage mysql: is no database for sweeps"),
        ("sqlite:////proc/nowhere/optuna.db", "--storage sqlite:////proc/nowhere/optuna.db: No such file or directory"),
        ("postgresql://me:secret@127.0.0.1:1/db", "--storage postgresql://me:***@127.0.0.1:1/db: cannot be used (conn"),
    ],
)
def test_address_that_cannot_be_used(address: str, expected: str) -> None:
    if address.startswith("postgresql"):
        pytest.importorskip("psycopg")
    with pytest.raises(InputError) as error:
        Storage(address)
    assert str(error.value).startswith(expected)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InputError, match=r"its driver is missing .*: pip install 'lightning-cells\[postgres\]'"):
        Storage("postgresql://me@127.0.0.1:1/db")


def test_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("my holiday diary, much longer than a header of a hundred bytes: " * 9)
    with pytest.raises(InputError, match=r"cannot be used \(file is not a database\)"):
        Storage(f"sqlite:///{tmp_path / 'x.db'}")
    assert (tmp_path / "x.db").read_text().startswith("my holiday diary")


def test_heartbeat() -> None:
    with pytest.raises(InputError, match="--heartbeat 0: must be at least 1 second"):
        Storage(None, 0)


def test_study_that_there_is(tmp_path: Path) -> None:
    storage = Storage(f"sqlite:///{tmp_path / 'o.db'}")
    plan = make_plan(tmp_path)
    study = open_study(plan, storage, join=False)
    assert open_study(plan, storage, join=False)._study_id == study._study_id, "there is nothing in it yet"
    study.ask()
    with pytest.raises(InputError, match=r"study 'pretended' has 1 trial\(s\) in .*: let it go on with --resume"):
        open_study(plan, storage, join=False)
    assert open_study(plan, storage, join=True)._study_id == study._study_id
    more = make_plan(tmp_path, trials=99)
    assert open_study(more, storage, join=True)._study_id == study._study_id


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"space": {"x": {"float": [0, 2]}, "how": {"choices": ["good"]}}}, "has another for space.x"),
        ({"space": {"x": {"float": [0, 1]}}}, "had one for space.how"),
        ({"space": {**{k: {"float": [0, 1]} for k in "xy"}, "how": {"choices": ["good"]}}}, "had none for space.y"),
        ({"objective": {"val/SEG": "minimize"}}, "has another for objective.val/SEG"),
        ({"set": {"trainer.max_epochs": 3}}, "had none for set.trainer.max_epochs"),
        ({"configs": ["conf/trainer/cpu.yaml"]}, "began with other configuration files"),
    ],
)
def test_study_of_another_sweep(changes: dict, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    storage = Storage(f"sqlite:///{tmp_path / 'o.db'}")
    open_study(make_plan(tmp_path), storage, join=False).ask()
    with pytest.raises(InputError) as error:
        open_study(make_plan(tmp_path, **changes), storage, join=True)
    assert expected in str(error.value)
    assert str(error.value).startswith("study 'pretended' in sqlite:///")


def test_study_of_somebody_else(tmp_path: Path) -> None:
    storage = Storage(f"sqlite:///{tmp_path / 'o.db'}")
    optuna.create_study(study_name="pretended", storage=storage.rdb)
    with pytest.raises(InputError, match="was not made by a sweep"):
        open_study(make_plan(tmp_path), storage, join=True)


# Takes trials as fast as it can, and ends each at once.
GREEDY = """
import sys
from pathlib import Path

from optuna.trial import TrialState
from plan_cases import make_plan

from lightning_cells.experiments.tuning.storage import Storage
from lightning_cells.experiments.tuning.study import Trials, open_study

folder = Path(sys.argv[1])
plan = make_plan(folder / sys.argv[3], trials=25)
storage = Storage(sys.argv[2])
trials = Trials(open_study(plan, storage, join=True), plan, storage)
print("ready", flush=True)
sys.stdin.readline()
while (trial := trials.claim()) is not None:
    trials.tell(trial, TrialState.COMPLETE, [plan.space.suggest(trial)["x"]])
    print(trial.number, flush=True)
"""


def greedy_workers(folder: Path, address: str, number: int = 3) -> list[list[int]]:
    """Numbers of the trials that each of some processes got, which begin at the same time."""
    (folder / "greedy.py").write_text(GREEDY)
    pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    workers = []
    for name in map(str, range(number)):
        (folder / name).mkdir()
        words = [sys.executable, folder / "greedy.py", folder, address, name]
        workers.append(subprocess.Popen(words, text=True, env=environment(), **pipes))  # type: ignore[call-overload]
    try:
        assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * number
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        return [[int(line) for line in worker.communicate(timeout=300)[0].split()] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()


@pytest.mark.slow
def test_workers_together_get_as_many_trials_as_asked_and_none_twice(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'o.db'}"
    taken = greedy_workers(tmp_path, address)
    assert sorted(number for numbers in taken for number in numbers) == list(range(25))
    study = optuna.load_study(study_name="pretended", storage=address)
    values = [trial.value for trial in study.get_trials()]
    assert len(set(values)) == 25, "with one seed for all, they did not propose the same"
