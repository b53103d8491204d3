"""A worker with processes that pretend: what becomes of trials that end well, badly, or not at all."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from sweep_cases import OBJECTIVE, age_heartbeats, make_plan, office

from lightning_cells.errors import InputError
from lightning_cells.experiments.runner import Job, Outcome, Progress, Watch
from lightning_cells.experiments.tuning.study import repeats, standing
from lightning_cells.experiments.tuning.work import Work

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage")


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))


def test_study_gets_the_trials_it_is_to_have(tmp_path: Path) -> None:
    here = office(tmp_path, make_plan(tmp_path, trials=4))
    here.worker.work()
    trials = here.study.get_trials()
    assert here.states() == ["COMPLETE"] * 4
    assert [trial.value for trial in trials] == [entry["x"] for entry in here.entries()]
    assert len({entry["pid"] for entry in here.entries()}) == 4, "each in a process of its own"
    assert [trial.user_attrs["measures"][OBJECTIVE] for trial in trials] == [trial.value for trial in trials]
    assert here.notes.begun == [0, 1, 2, 3]
    assert here.notes.ended == [(f"run {n}", "COMPLETE", "") for n in range(4)]
    assert [trial.user_attrs["run"] for trial in trials] == [f"run {n}" for n in range(4)]
    assert len(here.notes.logged["run 0"]) == 4, "a curve: each report, and the end"
    best = [values[OBJECTIVE] for _, values in here.notes.best_values]
    assert best == [max(entry["x"] for entry in here.entries()[: n + 1]) for n in range(4)]
    here.worker.work()
    assert len(here.study.get_trials()) == 4, "no more than that"


def test_lasting_process_takes_trial_after_trial(tmp_path: Path) -> None:
    here = office(tmp_path, make_plan(tmp_path, trials=5), lasting=True, workers=2)
    here.worker.work()
    assert here.states() == ["COMPLETE"] * 5
    pids = {entry["pid"] for entry in here.entries()}
    assert len(pids) <= 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_several_at_a_time(tmp_path: Path) -> None:
    here = office(tmp_path, make_plan(tmp_path, trials=6), workers=3)
    here.worker.work()
    assert here.states() == ["COMPLETE"] * 6
    assert sorted(entry["number"] for entry in here.entries()) == list(range(6))


def test_trial_that_crashes_once_is_repeated_with_its_values(tmp_path: Path) -> None:
    here = office(tmp_path, make_plan(tmp_path, ("crash once",), trials=2))
    here.worker.work()
    trials = here.study.get_trials()
    assert here.states() == ["FAIL", "COMPLETE", "COMPLETE"]
    assert trials[1].params == trials[0].params != trials[2].params
    assert [repeats(trial) for trial in trials] == [None, 0, None]
    assert [trial.number for trial in standing(trials)] == [1, 2]
    assert here.notes.ended[0] == ("run 0", "FAIL", "ended with status 7: the lamp went out")
    assert trials[0].user_attrs["reason"] == "ended with status 7: the lamp went out"


@pytest.mark.parametrize("lasting", [False, True])
def test_trial_that_always_crashes_is_given_up(tmp_path: Path, lasting: bool) -> None:
    here = office(tmp_path, make_plan(tmp_path, ("crash",), trials=2, retries=2), lasting=lasting)
    here.worker.work()
    assert here.states() == ["FAIL"] * 6
    assert Counter(str(trial.params) for trial in here.study.get_trials()).most_common(1)[0][1] == 3
    assert len(standing(here.study.get_trials())) == 2
    said = "killed by SIGKILL: out of memory?" if lasting else "ended with status 7: the lamp went out"
    assert {reason for _, _, reason in here.notes.ended} == {said}


def test_failure_that_would_come_again_is_not_repeated(tmp_path: Path) -> None:
    here = office(tmp_path, make_plan(tmp_path, ("nan",), trials=2))
    here.worker.work()
    assert here.states() == ["FAIL"] * 2
    assert {reason for _, _, reason in here.notes.ended} == {f"objective {OBJECTIVE} is not a number (NaN)"}
    assert all(math.isnan(value) is False for t in here.study.get_trials() for value in t.intermediate_values.values())


def test_worker_gives_up_where_all_fail_from_the_start(tmp_path: Path) -> None:
    here = office(tmp_path, make_plan(tmp_path, ("input",), trials=9))
    with pytest.raises(InputError, match="the first 3 trials failed, the last one: margin: too wide"):
        here.worker.work()
    assert here.states() == ["FAIL"] * 3


def test_mistake_of_the_study_is_told_at_once(tmp_path: Path) -> None:
    here = office(tmp_path, make_plan(tmp_path, trials=9, objective={"val/SEGG": "maximize"}), workers=2)
    with pytest.raises(InputError) as error:
        here.worker.work()
    assert str(error.value) == f"{here.plan.path}: objective 'val/SEGG' is never logged: did you mean 'val/SEG'?"
    assert set(here.states()) == {"FAIL"}, "none waits to be repeated"
    assert not here.worker.trials.under_way


def test_hopeless_trials_are_pruned(tmp_path: Path) -> None:
    pruner = {"class_path": "optuna.pruners.MedianPruner", "init_args": {"n_startup_trials": 2, "n_warmup_steps": 0}}
    here = office(tmp_path, make_plan(tmp_path, trials=8, pruner=pruner))
    here.worker.work()
    trials = here.study.get_trials()
    for number, trial in enumerate(trials):
        before = sorted(other.params["x"] for other in trials[:number])
        median = (before[(len(before) - 1) // 2] + before[len(before) // 2]) / 2 if before else 0.0
        hopeless = number >= 2 and trial.params["x"] < median  # each report is a share of x
        complete = [t for t in trials[:number] if t.state.name == "COMPLETE"]
        if len(complete) >= 2:
            assert (trial.state.name == "PRUNED") == hopeless, number
    assert "PRUNED" in here.states()
    pruned = here.states().index("PRUNED")
    assert len(trials[pruned].intermediate_values) == 1
    assert (f"run {pruned}", "PRUNED", "") in here.notes.ended


def curve(*validations: dict[str, float], end: dict[str, float] | None = None) -> Work:
    """Takes the place of a training: logs these measures, validation by validation, and these at its end."""

    def run(pool: object, number: int, chosen: object, watch: Watch) -> Outcome:
        for step, measures in enumerate(({}, *validations), -1):
            watch(Progress(f"run {number}", None, step, measures))
        return Outcome(Job(name="a", fit=()), "finished", logged=validations[-1] | (end or {}))

    return Work(run, logs=True)


CURVES = {
    "of equal ones the first, as best.ckpt": (
        {"val/SEG": "maximize", "val/FP": "minimize"},
        [(0.4, 1.0), (math.nan, 0.0), (0.6, 3.0), (0.6, 2.0), (0.5, 0.0)],
        [0.6, 3.0],
    ),
    "less can be better": ({"val/FP": "minimize"}, [(0.4, 0.4), (0.4, 0.2), (0.4, 0.3)], [0.2]),
    "what is never a number": ({"val/SEG": "maximize"}, [(math.nan, 1.0), (math.nan, 2.0)], None),
}


@pytest.mark.parametrize("name", CURVES)
def test_first_objective_decides_which_validation_counts(name: str, tmp_path: Path) -> None:
    objective, values, expected = CURVES[name]
    here = office(tmp_path, make_plan(tmp_path, trials=1, objective=objective))
    here.worker._work = curve(*({"val/SEG": seg, "val/FP": fp} for seg, fp in values))
    here.worker.work()
    (trial,) = here.study.get_trials()
    assert trial.values == expected
    assert trial.user_attrs["run"] == "run 0"
    assert trial.state.name == ("FAIL" if expected is None else "COMPLETE")


def test_objective_that_comes_late_and_one_that_never_comes(tmp_path: Path) -> None:
    late = office(tmp_path, make_plan(tmp_path, trials=1, objective={"train/loss": "minimize"}))
    late.worker._work = curve({"val/SEG": 0.1}, {"val/SEG": 0.1, "train/loss": 0.3})
    late.worker.work()
    assert late.study.get_trials()[0].value == 0.3
    for objective, end, said in [
        ("val/SEGG", {"val/SEGG": 1.0}, r"objective 'val/SEGG' is never logged: did you mean 'val/SEG'\?"),
        ("unheard of", {"test/x": 1.0}, "objective 'unheard of' is never logged: there are test/x, val/SEG"),
    ]:
        plan = make_plan(tmp_path, trials=1, objective={objective: "maximize"}, study=objective.replace("/", " "))
        never = office(tmp_path, plan)
        never.worker._work = curve({"val/SEG": 0.1}, end=end)
        with pytest.raises(InputError, match=said):
            never.worker.work()


def test_sampler_that_has_proposed_all_there_is(tmp_path: Path) -> None:
    space = {"x": {"choices": [0.25, 0.5]}, "how": {"choices": ["good"]}}
    here = office(tmp_path, make_plan(tmp_path, trials=9, sampler="optuna.samplers.BruteForceSampler", space=space))
    here.worker.work()
    assert sorted(trial.value for trial in here.study.get_trials()) == [0.25, 0.5]
    assert here.states() == ["COMPLETE"] * 2


def test_study_that_somebody_removes(tmp_path: Path) -> None:
    here = office(tmp_path, make_plan(tmp_path, ("slow",), trials=5))

    def remove() -> None:
        import optuna

        optuna.delete_study(study_name=here.plan.study, storage=f"sqlite:///{tmp_path / 'optuna.db'}")

    threading.Thread(target=_when(lambda: bool(here.entries()), remove)).start()
    with pytest.raises(InputError, match="the study is gone"):
        here.worker.work()


def test_several_objectives(tmp_path: Path) -> None:
    objective = {OBJECTIVE: "maximize", "val/TRA": "maximize"}
    here = office(tmp_path, make_plan(tmp_path, trials=4, objective=objective))
    here.worker.work()
    assert [trial.values for trial in here.study.get_trials()] == [[e["x"], 1 - e["x"]] for e in here.entries()]
    assert len(here.study.best_trials) == 4, "what one gains the other loses"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_study_can_go_on(tmp_path: Path, number: int) -> None:
    here = office(tmp_path, make_plan(tmp_path, ("sleep",), trials=3), workers=2)
    threading.Thread(target=_when(lambda: len(here.entries()) == 2, lambda: os.kill(os.getpid(), number))).start()
    with pytest.raises(KeyboardInterrupt):
        here.worker.work()
    assert here.states() == ["FAIL", "FAIL", "WAITING", "WAITING"]
    assert [state for _, state, _ in here.notes.ended] == ["INTERRUPTED"] * 2
    for entry in here.entries():
        with pytest.raises(ProcessLookupError):
            os.kill(entry["pid"], 0)

    (tmp_path / "pretender.py").unlink()
    again = office(tmp_path, here.plan)
    script = (tmp_path / "pretender.py").read_text()
    (tmp_path / "pretender.py").write_text(
        script.replace("time.sleep(100)", "link.send({'ending': 'finished', 'logged': {'val/SEG': x}})")
    )
    again.worker.work()
    trials = again.study.get_trials()
    assert again.states() == ["FAIL", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert [trial.params for trial in trials[:2]] == [trial.params for trial in trials[2:4]]
    assert len(standing(trials)) == 3, "interruptions cost no trial"


def test_trial_of_a_dead_worker_is_run_again(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, trials=2)
    dead = office(tmp_path, plan, heartbeat=2)
    trial = dead.worker.trials.claim()
    assert trial is not None
    params = dead.plan.space.suggest(trial)
    trial.set_user_attr("run", "its run")
    age_heartbeats(tmp_path / "optuna.db", 60)
    here = office(tmp_path, plan, heartbeat=2)
    here.worker.work()
    assert here.states() == ["FAIL", "COMPLETE", "COMPLETE"]
    assert here.study.get_trials()[1].params == params
    assert ("its run", "LOST") in [(run, state) for run, state, _ in here.notes.ended]
    assert not dead.worker.trials.tell(trial, here.study.get_trials()[0].state), "it comes back, and does not count"
    assert here.states() == ["FAIL", "COMPLETE", "COMPLETE"]


def test_trial_of_a_worker_that_died_before_its_first_sign_of_life(tmp_path: Path) -> None:
    here = office(tmp_path, make_plan(tmp_path, trials=2))
    here.study.ask()
    here.worker.work()
    assert here.states() == ["FAIL", "COMPLETE", "COMPLETE"]


def test_trial_of_a_worker_that_died_before_all_was_drawn(tmp_path: Path) -> None:
    """What its repetition draws is what it would have drawn, and not what the next trial draws."""
    (tmp_path / "undisturbed").mkdir()
    undisturbed = office(tmp_path / "undisturbed", make_plan(tmp_path / "undisturbed", trials=3))
    undisturbed.worker.work()
    dead = office(tmp_path, make_plan(tmp_path, trials=3), heartbeat=2)
    dead.worker.trials.claim()
    age_heartbeats(tmp_path / "optuna.db", 60)
    here = office(tmp_path, dead.plan, heartbeat=2)
    here.worker.work()
    assert here.states() == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    drawn = [trial.params["x"] for trial in here.study.get_trials() if trial.params]
    assert drawn[0] == undisturbed.study.get_trials()[0].params["x"]
    assert len(set(drawn)) == 3


def test_trial_that_somebody_enqueued(tmp_path: Path) -> None:
    """With Optuna's own means: what it does not fix is drawn, and it counts."""
    here = office(tmp_path, make_plan(tmp_path, trials=3))
    here.study.enqueue_trial({"x": 0.5})
    here.study.enqueue_trial({"how": "good"})
    here.worker.work()
    assert here.states() == ["COMPLETE"] * 3
    drawn = [trial.params["x"] for trial in here.study.get_trials()]
    assert drawn[0] == 0.5
    assert len(set(drawn)) == 3


@pytest.mark.parametrize("how", ["crash once", "lost"])
def test_all_points_of_a_grid_are_visited(tmp_path: Path, how: str) -> None:
    """Also if the trial of one of them is repeated, which has the number that another point would have had."""
    grid = {"x": [0.0, 0.25, 0.5, 0.75, 1.0], "how": [how]}
    sampler = {"class_path": "optuna.samplers.GridSampler", "init_args": {"search_space": grid, "seed": 1}}
    plan = make_plan(tmp_path, (how,), trials=5, sampler=sampler)
    if how == "lost":
        trials = office(tmp_path, plan, heartbeat=2).worker.trials
        for _ in range(2):
            trial = trials.claim()
        assert trial is not None
        plan.space.suggest(trial)
        age_heartbeats(tmp_path / "optuna.db", 60)
    here = office(tmp_path, plan, heartbeat=2)
    here.worker.work()
    assert Counter(here.states()) == {"COMPLETE": 5, "FAIL": 2 if how == "lost" else 1}
    assert sorted(trial.value for trial in standing(here.study.get_trials())) == grid["x"]


@pytest.mark.parametrize("lasting", [False, True])
def test_worker_that_was_taken_for_dead_gives_its_trial_up(tmp_path: Path, lasting: bool) -> None:
    plan = make_plan(tmp_path, ("slow",), trials=2)
    other, here = office(tmp_path, plan), office(tmp_path, plan, lasting=lasting)

    def take() -> None:
        from optuna.trial import TrialState

        age_heartbeats(tmp_path / "optuna.db", 1000)
        trial = other.worker.trials.claim()
        plan.space.suggest(trial)
        other.worker.trials.tell(trial, TrialState.COMPLETE, [0.5])

    threading.Thread(target=_when(lambda: bool(here.entries()), take)).start()
    here.worker.work()
    trials = here.study.get_trials()
    assert here.states() == ["FAIL", "COMPLETE", "COMPLETE"]
    assert (repeats(trials[1]), trials[1].value) == (0, 0.5), "it was run again elsewhere, and counts there"
    assert [entry["number"] for entry in here.entries()] == [0, 2]
    assert [run for run, _, _ in here.notes.ended] == ["run 2"]


def test_living_worker_is_waited_for_and_its_trial_left_alone(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, trials=2)
    other = office(tmp_path, plan, heartbeat=1)
    trial = other.worker.trials.claim()
    assert trial is not None
    here = office(tmp_path, plan, heartbeat=1)

    def finish() -> None:
        from optuna.trial import TrialState

        assert here.study.get_trials()[0].state == TrialState.RUNNING
        other.plan.space.suggest(trial)
        other.worker.trials.tell(trial, TrialState.COMPLETE, [0.5])

    threading.Thread(target=_when(lambda: "COMPLETE" in here.states(), finish)).start()
    here.worker.work()
    assert here.states() == ["COMPLETE", "COMPLETE"]
    assert [entry["number"] for entry in here.entries()] == [1]


@pytest.mark.slow
def test_process_does_not_outlive_its_worker(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, ("sleep",), trials=1)
    office(tmp_path, plan)
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path; "
        f"from sweep_cases import *; folder = Path({str(tmp_path)!r}); "
        "office(folder, make_plan(folder, ('sleep',), trials=1)).worker.work()"
    )
    worker = subprocess.Popen([sys.executable, "-c", code])
    try:
        here = office(tmp_path, plan)
        _when(lambda: bool(here.entries()), lambda: None)()
        (entry,) = here.entries()
        os.kill(entry["pid"], 0)
    finally:
        worker.kill()
        worker.wait()
    _when(lambda: not _alive(entry["pid"]), lambda: None, limit=30)()
    assert not _alive(entry["pid"])


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state != "Z"


def _when(ready, act, limit: float = 300):
    """A function that acts when something is so."""

    def run() -> None:
        end = time.monotonic() + limit
        while not ready() and time.monotonic() < end:
            time.sleep(0.05)
        act()

    return run
