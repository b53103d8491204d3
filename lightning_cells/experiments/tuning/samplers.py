"""Samplers and pruners by the path of their class."""

import hashlib
import inspect
import warnings
from difflib import get_close_matches
from importlib import import_module
from typing import Any, TypeVar

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler

from lightning_cells.errors import InputError
from lightning_cells.experiments.tuning.study_file import ByClass, StudyFile

Kind = TypeVar("Kind", BaseSampler, BasePruner)
_SHARED_SEED = ("QMCSampler", "GridSampler")  # whose workers go through one series together


def make_sampler(plan: StudyFile, trial: int | None = None) -> BaseSampler:
    """Returns the sampler of a plan.

    Args:
        plan: the sweep.
        trial: number of the trial that it is to propose. A ``seed`` is mixed with it, so that a study can be repeated
            and workers with the same seed do not propose the same.

    Raises:
        InputError: if there is no such class, or it does not take these arguments.
    """
    part, place = plan.sampler, f"{plan.path}: sampler"
    arguments = dict(part.init_args)
    if trial is not None and isinstance(arguments.get("seed"), int) and _name(part) not in _SHARED_SEED:
        mixed = hashlib.blake2b(f"{arguments['seed']} {trial}".encode(), digest_size=4)
        arguments["seed"] = int.from_bytes(mixed.digest(), "big") >> 1
    return _make(part, arguments, BaseSampler, place)  # type: ignore[type-abstract]


def make_pruner(plan: StudyFile) -> BasePruner:
    """Returns the pruner of a plan, or one that never prunes.

    Raises:
        InputError: if there is no such class, or it does not take these arguments.
    """
    if plan.pruner is None:
        return NopPruner()
    arguments = dict(plan.pruner.init_args)
    wrapped = arguments.get("wrapped_pruner")
    if isinstance(wrapped, dict):
        inner = ByClass(class_path=str(wrapped.get("class_path")), init_args=wrapped.get("init_args") or {})
        place = f"{plan.path}: pruner.wrapped_pruner"
        arguments["wrapped_pruner"] = _make(inner, inner.init_args, BasePruner, place)  # type: ignore[type-abstract]
    return _make(plan.pruner, arguments, BasePruner, f"{plan.path}: pruner")  # type: ignore[type-abstract]


def _make(part: ByClass, arguments: dict[str, Any], kind: type[Kind], place: str) -> Kind:
    module, _, name = part.class_path.rpartition(".")
    module = module or f"optuna.{kind.__name__.removeprefix('Base').lower()}s"
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        found = None
    if not (isinstance(found, type) and issubclass(found, kind)):
        what = kind.__name__.removeprefix("Base").lower()
        shelf = getattr(optuna, f"{what}s")
        known = [other for other in shelf.__all__ if other.endswith(what.capitalize())]
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean 'optuna.{what}s.{near[0]}'?" if near else f"give one of optuna.{what}s"
        raise InputError(f"{place}: '{part.class_path}' is no {what}: {hint}")
    for argument in arguments:
        known = list(inspect.signature(found).parameters)
        if argument not in known:
            near = get_close_matches(argument, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"it takes {', '.join(known)}"
            raise InputError(f"{place}: {name} has no argument '{argument}': {hint}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return found(**arguments)
    except (TypeError, ValueError, ImportError) as error:
        raise InputError(f"{place}: {name}: {' '.join(str(error).split())}: correct its init_args") from None


def _name(part: ByClass) -> str:
    return part.class_path.rpartition(".")[2]
