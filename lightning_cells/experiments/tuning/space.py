"""What a sweep varies: options of the command line, their ranges, and when they count."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Annotated, Any, Self

from optuna import Trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, TypeAdapter, model_validator
from pydantic import ValidationInfo as Info

from lightning_cells.errors import nearest
from lightning_cells.yaml_file import Strict, mistake, mistakes, or_else

Chosen = dict[str, Any]
"""The values of a trial by option, such as ``{"model.lr": 0.001}``."""
Take = Callable[[str, BaseDistribution], Any]
"""Name of what is drawn, and its distribution -> a value of it."""


class _Varied(Strict):
    """What an option's value is drawn from.

    Attributes:
        conditions: it counts only where these earlier options have one of these values.
    """

    conditions: Annotated[
        dict[str, Annotated[list[Any], BeforeValidator(lambda value: value if isinstance(value, list) else [value])]],
        or_else("is no condition: write {{option: value}} or {{option: [value, value]}}"),
    ] = Field(default={}, alias="if")

    def value(self, name: str, take: Take) -> Any:
        """One value.

        Args:
            name: of the option; what Optuna knows of a list are its parts, as ``name[0]``.
            take: gives what is drawn.
        """
        raise NotImplementedError

    def extremes(self, name: str) -> list[Any]:
        """Values at the ends of its range, or all of its choices: what a mistake would show at."""
        return [self.value(name, lambda _, drawn, end=end: _ends(drawn)[end]) for end in (0, -1)]  # type: ignore[misc]

    def parts(self) -> list[Any]:
        """What is drawn, for JSON."""
        return [self.value("", lambda _, distribution: repr(distribution))]


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] >= ends[1]:
        raise ValueError(f"{ends[0]} is not below {ends[1]}: write [low, high]")
    return ends


def _fitting(step: float | None, info: Info) -> float | None:
    low, high = info.data.get("ends", (-float("inf"), float("inf")))
    if step is not None and not 0 < step <= high - low:
        raise ValueError(f"{step} does not fit into {low} to {high}: choose a smaller one above 0")
    return step


def _loggable(log: bool, info: Info) -> bool:
    low, _ = info.data.get("ends", (1, 2))
    if log and (low <= 0 or info.data.get("step") is not None):
        why = f"begins at {low}" if low <= 0 else "has a step, too"
        raise ValueError(f"a logarithmic range {why}: leave out one of them, or begin above 0")
    return log


class _Float(_Varied):
    ends: Annotated[
        tuple[float, float],
        or_else("{value} is no range of float: write float: [low, high]"),
        AfterValidator(_rising),
    ] = Field(alias="float")
    step: Annotated[float | None, AfterValidator(_fitting)] = None
    log: Annotated[bool, AfterValidator(_loggable)] = False

    def value(self, name: str, take: Take) -> Any:
        return take(name, FloatDistribution(*self.ends, log=self.log, step=self.step))


class _Int(_Varied):
    ends: Annotated[
        tuple[int, int], or_else("{value} is no range of int: write int: [low, high]"), AfterValidator(_rising)
    ] = Field(alias="int")
    step: Annotated[int | None, AfterValidator(_fitting)] = None
    log: Annotated[bool, AfterValidator(_loggable)] = False

    def value(self, name: str, take: Take) -> Any:
        return take(name, IntDistribution(*self.ends, log=self.log, step=self.step or 1))


class _Choices(_Varied):
    choices: Annotated[list[Any], Field(min_length=1), or_else("is no list of values: write [first, second]")]

    def value(self, name: str, take: Take) -> Any:
        # Optuna keeps words and numbers: lists and mappings are written out.
        labels = [json.dumps(value) if isinstance(value, list | dict) else value for value in self.choices]
        label = take(name, CategoricalDistribution(labels))
        return self.choices[labels.index(label)] if label in labels else label

    def extremes(self, name: str) -> list[Any]:
        return self.choices


class _List(_Varied):
    """A list of which some parts vary, such as the weights of classes."""

    entries: list[Annotated[Any, BeforeValidator(lambda part: _varied(part) if isinstance(part, dict) else part)]] = (
        Field(alias="list")
    )

    @model_validator(mode="after")
    def _varies(self) -> Self:
        if not any(isinstance(part, _Varied) for part in self.entries):
            raise ValueError("is a list in which nothing varies: put it under 'set' or in {choices: []}")
        return self

    def value(self, name: str, take: Take) -> list[Any]:
        return [
            part.value(f"{name}[{number}]", take) if isinstance(part, _Varied) else part
            for number, part in enumerate(self.entries)
        ]

    def parts(self) -> list[Any]:
        return [part.parts()[0] if isinstance(part, _Varied) else part for part in self.entries]


_FORMS: dict[str, type[_Varied]] = {"float": _Float, "int": _Int, "choices": _Choices, "list": _List}


def _varied(tree: Any) -> _Varied:
    """Reads what an option is drawn from, by the form that it has."""
    if isinstance(tree, list):
        tree = {"list": tree}
    if not isinstance(tree, dict):
        raise ValueError("is no range: write {float: [low, high]}, {int: ...} or {choices: [...]}")
    forms = [form for form in _FORMS if form in tree]
    if unknown := [key for key in tree if not forms and key not in ("log", "step", "if")]:
        raise ValueError(f"there is no '{unknown[0]}': {nearest(str(unknown[0]), _FORMS)}")
    if len(forms) != 1:
        raise ValueError(f"has {' and '.join(forms) or 'no range'}: give one of {', '.join(_FORMS)}")
    return _FORMS[forms[0]].model_validate(tree)


class Space:
    """All options that vary, those that others depend on first.

    In YAML each has one of these forms, of which ``if`` and, where they make sense, ``log`` and ``step`` may be part::

        model.lr: {float: [1.0e-4, 1.0e-2], log: true}
        model.decoder.min_size: {int: [10, 100], step: 10}
        model.loss: {choices: [three_class, two_class]}
        model.border_weight: {float: [1, 20], if: {model.loss: two_class}}
        model.class_weights: [0.1, {float: [0.1, 0.5]}, {float: [0.1, 1.0]}]

    Args:
        varied: by option.

    Raises:
        ValidationError: for conditions that can never hold.
    """

    def __init__(self, varied: dict[str, _Varied]) -> None:
        self._varied = {option.removeprefix("--"): one for option, one in varied.items()}
        wrong, above = [], {}  # type: ignore[var-annotated]
        for option, one in self._varied.items():
            for needed, allowed in one.conditions.items():
                possible = above[needed].extremes(needed) if needed in above else []
                if needed not in above:
                    wrong.append((option, f"depends on '{needed}', which is no option above it: put that first"))
                elif isinstance(above[needed], _Choices) and any(value not in possible for value in allowed):
                    wrong.append((option, f"'{needed}' is never {_or(allowed)}: choose among {_or(possible)}"))
            above[option] = one
        if wrong:
            raise mistakes(mistake((option,), message) for option, message in wrong)

    @property
    def options(self) -> list[str]:
        """What varies, dotted, as on the command line."""
        return list(self._varied)

    def suggest(self, trial: Trial) -> Chosen:
        """Draws a value for each option that counts."""
        return self._chosen(lambda name, distribution: _draw(trial, name, distribution))

    def chosen(self, drawn: dict[str, Any]) -> Chosen:
        """The values of a trial for which Optuna drew this before; those that it had not drawn are left out."""
        return self._chosen(lambda name, _: drawn[name])

    def lowest(self) -> Chosen:
        """One combination: the low end of each range and the first of all choices."""
        return self._chosen(lambda _, distribution: _ends(distribution)[0])

    def extremes(self) -> Iterator[Chosen]:
        """Few combinations among which each choice and each end of a range is found once, with what it depends on."""
        for option, one in self._varied.items():
            for value in one.extremes(option):
                yield {**self._needed(one), option: value}

    def describe(self) -> dict[str, Any]:
        """What makes two spaces the same, for JSON."""
        return {
            option: {"parts": one.parts(), "listed": isinstance(one, _List), "if": one.conditions}
            for option, one in self._varied.items()
        }

    def _chosen(self, take: Take) -> Chosen:
        chosen: Chosen = {}
        for option, one in self._varied.items():
            if all(needed in chosen and chosen[needed] in allowed for needed, allowed in one.conditions.items()):
                with suppress(KeyError):
                    chosen[option] = one.value(option, take)
        return chosen

    def _needed(self, one: _Varied) -> Chosen:
        needed: Chosen = {}
        for option, allowed in one.conditions.items():
            needed |= self._needed(self._varied[option]) | {option: allowed[0]}
        return needed


def _space(tree: Any) -> Space:
    kind = Annotated[
        dict[str, Annotated[_Varied, PlainValidator(_varied)]],
        Field(min_length=1),
        or_else("names nothing to vary: give options with their ranges, as in sweeps/"),
    ]
    return Space(TypeAdapter(kind).validate_python(tree))


AnySpace = Annotated[Space, PlainValidator(_space)]
"""A space as a file has it."""


def _draw(trial: Trial, name: str, drawn: BaseDistribution) -> Any:
    if isinstance(drawn, FloatDistribution):
        return trial.suggest_float(name, drawn.low, drawn.high, step=drawn.step, log=drawn.log)
    if isinstance(drawn, IntDistribution):
        return trial.suggest_int(name, drawn.low, drawn.high, step=drawn.step, log=drawn.log)
    assert isinstance(drawn, CategoricalDistribution)
    return trial.suggest_categorical(name, drawn.choices)


def _ends(drawn: BaseDistribution) -> tuple[Any, Any]:
    if isinstance(drawn, CategoricalDistribution):
        return drawn.choices[0], drawn.choices[-1]
    assert isinstance(drawn, FloatDistribution | IntDistribution)
    return drawn.low, drawn.high


def _or(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))
