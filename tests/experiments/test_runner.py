"""Jobs in processes of their own: what runs, what does not run again, how a watcher stops them, and how all end."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lightning_cells.experiments import runner
from lightning_cells.experiments.processes import Place, ProcessPool
from lightning_cells.experiments.runner import (
    CHILD,
    Job,
    Outcome,
    ParentRun,
    Progress,
    log_result,
    run_job,
    run_jobs,
)

# What stands in for trainings: a process that does as the job's only word says.
TRAINING = """
import json, os, pathlib, sys, time
from lightning_cells.experiments.processes import ParentLink

link = ParentLink(int(sys.argv[1]))
task = link.receive()
(what,) = task["fit"] or ("ok",)
name = task["logger"]["name"]
with open("ran", "a") as file:
    file.write(f"{name} {task['weights']}\\n")
stop, step = False, -1
while not stop and step < 3:
    measures = {} if step < 0 else {"val/SEG": step / 10}
    link.send({"run": "r-" + name, "checkpoints": "kept", "step": step, "measures": measures})
    stop = task["watched"] and link.receive()["stop"]
    step += 1
if what == "die":
    print("no memory left")
    sys.stdout.flush()
    os._exit(3)
if what == "hang":
    pathlib.Path("hangs.new").write_text(str(os.getpid()))
    os.rename("hangs.new", "hangs")
    time.sleep(300)
done = {"ending": "stopped" if stop else "finished", "run": "r-" + name, "measures": {"x": {"SEG": 1.0}},
    "logged": {"val/SEG": float("nan")}, "seconds": 1}
link.send({"ending": "mistake", "error": "broken"} if what == "fail" else done)
link.close()
"""


class Parent(ParentRun):
    """In place of the store."""

    def __init__(self, logs: Path, known: Iterable[str] = ()) -> None:
        self.logs = logs
        self.known = known
        self.given_up: list[str] = []

    def logger(self, job: Job) -> dict[str, Any]:
        return {"name": job.name}

    def finished(self, jobs: Any) -> dict[Job, Outcome]:
        return {job: Outcome(job, "found", "before") for job in jobs if job.name in self.known}

    def give_up(self, job: Job) -> str:
        self.given_up.append(job.name)
        return f"r-{job.name}"


Go = Callable[..., dict[str, Outcome]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where jobs run; the working directory."""
    (tmp_path / "training.py").write_text(TRAINING)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "_MODULE", "training")
    return tmp_path


@pytest.fixture
def go(folder: Path) -> Go:
    """Runs jobs and returns what became of them."""

    def go(jobs: list[Job], parent: Parent | None = None, workers: int = 1, **more: Any) -> dict[str, Outcome]:
        with ProcessPool([Place((), None)] * workers) as pool:
            outcomes = run_jobs(jobs, parent or Parent(folder / "logs"), pool, **more)
        assert list(outcomes) == jobs
        return {job.name: outcome for job, outcome in outcomes.items()}

    return go


def job(name: str, what: str = "ok", weights_of: Job | None = None) -> Job:
    return Job(name=name, fit=(what,), weights="last", weights_of=weights_of)


def ran() -> list[str]:
    return Path("ran").read_text().splitlines() if Path("ran").exists() else []


def test_weights_are_handed_on(go: Go, home: Path) -> None:
    one = job("one")
    said: list[Outcome] = []
    found = go([job("two", weights_of=one), one], workers=2, ended=said.append)
    assert (found["two"].ending, found["two"].measures) == ("finished", {"x": {"SEG": 1.0}})
    assert ran() == ["one last", f"two {home}/checkpoints/r-one/last.ckpt"], "whatever their order"
    assert said == [found["one"], found["two"]]
    assert (found["one"].run, found["one"].checkpoints, found["one"].seconds) == ("r-one", Path("kept"), 1)


@pytest.mark.parametrize(
    ("what", "ending", "error"),
    [("fail", "mistake", "broken"), ("die", "crash", "ended with status 3: no memory left")],
)
def test_a_job_that_fails_does_not_end_the_others(go: Go, what: str, ending: str, error: str, folder: Path) -> None:
    one = job("one", what)
    parent = Parent(folder / "logs")
    found = go([one, job("three"), job("two", weights_of=one)], parent)
    assert (found["one"].ending, found["one"].error, found["one"].run) == (ending, error, "r-one")
    assert found["one"].measures == {}
    assert found["two"].error == "there are no weights: one failed"
    assert not found["three"].error
    assert len(ran()) == 2, "nothing is measured without weights"
    assert parent.given_up == ["one", "one", "three"], "what an earlier call has left, and what this one left"


def test_what_was_finished_before_is_not_run_again(go: Go, folder: Path) -> None:
    said: list[Outcome] = []
    found = go([job("one"), job("two")], Parent(folder / "logs", known=["one"]), ended=said.append)
    assert (found["one"].ending, found["one"].run) == ("found", "before")
    assert ran() == ["two last"]
    assert [outcome.job.name for outcome in said] == ["one", "two"]


def test_jobs_run_side_by_side(go: Go) -> None:
    """The first one never ends, so that the second one can only begin beside it."""

    def ended(outcome: Outcome) -> None:
        assert outcome.job.name == "two"
        while not Path("hangs").exists():
            time.sleep(0.02)
        raise ValueError("seen")

    with pytest.raises(ValueError, match="seen"):
        go([job("one", "hang"), job("two")], workers=2, ended=ended)
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path("hangs").read_text()), 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_what_is_under_way(go: Go, folder: Path, number: int) -> None:
    def interrupt() -> None:
        while not Path("hangs").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    parent = Parent(folder / "logs")
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        go([job("one"), job("two", "hang"), job("three")], parent)
    assert parent.given_up == ["one", "two", "two"]
    assert [line.split()[0] for line in ran()] == ["one", "two"]
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path("hangs").read_text()), 0)


def test_a_watcher_is_told_and_can_stop(folder: Path) -> None:
    told: list[Progress] = []

    def watch(progress: Progress) -> bool:
        told.append(progress)
        return progress.step == 1

    with ProcessPool([Place((), None)]) as pool:
        outcome = run_job(job("one"), Parent(folder / "logs"), pool, watch)
    assert outcome.ending == "stopped"
    assert [(step, dict(measures)) for _, _, step, measures in told] == [
        (-1, {}),
        (0, {"val/SEG": 0.0}),
        (1, {"val/SEG": 0.1}),
    ]
    assert {(progress.run, progress.checkpoints) for progress in told} == {("r-one", Path("kept"))}


def test_what_a_watcher_raises_ends_the_process(folder: Path) -> None:
    def watch(progress: Progress) -> bool:
        if progress.step == 3:
            raise ValueError("enough")
        return False

    with ProcessPool([Place((), None)]) as pool:
        with pytest.raises(ValueError, match="enough"):
            run_job(
                job("one", "hang"), Parent(folder / "logs"), pool, lambda progress: watch(progress._replace(step=3))
            )
        assert run_job(job("two"), Parent(folder / "logs"), pool, watch).ending == "finished", "its place is free again"
    assert ran() == ["one last", "two last"]


@pytest.mark.usefixtures("store")
def test_runs_are_found_by_what_makes_them(home: Path) -> None:
    first = ParentRun.open("call", "1", {"more": "it's"}, "a name", home)
    client, parent = first.client, first.run_id
    assert client.get_run(parent).data.tags.items() >= {("call", "1"), ("more", "it's")}
    assert ParentRun.open("call", "1", {}, "a name", home).run_id == parent
    other = ParentRun.open("call", "2", {}, "a name", home)
    assert other.run_id != parent
    place = client.get_run(parent).info.experiment_id

    def begin(parent: ParentRun, job: Job) -> str:
        return client.create_run(place, tags=parent.logger(job)["tags"]).info.run_id

    named, tagged = job("h = 'a'"), Job(name="one", fit=(), tags={"id": "i", "code": "it's"})
    begun = begin(first, named)
    log_result(client, begun, {"x": {"SEG": 0.5}})
    assert first.finished([named, tagged]) == {}, "it is not at its end"
    assert first.give_up(named) == "", "a run with a result has not failed"
    assert client.get_run(begun).info.status == "KILLED"
    assert first.finished([named]) == {}

    done = [begin(first, named), begin(first, tagged)]
    for run in done:
        client.set_terminated(run)
    assert first.finished([named, tagged]) == {}, "they have no result"
    assert first.give_up(named) == done[0]
    log_result(client, done[0], {"x": {"SEG": 0.25}})
    log_result(client, done[1], {"x/1": {"SEG": 0.25}, "y": {}})
    assert client.get_run(done[0]).data.metrics == {"test/SEG": 0.25}
    assert client.get_run(done[1]).data.metrics == {"test/x_1/SEG": 0.25}
    found = first.finished([named, tagged])
    assert [outcome.run for outcome in found.values()] == done
    assert (found[named].ending, found[named].measures) == ("found", {"x": {"SEG": 0.25}})
    assert list(other.finished([named, tagged])) == [tagged], "below any parent, if it has tags"
    assert first.finished([Job(name="one", fit=(), tags={"id": "i", "code": "new"})]) == {}

    follower = job("follower", weights_of=named)
    assert first.finished([named, follower]) == {}, "its weights are gone, and wanted"
    log_result(client, run := begin(first, follower), {"x": {}})
    client.set_terminated(run)
    assert len(first.finished([named, follower])) == 2, "nobody wants them"
    kept = found[named].weights
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert list(first.finished([named, job("another", weights_of=named)])) == [named]
    assert json.loads(client.get_run(done[0]).data.tags["job.result"]) == {"x": {"SEG": 0.25}}
    assert client.get_run(done[0]).data.tags[CHILD] == "h = 'a'"

    ends: list[tuple[type[BaseException] | None, str]] = [
        (None, "FINISHED"),
        (ValueError, "FAILED"),
        (KeyboardInterrupt, "KILLED"),
    ]
    for error, status in ends:
        parent = ParentRun.open("call", "1", {}, "a name", home)
        assert client.get_run(first.run_id).info.status == "RUNNING"
        with suppress(ValueError, KeyboardInterrupt), parent:
            if error is not None:
                raise error
        assert client.get_run(first.run_id).info.status == status
