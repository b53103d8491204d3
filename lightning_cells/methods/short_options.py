"""Short names of a method's options, which are also those of checkpoints and files of earlier versions.

``model.lr`` stands for ``model.optimization.lr``, ``model.loss=two_class`` for the path of a class. Only this module
knows of them: all that parses options or reads a checkpoint calls it.
"""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import fields
from importlib import import_module
from typing import Any

from lightning_cells.methods.objectives import NucleusCytoplasm, ThreeClass, TwoClass

_SHORT = {
    **{name: f"optimization.{name}" for name in ("optimizer", "lr", "schedule", "warm_up", "weight_decay")},
    **{name: f"loss.{name}" for name in ("class_weights", "contour", "border_weight", "border_sigma")},
    **{name: f"loss.{name}" for name in ("gamma", "normalize", "classes")},
    "target": "loss",
    "l2": "optimization.weight_decay",
}
_CLASSES = {
    word: f"{kind.__module__}.{kind.__qualname__}"
    for word, kind in {"three_class": ThreeClass, "two_class": TwoClass, "classes": NucleusCytoplasm}.items()
}
_SETTINGS = {
    f"{kind.__module__}.{kind.__qualname__}": {field.name for field in fields(kind)}
    for kind in (ThreeClass, TwoClass, NucleusCytoplasm)
}


def complete(method: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a method under their own names.

    Args:
        method: its class; what it takes under a short name stays as it is.
        options: the arguments of its constructor, or some of them, as plain values.

    Returns:
        The same, with short names and words replaced; those of a loss that was not chosen are left out.
    """
    long: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        full, value = complete_option(method, name, value)
        part, _, setting = full.partition(".")
        if setting:
            inner.setdefault(part, {})[setting] = value
        else:
            long[part] = value
    for part, settings in inner.items():
        chosen = long.get(part, {})
        if isinstance(chosen, str):
            taken = _SETTINGS.get(chosen, settings)
            kept = {name: value for name, value in settings.items() if name in taken}
            long[part] = {"class_path": chosen, "init_args": kept}
        else:
            long[part] = {**settings, **chosen}
    return long


def complete_model(model: Any, method: type | None = None) -> Any:
    """What stands under ``model`` in a configuration, with the options under their own names.

    Args:
        model: a mapping with ``class_path`` and ``init_args``, or of options alone; anything else stays as it is.
        method: the method if `model` does not name it; None if it is not known, and the options stay as they are.
    """
    if not isinstance(model, dict):
        return model
    method = find_class(model["class_path"]) if "class_path" in model else method
    if method is None:
        return model
    if "class_path" in model or "init_args" in model:
        return {**model, "init_args": complete(method, model.get("init_args") or {})}
    return complete(method, model)


def short_names(names: Iterable[str]) -> set[str]:
    """The short names that stand for options among some, or for those of a part among them."""
    parts = {name.partition(".")[0] for name in names}
    return {short for short, full in _SHORT.items() if full.partition(".")[0] in parts}


def find_class(name: Any) -> type | None:
    """The class of an import path, or of a name in `lightning_cells.methods`; None if there is none."""
    module, _, kind = str(name).rpartition(".")
    try:
        found = getattr(import_module(module or "lightning_cells.methods"), kind)
    except (ImportError, AttributeError, ValueError):
        return None  # the parser says so
    return found if isinstance(found, type) else None


def complete_option(method: type, name: str, value: Any) -> tuple[str, Any]:
    """An option of a method, such as ``lr`` or ``network.width``, under its own name, and its value."""
    own = inspect.signature(method).parameters
    full = _SHORT.get(name, name)
    if name in own or full.partition(".")[0] not in own:
        full = name
    if full == "loss" and isinstance(value, str):
        value = _CLASSES.get(value, value)
    if name == "l2" and full != name:  # Keras counts the sum of squares, whose gradient is twice torch's weight decay
        value = 2 * float(value)
    return full, value
