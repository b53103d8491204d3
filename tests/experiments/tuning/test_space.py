"""What a sweep varies: forms that are understood, what they draw, what is refused."""

import math
from typing import Any

import optuna
import pytest

from lightning_cells.errors import InputError
from lightning_cells.experiments.processes import words
from lightning_cells.experiments.tuning.space import AnySpace, Chosen, Space
from lightning_cells.yaml_file import checked

TREE = {
    "model.loss": {"choices": ["three_class", "two_class"]},
    "model.lr": {"float": ["1e-4", 1e-2], "log": True},
    "model.levels": {"int": [2, 8], "step": 2},
    "model.border_weight": {"float": [1, 20], "if": {"model.loss": "two_class"}},
    "model.class_weights": {
        "list": [0.1, {"float": [0.2, 0.4]}, {"choices": [1, 2]}],
        "if": {"model.loss": "three_class"},
    },
    "model.channels": {"choices": [[8, 16], [16, 32]]},
    "model.extra": {"int": [0, 3], "if": {"model.loss": ["two_class", "three_class"], "model.levels": [2, 4]}},
}


def read_space(tree: Any, place: str) -> Space:
    """A space as one of the keys of a file."""
    return checked(dict[str, AnySpace], {place: tree}, "sweep.yaml")[place]


def draws(space: Space, number: int = 60) -> list[tuple[Chosen, dict[str, Any]]]:
    """What is drawn at random, and Optuna's own values of it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    drawn = []
    for _ in range(number):
        trial = study.ask()
        drawn.append((space.suggest(trial), trial.params))
        study.tell(trial, 0.0)
    return drawn


def test_draws_stay_in_their_ranges() -> None:
    found = [chosen for chosen, _ in draws(read_space(TREE, "space"))]
    rates = [chosen["model.lr"] for chosen in found]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert 0.25 < sum(rate < 1e-3 for rate in rates) / len(rates) < 0.75, (
        "half of a logarithmic range is below its middle"
    )
    assert {chosen["model.levels"] for chosen in found} == {2, 4, 6, 8}
    assert {str(chosen["model.channels"]) for chosen in found} == {"[8, 16]", "[16, 32]"}


def test_conditions_hold() -> None:
    found = [chosen for chosen, _ in draws(read_space(TREE, "space"))]
    assert {chosen["model.loss"] for chosen in found} == {"three_class", "two_class"}
    for chosen in found:
        assert ("model.border_weight" in chosen) == (chosen["model.loss"] == "two_class")
        assert ("model.class_weights" in chosen) == (chosen["model.loss"] == "three_class")
        assert ("model.extra" in chosen) == (chosen["model.levels"] in (2, 4))


def test_lists_hold_constants_and_what_varies() -> None:
    weights = [c["model.class_weights"] for c, _ in draws(read_space(TREE, "space")) if "model.class_weights" in c]
    assert {weight[0] for weight in weights} == {0.1}
    assert all(0.2 <= weight[1] <= 0.4 for weight in weights)
    assert {weight[2] for weight in weights} == {1, 2}


def test_values_are_found_again_from_what_optuna_keeps() -> None:
    space = read_space(TREE, "space")
    for chosen, params in draws(space):
        assert space.chosen(params) == chosen
        assert all(isinstance(value, str | int | float) for value in params.values()), "nothing that a database refuses"


def test_extremes_show_each_end_once_with_what_it_needs() -> None:
    space = read_space(TREE, "space")
    found = list(space.extremes())
    seen: dict[str, list] = {}
    for chosen in found:
        *_, last = chosen.items()
        seen.setdefault(last[0], []).append(last[1])
    assert seen["model.lr"] == [1e-4, 1e-2]
    assert seen["model.levels"] == [2, 8]
    assert seen["model.loss"] == ["three_class", "two_class"]
    assert seen["model.channels"] == [[8, 16], [16, 32]]
    assert seen["model.class_weights"] == [[0.1, 0.2, 1], [0.1, 0.4, 2]]
    assert {"model.loss": "two_class", "model.border_weight": 20.0} in found
    assert space.lowest() == {
        "model.loss": "three_class",
        "model.lr": 1e-4,
        "model.levels": 2,
        "model.class_weights": [0.1, 0.2, 1],
        "model.channels": [8, 16],
        "model.extra": 0,
    }


def test_words_are_those_of_the_command_line() -> None:
    assert words({"a.b": 1e-05, "c": "two_class", "d": [1, 2.5], "e": None, "f": True}) == [
        "--a.b=1e-05",
        "--c=two_class",
        "--d=[1, 2.5]",
        "--e=null",
        "--f=true",
    ]


def test_description_tells_spaces_apart() -> None:
    base = {"a": {"float": [0, 1]}, "b": {"choices": ["x", "y"]}}
    others: list[dict] = [
        {**base, "a": {"float": [0, 2]}},
        {**base, "a": {"float": [0, 1], "step": 0.5}},
        {**base, "a": {"float": [0, 1], "if": {}}},
        {"b": base["b"], "a": {"float": [0, 1], "if": {"b": "x"}}},
        {"a": base["a"]},
    ]
    first = read_space(base, "s").describe()
    assert [read_space(other, "s").describe() == first for other in others] == [False, False, True, False, False]


REFUSED: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "s: names nothing to vary"),
    "number": ({"a": 3}, "s.a: is no range"),
    "unknown kind": ({"a": {"flaot": [0, 1]}}, "s.a: there is no 'flaot': did you mean 'float'?"),
    "two kinds": ({"a": {"float": [0, 1], "int": [0, 1]}}, "s.a: has float and int"),
    "no kind": ({"a": {"log": True}}, "s.a: has no range"),
    "one end": ({"a": {"float": [0]}}, "s.a.float: [0] is no range of float"),
    "word": ({"a": {"int": ["x", 3]}}, "is no range of int"),
    "reversed": ({"a": {"float": [2, 1]}}, "s.a.float: 2.0 is not below 1.0"),
    "log from zero": ({"a": {"float": [0, 1], "log": True}}, "s.a.log: a logarithmic range begins at 0.0"),
    "log and step": ({"a": {"int": [1, 9], "log": True, "step": 2}}, "s.a.log: a logarithmic range has a step, too"),
    "step too large": ({"a": {"int": [1, 9], "step": 20}}, "s.a.step: 20 does not fit into 1 to 9"),
    "no choice": ({"a": {"choices": []}}, "s.a.choices: is no list of values"),
    "choices with log": ({"a": {"choices": [1], "log": True}}, "there is no 'log'"),
    "constant list": ({"a": [1, 2]}, "s.a: is a list in which nothing varies"),
    "later condition": ({"a": {"int": [0, 1], "if": {"b": 1}}, "b": {"int": [0, 1]}}, "s.a: depends on 'b'"),
    "impossible": (
        {"b": {"choices": ["x", "y"]}, "a": {"int": [0, 1], "if": {"b": "z"}}},
        "s.a: 'b' is never z: choose",
    ),
    "odd condition": ({"a": {"int": [0, 1], "if": "b"}}, "s.a.if: is no condition"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    tree, expected = REFUSED[name]
    with pytest.raises(InputError) as error:
        read_space(tree, "s")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_range_needs_numbers_of_its_kind() -> None:
    assert read_space({"a": {"int": [1.0, 3]}}, "s").lowest() == {"a": 1}
    with pytest.raises(InputError, match="is no range of float"):
        read_space({"a": {"float": [None, math.pi]}}, "s")
