"""A worker of a study: runs trials at its places, one after another, until the study has as many as it is to have."""

import math
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from optuna import Study, Trial
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from lightning_cells.errors import InputError
from lightning_cells.experiments.tuning.child import Child, kill_all
from lightning_cells.experiments.tuning.interruption import Interruption, interruptible
from lightning_cells.experiments.tuning.places import Place
from lightning_cells.experiments.tuning.record import StudyRecord
from lightning_cells.experiments.tuning.slot import Slot, Work
from lightning_cells.experiments.tuning.storage import Storage
from lightning_cells.experiments.tuning.study import Trials
from lightning_cells.experiments.tuning.study_file import StudyFile

RUN, MEASURES = "run", "measures"
"""Attributes of a trial: id of its run, and all measures of the validation that counts."""
_FRUITLESS = 3  # trials that fail from the start, after which the worker gives up


class Worker:
    """Runs trials.

    Args:
        plan: the sweep.
        study: the study.
        storage: where the study is kept.
        record: writes runs.
        work: what trials do.
        places: where, one trial at each.
        logs: folder for what the processes print.
        say: told in one line about each trial that ended.

    Attributes:
        trials: those of the study.
    """

    def __init__(
        self,
        plan: StudyFile,
        study: Study,
        storage: Storage,
        record: StudyRecord,
        work: Work,
        places: list[Place],
        logs: Path,
        say: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._study = study
        self._storage = storage
        self._record = record
        self._work = work
        self._slots = [Slot(place, number) for number, place in enumerate(places)]
        self._logs = logs
        self._say = say
        self.trials = Trials(study, plan, storage, self._lost)
        self._next_look = 0.0
        self._next_beat = 0.0
        self._failures: list[str] = []
        self._kept: dict[int, Path] = {}  # checkpoints of finished trials

    def work(self) -> None:
        """Runs trials until none is left to be begun, here or elsewhere.

        Raises:
            InputError: if the trials fail from the start, or the storage does not answer any more.
            KeyboardInterrupt: after the trials under way were put back.
        """
        try:
            with self._storage.explained(), interruptible() as interruption:
                try:
                    while not interruption.asked and (self._fill() or self.trials.under_way):
                        self._listen(interruption)
                except InputError:
                    self._stop(put_back=self.trials.good)
                    raise
                if interruption.asked:
                    self._stop(put_back=True)
                    raise KeyboardInterrupt
        finally:
            kill_all([slot.child for slot in self._slots if slot.child is not None])

    def _fill(self) -> bool:
        """Begins trials where there is none; whether there are any."""
        if time.monotonic() >= self._next_look:
            for slot in self._slots:
                if self._ready(slot) and not self._begin(slot):
                    self._next_look = time.monotonic() + self._storage.heartbeat
                    break
        return any(slot.trial is not None or not self._ready(slot) for slot in self._slots)

    def _ready(self, slot: Slot) -> bool:
        """Whether a trial can begin there: a process that ends with its trial may still have to end."""
        return slot.trial is None and (slot.child is None or self._work.lasting)

    def _begin(self, slot: Slot) -> bool:
        trial = self.trials.claim()
        if trial is None:
            return False
        slot.trial, slot.run, slot.checkpoints, slot.stopped, slot.reports = trial, None, None, False, []
        slot.chosen = self._plan.space.suggest(trial)
        if not self._work.logs:
            slot.run = self._record.begin(trial.number, slot.chosen)
            self._note(trial, RUN, slot.run)
        if slot.child is None:
            name = f"worker-{os.getpid()}-{slot.number}" if self._work.lasting else f"trial-{trial.number:04d}"
            slot.child = Child(self._work.module, slot.place, self._logs / f"{name}.log")
        slot.child.send(self._work.task(trial.number, slot.chosen))
        return True

    def _listen(self, interruption: Interruption) -> None:
        """Waits for what a process says, at most until something else is due."""
        now = time.monotonic()
        if now >= self._next_beat:
            for slot in self._slots:
                if slot.trial is not None:
                    self.trials.beat(slot.trial)
            self._next_beat = now + self._storage.heartbeat
        due = [self._next_beat]
        if any(map(self._ready, self._slots)):
            due.append(self._next_look)
        links: dict[Any, Slot] = {slot.child.link.connection: slot for slot in self._slots if slot.child is not None}
        for connection in wait([*links, interruption.descriptor], timeout=max(0.0, min(due) - now)):
            if connection in links:
                self._hear(links[connection])

    def _hear(self, slot: Slot) -> None:
        assert slot.child is not None
        message = slot.child.link.receive()
        if message is None:
            said = slot.child.end()
            if slot.trial is not None:
                self._fail(slot, said, crashed=True)
            slot.child = None
            self._next_look = 0.0
        elif slot.trial is None:
            return
        elif "run" in message:
            slot.run, slot.checkpoints = message["run"], message["checkpoints"]
            self._note(slot.trial, RUN, slot.run)
        elif "report" in message:
            self._report(slot, message["report"], message["step"])
        elif "done" in message:
            self._finish(slot, message["done"])
        elif message["kind"] == "mistake":
            self.trials.fail(slot.trial, message["failed"])
            self._ended(slot, slot.trial, "FAIL", True, {}, message["failed"])
            slot.trial = None
            raise InputError(f"{self._plan.path}: {message['failed']}")
        else:
            self._fail(slot, message["failed"], crashed=message["kind"] == "crash")

    def _report(self, slot: Slot, measures: dict[str, float], step: int) -> None:
        assert slot.trial is not None
        assert slot.child is not None
        slot.reports.append(measures)
        if len(self._plan.objectives) == 1:
            value = measures.get(next(iter(self._plan.objectives)), math.nan)
            try:
                if not math.isnan(value):
                    slot.trial.report(value, step)
                slot.stopped = bool(slot.trial.should_prune())
            except UpdateFinishedTrialError:  # others took it for dead, and have it repeated
                slot.child.kill()
                slot.child = slot.trial = None
                return
        slot.child.send({"stop": slot.stopped})

    def _finish(self, slot: Slot, measures: dict[str, float]) -> None:
        values = [measures.get(name, math.nan) for name in self._plan.objectives]
        if slot.stopped:
            self._end(slot, TrialState.PRUNED, None, measures)
        elif any(map(math.isnan, values)):
            missing = [name for name, value in zip(self._plan.objectives, values, strict=True) if math.isnan(value)]
            self._fail(slot, f"objective {missing[0]} is not a number (NaN)", crashed=False)
        else:
            self._end(slot, TrialState.COMPLETE, values, measures)

    def _fail(self, slot: Slot, reason: str, crashed: bool) -> None:
        """Ends a trial that failed; one that crashed is repeated, what would happen again is not."""
        trial, slot.trial = slot.trial, None
        assert trial is not None
        counted, again = self.trials.fail(trial, reason, crashed)
        log = slot.child.log if slot.child is not None and self._work.logs else None
        self._ended(slot, trial, "FAIL", counted, {}, reason, log)
        if counted and not again:
            self._failures.append(reason)
        if len(self._failures) >= _FRUITLESS and not self.trials.good:
            raise InputError(f"the first {len(self._failures)} trials failed, the last one: {reason}")

    def _end(self, slot: Slot, state: TrialState, values: list[float] | None, measures: dict[str, float]) -> None:
        trial, slot.trial = slot.trial, None
        assert trial is not None
        self._note(trial, MEASURES, _finite(measures) or None)
        counted = self.trials.tell(trial, state, values)
        self._ended(slot, trial, state.name, counted, measures, "")
        if counted and state == TrialState.COMPLETE and len(self._plan.objectives) == 1:
            self._record.best(trial.number, {next(iter(self._plan.objectives)): self._study.best_value})

    def _ended(
        self,
        slot: Slot,
        trial: Trial,
        state: str,
        counted: bool,
        measures: dict[str, float],
        reason: str,
        log: Path | None = None,
    ) -> None:
        """Writes down what became of a trial."""
        self._next_look = 0.0
        if counted:
            if slot.run is None:  # it died before it told
                slot.run = self._record.find(trial.number) or self._record.begin(trial.number, slot.chosen)
            if not self._work.logs:
                self._record.log(slot.run, [*slot.reports, *([measures] if measures else [])])
            self._record.end(slot.run, state, reason, log)
            shown = {name: measures[name] for name in self._plan.objectives if name in measures}
            self._say(_line(trial.number, state, shown, reason))
        self._tidy(trial.number, slot.checkpoints)

    def _tidy(self, number: int, folder: str | None) -> None:
        """Removes the checkpoints of trials that are not, or no longer, among the best."""
        if folder is None or self._plan.settings.get("checkpoint.folder") is not None:
            return
        self._kept[number] = Path(folder)
        best = {trial.number for trial in self._study.best_trials}
        for other in [other for other in self._kept if other not in best]:
            shutil.rmtree(self._kept.pop(other), ignore_errors=True)

    def _stop(self, put_back: bool) -> None:
        """Ends the trials under way; if they are put back, they begin again when the study goes on."""
        for slot in self._slots:
            if slot.child is not None:
                slot.child.kill()
                slot.child = None
            if slot.trial is not None:
                trial, slot.trial = slot.trial, None
                counted, _ = self.trials.fail(trial, "interrupted", repeat=put_back)
                self._ended(slot, trial, "INTERRUPTED", counted, {}, "")

    def _lost(self, trial: FrozenTrial) -> None:
        """Ends the run of a trial whose worker died."""
        reason = f"its worker {trial.user_attrs.get('worker', '')} died".replace("  ", " ")
        run = trial.user_attrs.get(RUN) or self._record.find(trial.number)
        run = run or self._record.begin(trial.number, self._plan.space.chosen(trial.params))
        self._record.end(run, "LOST", reason)
        self._say(_line(trial.number, "LOST", {}, f"{reason}, it is run again"))

    def _note(self, trial: Trial, key: str, value: Any) -> None:
        if value is None:
            return
        with suppress(UpdateFinishedTrialError):  # it was taken from us
            trial.set_user_attr(key, value)


def _finite(measures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in measures.items() if math.isfinite(value)}


def _line(number: int, state: str, values: dict[str, float], reason: str) -> str:
    said = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
    return f"trial {number:>4} {state.lower():<9} {said or reason}"
