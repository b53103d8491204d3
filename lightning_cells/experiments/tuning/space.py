"""What a sweep varies: options of the command line, their ranges, and when they count."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from optuna import Trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from lightning_cells.errors import InputError
from lightning_cells.experiments.tuning.mistakes import allow

Chosen = dict[str, Any]
"""The values of a trial by option, such as ``{"model.lr": 0.001}``."""
_KINDS = ("float", "int", "choices")


@dataclass(frozen=True)
class Constant:
    """A part of a list that stays as it is."""

    value: Any


Part = Constant | CategoricalDistribution | FloatDistribution | IntDistribution


@dataclass(frozen=True)
class Parameter:
    """One option.

    Attributes:
        path: dotted, as on the command line.
        parts: what its value is drawn from; several are a list, such as the weights of classes.
        listed: whether the value is a list.
        conditions: it counts only where these earlier options have one of these values.
        meanings: what the words of a categorical part stand for where they are lists or mappings.
    """

    path: str
    parts: tuple[Part, ...]
    listed: bool = False
    conditions: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    meanings: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> dict[str, BaseDistribution]:
        """What Optuna calls its parts, without the constant ones."""
        names = [f"{self.path}[{n}]" for n in range(len(self.parts))] if self.listed else [self.path]
        return {n: part for n, part in zip(names, self.parts, strict=True) if not isinstance(part, Constant)}

    def counts(self, chosen: Chosen) -> bool:
        """Whether its conditions hold."""
        return all(path in chosen and chosen[path] in allowed for path, allowed in self.conditions.items())

    def value(self, drawn: dict[str, Any]) -> Any:
        """Its value, of what Optuna drew by name."""
        if not self.listed:
            word = drawn[self.path]
            return self.meanings.get(word, word) if isinstance(word, str) else word
        return [
            part.value if isinstance(part, Constant) else drawn[f"{self.path}[{number}]"]
            for number, part in enumerate(self.parts)
        ]

    def extremes(self) -> list[Any]:
        """Values at the ends of its range, or all of its choices: what a mistake would show at."""
        ends = [_ends(part) for part in self.parts]
        if self.listed:
            return [[end[0] for end in ends], [end[-1] for end in ends]]
        return [self.meanings.get(end, end) if isinstance(end, str) else end for end in ends[0]]

    def describe(self) -> dict[str, Any]:
        """What makes two of them the same, for JSON."""
        drawn = [part.value if isinstance(part, Constant) else repr(part) for part in self.parts]
        conditions = {path: list(values) for path, values in self.conditions.items()}
        return {"parts": drawn, "listed": self.listed, "if": conditions}


@dataclass(frozen=True)
class Space:
    """All parameters, those that others depend on first."""

    parameters: tuple[Parameter, ...]

    def suggest(self, trial: Trial) -> Chosen:
        """Draws a value for each parameter that counts."""
        chosen: Chosen = {}
        for parameter in self.parameters:
            if parameter.counts(chosen):
                drawn = {name: _draw(trial, name, part) for name, part in parameter.names.items()}
                chosen[parameter.path] = parameter.value(drawn)
        return chosen

    def chosen(self, drawn: dict[str, Any]) -> Chosen:
        """The values of a trial whose parts were drawn before."""
        chosen: Chosen = {}
        for parameter in self.parameters:
            if parameter.counts(chosen) and drawn.keys() >= parameter.names.keys():
                chosen[parameter.path] = parameter.value(drawn)
        return chosen

    def extremes(self) -> Iterator[Chosen]:
        """Few combinations among which each choice and each end of a range is found once, with what it depends on."""
        for parameter in self.parameters:
            for value in parameter.extremes():
                yield {**self._needed(parameter), parameter.path: value}

    def lowest(self) -> Chosen:
        """One combination: the low end of each range and the first of all choices."""
        chosen: Chosen = {}
        for parameter in self.parameters:
            if parameter.counts(chosen):
                chosen[parameter.path] = parameter.extremes()[0]
        return chosen

    def describe(self) -> dict[str, Any]:
        """What makes two spaces the same, for JSON."""
        return {parameter.path: parameter.describe() for parameter in self.parameters}

    def _needed(self, parameter: Parameter) -> Chosen:
        known = {other.path: other for other in self.parameters}
        needed: Chosen = {}
        for path, allowed in parameter.conditions.items():
            needed |= self._needed(known[path]) | {path: allowed[0]}
        return needed


def words(chosen: Chosen) -> list[str]:
    """Values as they are written on the command line."""
    return [f"--{path}={value if isinstance(value, str) else json.dumps(value)}" for path, value in chosen.items()]


def read_space(tree: Any, place: str) -> Space:
    """Reads the ``space`` of a sweep.

    Each option has one of these forms, of which ``if`` and, where they make sense, ``log`` and ``step`` may be part::

        model.lr: {float: [1.0e-4, 1.0e-2], log: true}
        model.decoder.min_size: {int: [10, 100], step: 10}
        model.loss: {choices: [three_class, two_class]}
        model.border_weight: {float: [1, 20], if: {model.loss: two_class}}
        model.class_weights: [0.1, {float: [0.1, 0.5]}, {float: [0.1, 1.0]}]

    Args:
        tree: as YAML gave it.
        place: what messages begin with.

    Raises:
        InputError: for anything else; the message names the option.
    """
    if not isinstance(tree, dict) or not tree:
        raise InputError(f"{place}: names nothing to vary: give options with their ranges, as in sweeps/")
    parameters: dict[str, Parameter] = {}
    for path, entry in tree.items():
        where = f"{place}.{path}"
        parameter = _parameter(str(path).removeprefix("--"), entry, where)
        for needed, allowed in parameter.conditions.items():
            if needed not in parameters:
                raise InputError(f"{where}: depends on '{needed}', which is no option above it: put that first")
            possible = parameters[needed].extremes()
            categorical = isinstance(parameters[needed].parts[0], CategoricalDistribution)
            if categorical and any(value not in possible for value in allowed):
                raise InputError(f"{where}: '{needed}' is never {_shown(allowed)}: choose among {_shown(possible)}")
        parameters[parameter.path] = parameter
    return Space(tuple(parameters.values()))


def _parameter(path: str, entry: Any, where: str) -> Parameter:
    if isinstance(entry, list):
        parts = tuple(_part(part, where) if isinstance(part, dict) else Constant(part) for part in entry)
        if all(isinstance(part, Constant) for part in parts):
            raise InputError(f"{where}: is a list in which nothing varies: put it under 'set' or in {{choices: []}}")
        return Parameter(path, parts, listed=True)
    if not isinstance(entry, dict):
        raise InputError(f"{where}: is no range: write {{float: [low, high]}}, {{int: ...}} or {{choices: [...]}}")
    conditions = entry.get("if", {})
    if not isinstance(conditions, dict):
        raise InputError(f"{where}.if: is no condition: write {{option: value}} or {{option: [value, value]}}")
    allowed = {key: tuple(value) if isinstance(value, list) else (value,) for key, value in conditions.items()}
    if "list" in entry:
        allow(entry, ("list", "if"), where)
        listed = _parameter(path, entry["list"], where)
        return Parameter(path, listed.parts, listed=True, conditions=allowed)
    part = _part({key: value for key, value in entry.items() if key != "if"}, where)
    meanings = {}
    if isinstance(part, CategoricalDistribution):
        meanings = {_label(value): value for value in entry["choices"] if isinstance(value, list | dict)}
    return Parameter(path, (part,), conditions=allowed, meanings=meanings)


def _part(entry: dict[str, Any], where: str) -> Part:
    allow(entry, (*_KINDS, "log", "step", "if"), where)
    kinds = [kind for kind in _KINDS if kind in entry]
    if len(kinds) != 1:
        raise InputError(f"{where}: has {' and '.join(kinds) or 'no range'}: give one of {', '.join(_KINDS)}")
    if kinds == ["choices"]:
        values = entry["choices"]
        if not isinstance(values, list) or not values:
            raise InputError(f"{where}.choices: is no list of values: write [first, second]")
        allow(entry, ("choices", "if"), where)
        return CategoricalDistribution([_label(value) for value in values])
    return _range(entry, kinds[0], where)


def _range(entry: dict[str, Any], kind: Literal["float", "int"] | str, where: str) -> Part:
    number = float if kind == "float" else int
    try:
        low, high = (number(end) for end in entry[kind])
        step = None if entry.get("step") is None else number(entry["step"])
    except (TypeError, ValueError):
        raise InputError(f"{where}.{kind}: {entry[kind]} is no range of {kind}: write {kind}: [low, high]") from None
    log = bool(entry.get("log", False))
    if low >= high:
        raise InputError(f"{where}.{kind}: {low} is not below {high}: write [low, high]")
    if log and (low <= 0 or step is not None):
        why = "has a step, too" if step is not None else f"begins at {low}"
        raise InputError(f"{where}.log: a logarithmic range {why}: leave out one of them, or begin above 0")
    if step is not None and not 0 < step <= high - low:
        raise InputError(f"{where}.step: {step} does not fit into {low} to {high}: choose a smaller one above 0")
    if kind == "float":
        return FloatDistribution(low, high, log=log, step=step)
    return IntDistribution(int(low), int(high), log=log, step=int(step or 1))


def _draw(trial: Trial, name: str, part: BaseDistribution) -> Any:
    if isinstance(part, FloatDistribution):
        return trial.suggest_float(name, part.low, part.high, step=part.step, log=part.log)
    if isinstance(part, IntDistribution):
        return trial.suggest_int(name, part.low, part.high, step=part.step, log=part.log)
    assert isinstance(part, CategoricalDistribution)
    return trial.suggest_categorical(name, part.choices)


def _ends(part: Part) -> list[Any]:
    if isinstance(part, Constant):
        return [part.value]
    if isinstance(part, CategoricalDistribution):
        return list(part.choices)
    return [part.low, part.high]


def _label(value: Any) -> Any:
    """Optuna keeps words and numbers: lists and mappings are written out."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _shown(values: Any) -> str:
    return ", ".join(str(value) for value in values)
