"""What YAML gave -> dataclasses, with every mistake told by its file and key."""

import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lightning_cells.errors import InputError
from lightning_cells.experiments.tuning.mistakes import allow


def typed(kind: Any, tree: Any, place: str) -> Any:
    """Converts plain values to a type, all the way down.

    Args:
        kind: a dataclass, ``str``, ``int``, ``float``, ``bool``, ``Any``, a ``Literal``, or a ``dict``, ``tuple`` or
            optional of these.
        tree: as YAML gave it.
        place: file and key, the beginning of messages.

    Raises:
        InputError: if the tree is none of that type; the message names the key.
    """
    if kind is Any:
        return tree
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if tree is None else typed(next(one for one in inner if one is not types.NoneType), tree, place)
    if origin is Literal:
        if tree not in inner:
            raise InputError(f"{place}: '{tree}' is not possible: choose {' or '.join(map(str, inner))}")
        return tree
    if origin is dict:
        return {key: typed(inner[1], value, f"{place}.{key}") for key, value in _mapping(tree, place).items()}
    if origin is tuple:
        return _tuple(inner, tree, place)
    if is_dataclass(kind):
        return _dataclass(kind, tree, place)
    return _plain(kind, tree, place)


def _dataclass(kind: Any, tree: Any, place: str) -> Any:
    known = {field.name: field for field in fields(kind)}
    types_of = get_type_hints(kind)
    tree = _mapping(tree, place)
    allow(tree, known, place)
    for name, field in known.items():
        if name not in tree and field.default is MISSING and field.default_factory is MISSING:
            raise InputError(f"{place}: has no '{name}': add it")
    return kind(**{name: typed(types_of[name], value, f"{place}.{name}") for name, value in tree.items()})


def _tuple(inner: tuple[Any, ...], tree: Any, place: str) -> tuple[Any, ...]:
    if not isinstance(tree, list):
        raise InputError(f"{place}: '{tree}' is no list: write [{tree}]")
    if inner[-1] is Ellipsis:
        inner = inner[:1] * len(tree)
    if len(tree) != len(inner):
        raise InputError(f"{place}: has {len(tree)} values: give {len(inner)}")
    return tuple(typed(*pair, f"{place}[{number}]") for number, pair in enumerate(zip(inner, tree, strict=True)))


def _mapping(tree: Any, place: str) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise InputError(f"{place}: '{tree}' is no mapping: write 'key: value'")
    return {str(key): value for key, value in tree.items()}


def _plain(kind: type, tree: Any, place: str) -> Any:
    if kind is float and isinstance(tree, int) and not isinstance(tree, bool):
        return float(tree)
    if not isinstance(tree, kind) or (isinstance(tree, bool) and kind is not bool):
        names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
        raise InputError(f"{place}: '{tree}' is no {names[kind]}")
    return tree
