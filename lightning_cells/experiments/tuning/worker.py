"""A worker of a study: runs trials side by side until the study has as many as it is to have."""

import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from optuna import Study, Trial
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from lightning_cells.errors import InputError, nearest
from lightning_cells.experiments.processes import Place, ProcessPool
from lightning_cells.experiments.runner import Outcome, Progress
from lightning_cells.experiments.tuning.mlflow_runs import StudyRuns
from lightning_cells.experiments.tuning.space import Chosen
from lightning_cells.experiments.tuning.storage import Storage
from lightning_cells.experiments.tuning.study import INTERRUPTED, Trials
from lightning_cells.experiments.tuning.study_file import StudyFile
from lightning_cells.experiments.tuning.work import Work, process_name

RUN, MEASURES = "run", "measures"
"""Attributes of a trial: id of its run, and all measures of the validation that counts."""
_FRUITLESS = 3  # trials that fail from the start, after which the worker gives up
_POLL_S = 0.1  # between two looks at whether the worker is interrupted, while it waits for the trials of others


@dataclass
class Attempt:
    """A trial at work.

    Attributes:
        trial: as Optuna has it.
        chosen: its values.
        run: id of its MLflow run, as soon as it is known.
        checkpoints: folder of its checkpoints.
        reports: measures of each validation.
        best: those of the validation that was best by the first objective, which ``best.ckpt`` is also of; empty as
            long as that was never a number.
    """

    trial: Trial
    chosen: Chosen
    run: str | None = None
    checkpoints: Path | None = None
    reports: list[Mapping[str, float]] = field(default_factory=list)
    best: Mapping[str, float] = field(default_factory=dict)


class Worker:
    """Runs trials.

    Args:
        plan: the sweep.
        study: the study.
        storage: where the study is kept.
        runs: the study in MLflow.
        work: what trials do.
        places: where, one trial at each.
        say: told in one line about each trial that ended.

    Attributes:
        trials: those of the study.
    """

    def __init__(
        self,
        plan: StudyFile,
        study: Study,
        storage: Storage,
        runs: StudyRuns,
        work: Work,
        places: list[Place],
        say: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._study = study
        self._storage = storage
        self._runs = runs
        self._work = work
        self._places = places
        self._say = say
        self.trials = Trials(study, plan, storage, self._lost)
        self._running: dict[Future[Outcome], Attempt] = {}
        self._failures: list[str] = []
        self._kept: dict[int, Path] = {}  # checkpoints of finished trials

    def work(self) -> None:
        """Runs trials until none is left to be begun, here or elsewhere.

        Raises:
            InputError: if the trials fail from the start, or the storage does not answer any more.
            KeyboardInterrupt: after the trials under way were put back.
        """
        self._running = {}
        with (
            self._storage.explained(),
            ProcessPool(self._places) as pool,
            ThreadPoolExecutor(pool.size) as threads,
        ):
            try:
                self._run_all(pool, threads)
            except (InputError, KeyboardInterrupt) as error:
                pool.close()
                wait(self._running)
                put_back = isinstance(error, KeyboardInterrupt) or self.trials.good
                for attempt in self._running.values():
                    counted, _ = self.trials.fail(attempt.trial, INTERRUPTED, repeat=put_back)
                    self._ended(attempt, "INTERRUPTED", counted)
                raise
            finally:
                pool.close()  # so that the threads end

    def _run_all(self, pool: ProcessPool, threads: Executor) -> None:
        next_look = next_beat = 0.0
        while True:
            pool.check()
            now = time.monotonic()
            if now >= next_look:
                while len(self._running) < pool.size and self._begin(pool, threads):
                    pass
                next_look = now + self._storage.heartbeat
            if not self._running and not self.trials.under_way:
                return
            if now >= next_beat:
                for attempt in self._running.values():
                    self.trials.beat(attempt.trial)
                next_beat = now + self._storage.heartbeat
            if self._rest(pool, min(next_look, next_beat) - now):
                next_look = 0.0

    def _begin(self, pool: ProcessPool, threads: Executor) -> bool:
        """Begins a trial; False if there is none to be had now."""
        trial = self.trials.claim()
        if trial is None:
            return False
        attempt = Attempt(trial, self._plan.space.suggest(trial))
        if not self._work.logs:
            attempt.run = self._runs.begin(trial.number, attempt.chosen)
            self._note(trial, RUN, attempt.run)
        watch = partial(self._watch, attempt)
        self._running[threads.submit(self._work.run, pool, trial.number, attempt.chosen, watch)] = attempt
        return True

    def _rest(self, pool: ProcessPool, seconds: float) -> bool:
        """Waits until trials end, at most so long; returns whether any did."""
        if not self._running:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                pool.check()
                time.sleep(_POLL_S)
            return False
        done = wait(self._running, seconds, FIRST_COMPLETED).done
        for future in done:
            self._judge(self._running[future], future)
            del self._running[future]
        return bool(done)

    def _watch(self, attempt: Attempt, progress: Progress) -> bool:
        """Keeps what a trial reports, in the thread that runs it; returns whether it is hopeless."""
        if progress.step < 0:
            attempt.run, attempt.checkpoints = progress.run or None, progress.checkpoints
            self._note(attempt.trial, RUN, attempt.run)
            return False
        attempt.reports.append(progress.measures)
        if self._work.logs:
            self._check_logged(progress.measures, among="val/")
        name, direction = next(iter(self._plan.objectives.items()))
        value, sign = progress.measures.get(name, math.nan), 1 if direction == "maximize" else -1
        if not math.isnan(value) and (not attempt.best or sign * value > sign * attempt.best[name]):
            attempt.best = progress.measures
        if len(self._plan.objectives) > 1:
            return False
        if not math.isnan(value):
            attempt.trial.report(value, progress.step)
        return bool(attempt.trial.should_prune())

    def _judge(self, attempt: Attempt, future: Future[Outcome]) -> None:
        """Tells Optuna and MLflow what became of a trial that has ended."""
        try:
            outcome = future.result()
            if outcome.ending == "finished":
                self._check_logged({**outcome.logged, **{name: 0 for each in attempt.reports for name in each}})
        except UpdateFinishedTrialError:  # another worker counted it as lost and repeats it
            self._tidy(attempt)
            return
        except InputError as error:
            counted, _ = self.trials.fail(attempt.trial, str(error))
            self._ended(attempt, "FAIL", counted, reason=str(error))
            raise InputError(f"{self._plan.path}: {error}") from error
        measures = attempt.best if self._work.logs else outcome.logged
        values = [measures.get(name, math.nan) for name in self._plan.objectives]
        if outcome.error:
            self._fail(attempt, outcome.error, crashed=outcome.ending == "crash")
        elif outcome.ending == "stopped":
            self._end(attempt, TrialState.PRUNED, None, measures)
        elif any(map(math.isnan, values)):
            missing = [name for name, value in zip(self._plan.objectives, values, strict=True) if math.isnan(value)]
            self._fail(attempt, f"objective {missing[0]} is not a number (NaN)")
        else:
            self._end(attempt, TrialState.COMPLETE, values, measures)

    def _check_logged(self, logged: Iterable[str], among: str = "") -> None:
        """Raises InputError for an objective that begins with `among` and that trials do not log."""
        for name in self._plan.objectives:
            if name.startswith(among) and name not in logged:
                raise InputError(f"objective '{name}' is never logged: {nearest(name, sorted(logged) or ['none'])}")

    def _fail(self, attempt: Attempt, reason: str, crashed: bool = False) -> None:
        """Ends a trial that failed; one that crashed is repeated, what would happen again is not."""
        counted, again = self.trials.fail(attempt.trial, reason, crashed)
        self._ended(attempt, "FAIL", counted, reason=reason)
        if counted and not again:
            self._failures.append(reason)
        if len(self._failures) >= _FRUITLESS and not self.trials.good:
            raise InputError(f"the first {len(self._failures)} trials failed, the last one: {reason}")

    def _end(
        self, attempt: Attempt, state: TrialState, values: list[float] | None, measures: Mapping[str, float]
    ) -> None:
        finite = {name: value for name, value in measures.items() if math.isfinite(value)}
        self._note(attempt.trial, MEASURES, finite or None)
        counted = self.trials.tell(attempt.trial, state, values)
        self._ended(attempt, state.name, counted, measures)
        if counted and state == TrialState.COMPLETE and len(self._plan.objectives) == 1:
            self._runs.best(attempt.trial.number, {next(iter(self._plan.objectives)): self._study.best_value})

    def _ended(
        self, attempt: Attempt, state: str, counted: bool, measures: Mapping[str, float] | None = None, reason: str = ""
    ) -> None:
        """Writes down what became of a trial, unless another worker counted it as lost and repeats it."""
        number = attempt.trial.number
        if counted:
            if attempt.run is None:  # its process died before it told its run
                attempt.run = self._runs.find(number) or self._runs.begin(number, attempt.chosen)
            if not self._work.logs:
                self._runs.log(attempt.run, [*attempt.reports, *([measures] if measures else [])])
            log = self._runs.parent.logs / f"{process_name(number)}.log" if state == "FAIL" else None
            self._runs.end(attempt.run, state, reason, log)
            self._tell_user(number, state, measures or {}, reason)
        self._tidy(attempt)

    def _tidy(self, attempt: Attempt) -> None:
        """Removes the checkpoints of trials that are not, or no longer, among the best."""
        if attempt.checkpoints is None or self._plan.settings.get("checkpoint.folder") is not None:
            return
        self._kept[attempt.trial.number] = attempt.checkpoints
        best = {trial.number for trial in self._study.best_trials}
        for other in [other for other in self._kept if other not in best]:
            shutil.rmtree(self._kept.pop(other), ignore_errors=True)

    def _lost(self, trial: FrozenTrial) -> None:
        """Ends the run of a trial whose worker died."""
        reason = f"its worker {trial.user_attrs.get('worker', '')} died".replace("  ", " ")
        run = trial.user_attrs.get(RUN) or self._runs.find(trial.number)
        run = run or self._runs.begin(trial.number, self._plan.space.chosen(trial.params))
        self._runs.end(run, "LOST", reason)
        self._tell_user(trial.number, "LOST", {}, f"{reason}, it is run again")

    def _tell_user(self, number: int, state: str, measures: Mapping[str, float], reason: str) -> None:
        values = [f"{name} {measures[name]:.4f}" for name in self._plan.objectives if name in measures]
        self._say(f"trial {number:>4} {state.lower():<9} {', '.join(values) or reason}")

    def _note(self, trial: Trial, key: str, value: Any) -> None:
        if value is not None:
            with suppress(UpdateFinishedTrialError):  # another worker counted it as lost
                trial.set_user_attr(key, value)
