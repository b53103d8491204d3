"""A study that any number of workers share: who takes which trial, and what becomes of those of dead workers."""

import os
import socket
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna import Study, Trial
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState, create_trial

from lightning_cells.errors import InputError
from lightning_cells.experiments.tuning.samplers import make_pruner, make_sampler
from lightning_cells.experiments.tuning.storage import Storage
from lightning_cells.experiments.tuning.study_file import StudyFile

IDENTITY = "lightning_cells"
"""Attribute of the study: what may not change while it goes on."""
WORKER, REASON = "worker", "reason"
"""Attributes of a trial: host and process that runs it, and why it failed."""
_FIRST = "failed_trial"  # of a repeated trial, as Optuna's own callback for retries names it
_HISTORY = "retry_history"
_CRASHES = "lightning_cells:crashes"
_LOSSES = "lightning_cells:losses"
_EXHAUSTED = "lightning_cells:exhausted"
_MOST_LOSSES = 5  # workers that a trial may outlive: it might be what kills them


def open_study(plan: StudyFile, storage: Storage, join: bool) -> Study:
    """Makes a study, or takes one that there is.

    Args:
        plan: the sweep.
        storage: where studies are kept.
        join: whether one with trials is meant to go on.

    Raises:
        InputError: if there is one that is not to go on, or of another sweep.
    """
    with storage.explained(), storage.alone(plan.study):
        try:
            study = optuna.load_study(
                study_name=plan.study, storage=storage.rdb, sampler=make_sampler(plan), pruner=make_pruner(plan)
            )
        except KeyError:
            study = optuna.create_study(
                study_name=plan.study,
                storage=storage.rdb,
                sampler=make_sampler(plan),
                pruner=make_pruner(plan),
                directions=list(plan.objectives.values()),
            )
            study.set_user_attr(IDENTITY, plan.identity())
            return study
        _check_same(study.user_attrs.get(IDENTITY), plan, storage.shown)
        number = len(study.get_trials(deepcopy=False))
        if number and not join:
            raise InputError(
                f"study '{plan.study}' has {number} trial(s) in {storage.shown}: let it go on with --resume, or give "
                f"{plan.path} another 'study'"
            )
        return study


class Trials:
    """The trials of a study, as one of its workers sees them.

    As many are begun as the study is to have, over all workers, and not one more. One that crashed, or whose worker
    died, is repeated with the same values as a new trial, which stands for the old one in that count.

    Args:
        study: the study.
        plan: the sweep.
        storage: where the study is kept.
        lost: called for each trial that is taken back from a dead worker.
    """

    def __init__(
        self, study: Study, plan: StudyFile, storage: Storage, lost: Callable[[FrozenTrial], None] = lambda _: None
    ) -> None:
        self._study = study
        self._plan = plan
        self._storage = storage
        self._lost = lost

    def claim(self) -> Trial | None:
        """Takes a trial to run: one to be repeated, or a new one; None if there is none to be had now."""
        with self._storage.alone(self._plan.study):
            self._take_back()
            trials = self._study.get_trials(deepcopy=False)
            waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
            enough = len(_first(trials)) >= self._plan.trials or self._study.user_attrs.get(_EXHAUSTED, False)
            if enough and not waiting:
                return None
            # Optuna takes the first that waits. What the trial that it repeats had not drawn is drawn as for that one;
            # seeded by the number of trials, it would be what the next new one draws.
            drawn_for = waiting[0].system_attrs.get(_FIRST, waiting[0].number) if waiting else len(trials)
            self._study.sampler = make_sampler(self._plan, drawn_for)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*Heartbeat of storage is supposed to be used.*")  # we send them
                trial = self._study.ask()
            self.beat(trial)
            trial.set_user_attr(WORKER, f"{socket.gethostname()}:{os.getpid()}")
            return trial

    @property
    def good(self) -> bool:
        """Whether any trial has ended well, if only by being pruned."""
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        return bool(self._study.get_trials(deepcopy=False, states=states))

    def beat(self, trial: Trial) -> None:
        """Tells the other workers that a trial is under way."""
        self._storage.rdb.record_heartbeat(trial._trial_id)

    def tell(self, trial: Trial, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Ends a trial; False if another worker had taken it back, and it does not count any more."""
        with self._storage.alone(self._plan.study):
            if self._study.get_trials(deepcopy=False)[trial.number].state.is_finished():
                return False
            self._tell(trial.number, state, values)
            return True

    def fail(self, trial: Trial, reason: str, crashed: bool = False, repeat: bool = False) -> tuple[bool, bool]:
        """Ends a trial that failed.

        Args:
            trial: the trial.
            reason: why.
            crashed: whether it is repeated unless it has crashed too often.
            repeat: whether it is repeated in any case.

        Returns:
            As of `tell`, and whether it is repeated.
        """
        with self._storage.alone(self._plan.study):
            known = self._study.get_trials(deepcopy=False)[trial.number]
            if known.state.is_finished():
                return False, False
            trial.set_user_attr(REASON, reason)
            crashes = known.system_attrs.get(_CRASHES, 0) + crashed
            again = repeat or (crashed and crashes <= self._plan.retries)
            if again:  # first, so that it is not forgotten if this process dies here
                self._enqueue(known, {_CRASHES: crashes})
            self._tell(trial.number, TrialState.FAIL)
            return True, again

    @property
    def under_way(self) -> bool:
        """Whether any worker has a trial to run or at work."""
        return any(not trial.state.is_finished() for trial in self._study.get_trials(deepcopy=False))

    @property
    def running(self) -> bool:
        """Whether any worker has a trial at work."""
        return bool(self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    def _take_back(self) -> None:
        """Has the trials of dead workers repeated: those that failed, and nobody has said why."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(self._study)
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if WORKER not in trial.user_attrs:  # its worker died before the first sign of life
                self._tell(trial.number, TrialState.FAIL)
        trials = self._study.get_trials(deepcopy=False)
        repeated = {repeats(trial) for trial in trials}
        for trial in trials:
            dead = trial.state == TrialState.FAIL and REASON not in trial.user_attrs
            losses = trial.system_attrs.get(_LOSSES, 0) + 1
            if dead and losses <= _MOST_LOSSES and trial.number not in repeated:
                self._enqueue(trial, {_LOSSES: losses})
                self._lost(trial)

    def _tell(self, number: int, state: TrialState, values: Sequence[float] | None = None) -> None:
        try:
            self._study.tell(number, values, state)
        except RuntimeError as error:  # so samplers say that they have proposed all there is
            if "Study.stop" not in str(error):
                raise
            self._study.set_user_attr(_EXHAUSTED, True)

    def _enqueue(self, trial: FrozenTrial, counts: dict[str, int]) -> None:
        """Has a trial repeated, unless it is already."""
        if trial.number in {repeats(other) for other in self._study.get_trials(deepcopy=False)}:
            return
        history = [*trial.system_attrs.get(_HISTORY, []), trial.number]
        again = create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            # Those of the sampler, too: a grid's keeps there which point it is.
            system_attrs={_FIRST: trial.number, **trial.system_attrs, _HISTORY: history, **counts},
        )
        self._study.add_trial(again)


def repeats(trial: FrozenTrial) -> int | None:
    """Number of the trial that this one repeats, None if it is no repetition."""
    return trial.system_attrs.get(_HISTORY, [None])[-1]


def standing(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count: of a trial and its repetitions the last."""
    repeated = {repeats(trial) for trial in trials}
    return [trial for trial in trials if trial.number not in repeated]


def _first(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if _FIRST not in trial.system_attrs]


def _check_same(known: dict[str, Any] | None, plan: StudyFile, place: str) -> None:
    here = plan.identity()
    if known == here:
        return
    remedy = f"give {plan.path} another 'study', or what it had"
    if known is None:
        raise InputError(f"study '{plan.study}' in {place} was not made by a sweep: {remedy}")
    for part, name in (("space", "space"), ("objective", "objective"), ("set", "set")):
        theirs, ours = known.get(part) or {}, here[part]
        for key in [*ours, *theirs]:
            if theirs.get(key) != ours.get(key):
                there = "had none" if key not in theirs else "has another" if key in ours else "had one"
                raise InputError(f"study '{plan.study}' in {place} {there} for {name}.{key}: {remedy}")
    changed = "another checkpoint" if known.get("checkpoint") != here["checkpoint"] else "other configuration files"
    raise InputError(f"study '{plan.study}' in {place} began with {changed}: {remedy}")
