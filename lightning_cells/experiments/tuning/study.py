"""A study that any number of workers share: who takes which trial, and what becomes of those of dead workers."""

import hashlib
import inspect
import os
import socket
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, TypeVar

import optuna
from optuna import Study, Trial
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from lightning_cells.errors import InputError, nearest
from lightning_cells.experiments.tuning.storage import Storage
from lightning_cells.experiments.tuning.study_file import ByClass, StudyFile
from lightning_cells.yaml_file import checked

IDENTITY = "lightning_cells"
"""Attribute of the study: what may not change while it goes on."""
WORKER, REASON = "worker", "reason"
"""Attributes of a trial: host and process that runs it, and why it failed."""
INTERRUPTED = "interrupted"
"""The reason of trials that were put back."""
_FIRST, _HISTORY = "failed_trial", "retry_history"  # of a repeated trial, as Optuna's own callback for retries has them
_EXHAUSTED = "lightning_cells:exhausted"
_MOST_LOSSES = 5  # workers that a trial may outlive: it might be what kills them
_SHARED_SEED = ("QMCSampler", "GridSampler")  # whose workers go through one series together
_Kind = TypeVar("_Kind", BaseSampler, BasePruner)


def make_sampler(plan: StudyFile, trial: int | None = None) -> BaseSampler:
    """Returns the sampler of a sweep.

    Args:
        plan: the sweep.
        trial: number of the trial that it is to propose. A ``seed`` is mixed with it, so that a study can be repeated
            and workers with the same seed do not propose the same.

    Raises:
        InputError: if there is no such class, or it does not take these arguments.
    """
    part, arguments = plan.sampler, dict(plan.sampler.init_args)
    shared = part.class_path.rpartition(".")[2] in _SHARED_SEED
    if trial is not None and isinstance(arguments.get("seed"), int) and not shared:
        mixed = hashlib.blake2b(f"{arguments['seed']} {trial}".encode(), digest_size=4)
        arguments["seed"] = int.from_bytes(mixed.digest(), "big") >> 1
    return _make(part, arguments, BaseSampler, f"{plan.path}: sampler")  # type: ignore[type-abstract]


def make_pruner(plan: StudyFile) -> BasePruner:
    """Returns the pruner of a sweep, or one that never prunes.

    Raises:
        InputError: if there is no such class, or it does not take these arguments.
    """
    if plan.pruner is None:
        return NopPruner()
    arguments, place = dict(plan.pruner.init_args), f"{plan.path}: pruner"
    if isinstance(wrapped := arguments.get("wrapped_pruner"), dict):
        inner: ByClass = checked(ByClass, wrapped, f"{place}.wrapped_pruner")
        arguments["wrapped_pruner"] = _make(inner, inner.init_args, BasePruner, f"{place}.wrapped_pruner")  # type: ignore[type-abstract]
    return _make(plan.pruner, arguments, BasePruner, place)  # type: ignore[type-abstract]


def _make(part: ByClass, arguments: dict[str, Any], kind: type[_Kind], place: str) -> _Kind:
    what = kind.__name__.removeprefix("Base").lower()
    module, _, name = part.class_path.rpartition(".")
    try:
        found = getattr(import_module(module or f"optuna.{what}s"), name)
    except (ImportError, AttributeError, TypeError, ValueError):
        found = None
    if not (isinstance(found, type) and issubclass(found, kind)):
        known = [f"optuna.{what}s.{one}" for one in getattr(optuna, f"{what}s").__all__ if one.endswith(what.title())]
        raise InputError(f"{place}: '{part.class_path}' is no {what}: {nearest(f'optuna.{what}s.{name}', known)}")
    for argument in arguments:
        if argument not in (taken := inspect.signature(found).parameters):
            raise InputError(f"{place}: {name} has no argument '{argument}': {nearest(argument, taken)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return found(**arguments)
    except (TypeError, ValueError, ImportError) as error:
        raise InputError(f"{place}: {name}: {' '.join(str(error).split())}: correct its init_args") from None


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
        lost: called for each trial whose worker died and that is repeated.
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
            begun = sum(not _history(trial) for trial in trials)
            enough = begun >= self._plan.trials or self._study.user_attrs.get(_EXHAUSTED, False)
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
        """Ends a trial; False if another worker counted it as lost, so that its repetition counts."""
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
            trials = self._study.get_trials(deepcopy=False)
            known = trials[trial.number]
            if known.state.is_finished():
                return False, False
            trial.set_user_attr(REASON, reason)
            before = [trials[number].user_attrs.get(REASON, INTERRUPTED) for number in _history(known)]
            crashes = sum(why != INTERRUPTED for why in before)
            again = repeat or (crashed and crashes < self._plan.retries)
            if again:  # first, so that it is not forgotten if this process dies here
                self._repeat(known)
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
        """Repeats the trials of workers that died: failed ones for which no reason is noted."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(self._study)
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if WORKER not in trial.user_attrs:  # its worker died before the first sign of life
                self._tell(trial.number, TrialState.FAIL)
        trials = self._study.get_trials(deepcopy=False)
        for trial in standing(trials):
            losses = sum(REASON not in trials[number].user_attrs for number in _history(trial))
            dead = trial.state == TrialState.FAIL and REASON not in trial.user_attrs
            if dead and losses < _MOST_LOSSES:
                self._repeat(trial)
                self._lost(trial)

    def _tell(self, number: int, state: TrialState, values: Sequence[float] | None = None) -> None:
        try:
            self._study.tell(number, values, state)
        except RuntimeError as error:  # so samplers say that they have proposed all there is
            if "Study.stop" not in str(error):
                raise
            self._study.set_user_attr(_EXHAUSTED, True)

    def _repeat(self, trial: FrozenTrial) -> None:
        """Has a trial run again."""
        again = create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            # Those of the sampler, too: a grid's keeps there which point it is.
            system_attrs={_FIRST: trial.number, **trial.system_attrs, _HISTORY: [*_history(trial), trial.number]},
        )
        self._study.add_trial(again)


def repeats(trial: FrozenTrial) -> int | None:
    """Number of the trial that this one repeats, None if it is no repetition."""
    return next(reversed(_history(trial)), None)


def standing(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count: of a trial and its repetitions the last."""
    repeated = {repeats(trial) for trial in trials}
    return [trial for trial in trials if trial.number not in repeated]


def _history(trial: FrozenTrial) -> list[int]:
    """Numbers of the trials that this one repeats, one after another."""
    return trial.system_attrs.get(_HISTORY, [])


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
