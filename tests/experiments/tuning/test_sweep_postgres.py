"""A study on a real PostgreSQL server, worked on by several processes of which some are killed."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from postgres_server import postgres
from sweep_cases import environment
from test_sweep_storage import greedy_workers

from lightning_cells.experiments.tuning.mlflow_runs import PARENT
from lightning_cells.experiments.tuning.storage import Storage
from lightning_cells.experiments.tuning.study import repeats, standing
from lightning_cells.loggers.store import tracking_uri

TRIALS = 40

# A worker as `sweep` runs it, whose trials take half a second and do nothing.
WORKER = """
import sys
from pathlib import Path

from sweep_cases import HERE, make_plan, office

from lightning_cells.experiments.tuning.mlflow_runs import StudyRuns

folder, address, trials = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
plan = make_plan(folder, ("slow",), trials=trials)
made = office(folder, plan, heartbeat=1, address=address)
runs = StudyRuns(plan, made.study, made.storage, folder / "logs")
made.worker._runs = runs
print("ready", flush=True)
made.worker._say = lambda line: print(line, flush=True)
made.worker.work()
runs.settle(made.study.get_trials())
runs.close("FINISHED", {})
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as address:
        yield address


@pytest.mark.slow
def test_workers_together_get_as_many_trials_as_asked(server: str, tmp_path: Path) -> None:
    """And tables that several of them want to make at once are made."""
    taken = greedy_workers(tmp_path, server, number=4)
    assert sorted(number for numbers in taken for number in numbers) == list(range(25))
    study = optuna.load_study(study_name="pretended", storage=Storage(server).rdb)
    assert len({trial.value for trial in study.get_trials()}) == 25
    optuna.delete_study(study_name="pretended", storage=Storage(server).rdb)


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_two_of_four_workers_are_killed(server: str, tmp_path: Path, home: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    workers = [
        subprocess.Popen(
            [sys.executable, tmp_path / "worker.py", _own(tmp_path, number), server, str(TRIALS)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(tmp_path),
        )
        for number in range(4)
    ]
    try:
        for worker in workers:
            while "ready" not in (line := worker.stdout.readline()):
                assert line, "it has ended"
        study = optuna.load_study(study_name="pretended", storage=Storage(server).rdb)
        end = time.monotonic() + 120
        while len(done := _finished(study)) < TRIALS // 3 or len(set(done)) < 4:  # each has had its turn
            assert time.monotonic() < end
            time.sleep(0.1)
        for worker in workers[:2]:
            os.kill(worker.pid, signal.SIGKILL)
        said = [worker.communicate(timeout=300)[0] for worker in workers]
        assert [worker.returncode for worker in workers] == [-9, -9, 0, 0], "\n".join(said)
    finally:
        for worker in workers:
            worker.kill()

    trials = study.get_trials()
    states = Counter(trial.state.name for trial in trials)
    lost = [trial for trial in trials if trial.state.name == "FAIL"]
    assert states["COMPLETE"] == TRIALS
    assert set(states) <= {"COMPLETE", "FAIL"}
    assert len(standing(trials)) == TRIALS, "none lost"
    assert len({trial.params["x"] for trial in standing(trials)}) == TRIALS, "none twice"
    again = {repeats(trial): trial for trial in trials if repeats(trial) is not None}
    assert sorted(again) == [trial.number for trial in lost], "each that a dead worker had was run again, once"
    for trial in lost:
        if trial.params:
            assert again[trial.number].params == trial.params
    assert len(set(_finished(study))) == 4

    client = MlflowClient(tracking_uri())
    parent = client.get_run(study.user_attrs[PARENT])
    assert parent.info.status == "FINISHED"
    runs = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    numbers = sorted(int(run.data.tags["optuna.trial"]) for run in runs)
    assert numbers == [trial.number for trial in trials], "each has its run"
    told = {int(run.data.tags["optuna.trial"]): (run.info.status, run.data.tags["optuna.state"]) for run in runs}
    for trial in trials:
        expected = ("FINISHED", "COMPLETE") if trial.state.name == "COMPLETE" else ("FAILED", "LOST")
        assert told[trial.number] == expected, trial.number


def _finished(study: optuna.Study) -> list[str]:
    """The workers of the trials that are complete, one for each trial."""
    return [trial.user_attrs["worker"] for trial in study.get_trials() if trial.state.name == "COMPLETE"]


def _own(folder: Path, number: int) -> Path:
    own = folder / str(number)
    own.mkdir()
    return own
