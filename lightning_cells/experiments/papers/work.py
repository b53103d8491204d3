"""Runs the jobs of a table, each in a process of its own, some at a time."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from lightning_cells.experiments.papers.plan import Job
from lightning_cells.experiments.papers.runs import Outcome, TableRuns, checkpoint
from lightning_cells.experiments.tuning.child import Child, kill_all
from lightning_cells.experiments.tuning.interruption import Interruption, interruptible
from lightning_cells.experiments.tuning.places import Place

_MODULE = "lightning_cells.cli.row"


@dataclass
class _Slot:
    place: Place
    child: Child
    job: Job
    began: float


class Work:
    """Runs jobs that were not run before.

    Args:
        jobs: all jobs of a table with their identities, those whose weights others take first.
        runs: their runs.
        places: where they run, one at a time at each.
        logs: folder for what the processes print.
        say: told in one line about each job that ended.
    """

    def __init__(
        self,
        jobs: dict[Job, str],
        runs: TableRuns,
        places: list[Place],
        logs: Path,
        say: Callable[[str], None],
    ) -> None:
        self._jobs = jobs
        self._runs = runs
        self._free = list(places)
        self._logs = logs
        self._say = say
        self._slots: list[_Slot] = []
        self._done: dict[Job, Outcome] = {}

    def work(self) -> list[Outcome]:
        """Runs what is left to do, and returns what became of all jobs.

        Raises:
            KeyboardInterrupt: after the processes under way were ended.
        """
        self._look_up()
        waiting = [job for job in self._jobs if job not in self._done]
        try:
            with interruptible() as interruption:
                while (waiting or self._slots) and not interruption.asked:
                    self._begin(waiting)
                    if self._slots:
                        self._listen(interruption)
                if interruption.asked:
                    raise KeyboardInterrupt
        finally:
            kill_all([slot.child for slot in self._slots])
            for slot in self._slots:
                self._runs.failed(slot.job)
        return [self._done[job] for job in self._jobs]

    def _look_up(self) -> None:
        """Finds what ran before, and says what runs again and why."""
        for job, identity in self._jobs.items():
            found = self._runs.finished(identity)
            if found is not None:
                self._done[job] = Outcome(job, *found)
        for job in list(self._jobs):
            source = job.source
            if (
                job not in self._done
                and source in self._done
                and not checkpoint(self._done[source].run, source).exists()
            ):
                del self._done[source]  # its weights are gone
        known = sum(job in self._done for job in self._jobs)
        old = [code for job in self._jobs if job not in self._done and (code := self._runs.outdated(self._jobs[job]))]
        if known:
            self._say(f"{known} of {len(self._jobs)} runs are there already, by the same code, data, options and seed")
        if old:
            self._say(f"{len(old)} runs are made again: the code has changed since ({', '.join(sorted(set(old)))})")

    def _begin(self, waiting: list[Job]) -> None:
        for job in list(waiting):
            source = None if job.source is None else self._done.get(job.source)
            if job.source is not None and source is None:
                continue  # its weights are still to come
            if source is not None and source.error:
                waiting.remove(job)
                self._end(Outcome(job, "", error=f"there are no weights: {source.job.name} failed"))
            elif self._free:
                waiting.remove(job)
                place = self._free.pop(0)
                child = Child(_MODULE, place, self._logs / f"{job.name.replace('/', '-')}.log")
                child.send(self._task(job, source))
                self._slots.append(_Slot(place, child, job, time.monotonic()))

    def _task(self, job: Job, source: Outcome | None) -> dict[str, Any]:
        return {
            "kind": job.kind,
            "words": job.words,
            "tests": job.tests,
            "weights": job.weights,
            "checkpoint": None if source is None else str(checkpoint(source.run, source.job)),
            "logger": self._runs.logger(job, self._jobs[job]),
        }

    def _listen(self, interruption: Interruption) -> None:
        """Waits until a process says something or ends."""
        links: dict[Any, _Slot] = {slot.child.link.connection: slot for slot in self._slots}
        for connection in wait([*links, interruption.descriptor]):
            if connection in links:
                self._hear(links[connection])

    def _hear(self, slot: _Slot) -> None:
        message = slot.child.link.receive()
        self._slots.remove(slot)
        died = slot.child.end()
        self._free.append(slot.place)
        if message is not None and "measures" in message:
            outcome = Outcome(slot.job, message["run"], message["measures"])
            took = f"{time.monotonic() - slot.began:.0f} s, {message['seconds']:.0f} s of CPU"
        else:
            error = died if message is None else message["failed"]
            outcome, took = Outcome(slot.job, self._runs.failed(slot.job), error=error), ""
        self._end(outcome, took)

    def _end(self, outcome: Outcome, took: str = "") -> None:
        self._done[outcome.job] = outcome
        if outcome.error:
            self._say(f"{outcome.job.name}: failed: {outcome.error}" + (f" (run {outcome.run})" if outcome.run else ""))
        else:
            self._say(f"{outcome.job.name}: {took}, run {outcome.run}")
