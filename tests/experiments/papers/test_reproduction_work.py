"""Jobs in processes of their own: what runs, what does not run again, and how a table ends early."""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lightning_cells.experiments.papers import runs as runs_module
from lightning_cells.experiments.papers import work as work_module
from lightning_cells.experiments.papers.plan import Job
from lightning_cells.experiments.papers.runs import (
    CODE,
    IDENTITY,
    RESULT,
    Measures,
    Outcome,
    TableRuns,
    checkpoint,
)
from lightning_cells.experiments.papers.work import Work
from lightning_cells.experiments.tuning.places import Place

# What stands in for trainings: a process that does as the job's only word says.
ROW = """
import os, pathlib, sys, time
from lightning_cells.experiments.tuning.link import WorkerLink

link = WorkerLink(int(sys.argv[1]))
task = link.receive()
(what,) = task["words"]
with open("ran", "a") as file:
    file.write(f"{task['logger']['name']} {task['checkpoint']}\\n")
if what == "die":
    print("no memory left")
    sys.stdout.flush()
    os._exit(3)
if what == "hang":
    pathlib.Path("hangs").write_text(str(os.getpid()))
    time.sleep(300)
done = {"run": "r-" + task["logger"]["name"], "measures": {"x": {"SEG": 1.0}}, "seconds": 1}
link.send({"failed": "broken"} if what == "fail" else done)
link.close()
"""


class Runs(TableRuns):
    """In place of the store."""

    def __init__(self, known: dict[str, str] | None = None, old: dict[str, str] | None = None) -> None:
        self.known, self.old = known or {}, old or {}
        self.ended: list[str] = []

    def finished(self, identity: str) -> tuple[str, Measures] | None:
        return (self.known[identity], {"x": {"SEG": 0.5}}) if identity in self.known else None

    def outdated(self, identity: str) -> str | None:
        return self.old.get(identity)

    def logger(self, job: Job, identity: str) -> dict[str, Any]:
        return {"name": job.row}

    def failed(self, job: Job) -> str:
        self.ended.append(job.row)
        return f"r-{job.row}"


def job(row: str, what: str = "ok", source: Job | None = None) -> Job:
    kind = "train" if source is None else "measure"
    return Job(row, "x", 0, 0, 1, kind, (what,), {}, "last", source)  # type: ignore[arg-type]


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[dict[str, Outcome], list[str]]]:
    """Runs jobs and returns what became of them, and what was said."""
    (tmp_path / "fake_row.py").write_text(ROW)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(work_module, "_MODULE", "fake_row")

    def go(jobs: list[Job], runs: Runs | None = None, workers: int = 1) -> tuple[dict[str, Outcome], list[str]]:
        said: list[str] = []
        identities = {job: f"id-{job.row}" for job in jobs}
        work = Work(identities, runs or Runs(), [Place((), None)] * workers, tmp_path / "logs", said.append)
        return {outcome.job.row: outcome for outcome in work.work()}, said

    return go


def ran() -> list[str]:
    return Path("ran").read_text().splitlines() if Path("ran").exists() else []


def test_weights_are_handed_on(go: Any, home: Path) -> None:
    one = job("one")
    found, said = go([one, job("two", source=one)], workers=2)
    assert found["two"].measures == {"x": {"SEG": 1.0}}
    assert ran() == ["one None", f"two {home}/checkpoints/r-one/last.ckpt"]
    assert said[0].startswith("one, x, seed 1: ")
    assert "run r-one" in said[0]


@pytest.mark.parametrize(("what", "error"), [("fail", "broken"), ("die", "ended with status 3: no memory left")])
def test_a_row_that_fails_does_not_end_the_others(go: Any, what: str, error: str) -> None:
    one = job("one", what)
    found, said = go([one, job("three"), job("two", source=one)])
    assert (found["one"].error, found["one"].run, found["one"].measures) == (error, "r-one", {})
    assert found["two"].error == "there are no weights: one, x, seed 1 failed"
    assert not found["three"].error
    assert len(ran()) == 2, "nothing is measured without weights"
    assert f"one, x, seed 1: failed: {error} (run r-one)" in said


def test_what_ran_before_is_not_run_again(go: Any) -> None:
    found, said = go([job("one"), job("two"), job("three")], Runs({"id-one": "before"}, {"id-two": "0123"}))
    assert (found["one"].run, found["one"].measures) == ("before", {"x": {"SEG": 0.5}})
    assert ran() == ["two None", "three None"]
    assert "1 of 3 runs are there already" in said[0]
    assert "1 runs are made again: the code has changed since (0123)" in said[1]


def test_a_training_runs_again_if_its_weights_are_gone_and_wanted(go: Any, home: Path) -> None:
    one = job("one")
    two = job("two", source=one)
    go([one, two], Runs({"id-one": "before"}))
    assert ran() == ["one None", f"two {home}/checkpoints/r-one/last.ckpt"]
    Path("ran").unlink()
    go([one, two], Runs({"id-one": "before", "id-two": "too"}))
    assert ran() == [], "nobody wants them"
    kept = checkpoint("before", one)
    kept.parent.mkdir(parents=True)
    kept.touch()
    go([one, two], Runs({"id-one": "before"}))
    assert ran() == [f"two {kept}"]


def test_an_interruption_ends_what_is_under_way(go: Any) -> None:
    def interrupt() -> None:
        while not Path("hangs").exists() or not Path("hangs").read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    runs = Runs()
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        go([job("one"), job("two", "hang"), job("three")], runs)
    assert runs.ended == ["two"]
    assert [line.split()[0] for line in ran()] == ["one", "two"]
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path("hangs").read_text()), 0)


def test_a_run_is_found_by_what_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "code_version", lambda: "new")
    first = TableRuns("it's", "tiny", {"a.b": "c"})
    client, parent = first._client, first.parent
    assert TableRuns("it's", "tiny", {"a.b": "c"}).parent == parent
    assert TableRuns("it's", "tiny", {}).parent != parent
    place = client.get_run(parent).info.experiment_id
    assert first.finished("i") is None
    arguments = first.logger(job("h = 0.1"), "i")
    unfinished = client.create_run(place, tags=arguments["tags"]).info.run_id
    assert first.finished("i") is None, "it has no result"
    assert first.failed(job("h = 0.1")) == unfinished
    assert client.get_run(unfinished).info.status == "KILLED"
    client.create_run(place, tags={IDENTITY: "i", CODE: "old", RESULT: "{}"})
    assert (first.finished("i"), first.outdated("i")) == (None, "old")
    done = client.create_run(place, tags={IDENTITY: "i", CODE: "new", RESULT: '{"x": {"SEG": 0.25}}'}).info.run_id
    assert TableRuns("other", "tiny", {}).finished("i") == (done, {"x": {"SEG": 0.25}})
    assert first.failed(replace(job("another"))) == ""
