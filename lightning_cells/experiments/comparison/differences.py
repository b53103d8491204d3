"""In what the configurations of runs differ."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

_OF_ONE_CALL = (
    "ckpt_path",
    "output_dir",
    "weights_only",
    "config",
    "trainer.logger",
    "results.folder",
    "checkpoint.folder",
)

ABSENT = "not an option"
"""Stands for an option that a configuration does not have."""


def differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Returns the options that are not the same everywhere, with their value in each configuration.

    What belongs to one call alone, such as the name of the run or where results are written, is left out.

    Args:
        configs: resolved configurations, nested as in YAML.

    Returns:
        Dotted names as on the command line, in the order of the configurations, to one text per configuration.
    """
    flat = [_flatten(config) for config in configs]
    names = dict.fromkeys(name for options in flat for name in options if not _of_one_call(name))
    table = {name: [options.get(name, ABSENT) for options in flat] for name in names}
    return {name: values for name, values in table.items() if len(set(values)) > 1}


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings and lists of objects -> dotted names, without the ``init_args`` that nobody writes."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}".strip(".")
        if isinstance(value, list) and any(isinstance(part, dict) for part in value):
            value = {_class(part, number): part for number, part in enumerate(value, start=1)}
        if isinstance(value, dict) and value:
            flat |= _flatten(value, name)
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat


def _class(part: Any, number: int) -> str:
    """What an object in a list is called: by its class, so that another order alone makes no difference."""
    path = part.get("class_path") if isinstance(part, dict) else None
    return str(path).rpartition(".")[2] if path else str(number)


def _of_one_call(name: str) -> bool:
    return any(name == other or name.startswith(f"{other}.") for other in _OF_ONE_CALL)
