"""Whose classes a checkpoint may name: it comes from anywhere, and to import a class is to run code."""

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning_cells.errors import InputError

ALLOW_VARIABLE = "LIGHTNING_CELLS_ALLOW"
"""Names of packages with commas between; processes that are started inherit it."""
ALLOW_HELP = (
    "packages whose classes a checkpoint or a registered model may name, such as my_lab, with commas between: they are "
    "imported, which runs their code"
)
_OWN = "lightning_cells"
_MOST = 10_000  # values among the options of a method
_DEEPEST = 30
_LONGEST = 2_000  # characters of a text
_LARGEST = 2**53  # whole numbers up to which floats are exact


def allow(*packages: str | None) -> None:
    """Lets checkpoints name classes of these packages, for this process and those that it starts.

    Args:
        packages: names as Python imports them, also several with commas between.

    Raises:
        InputError: for what is no name.
    """
    names = [name.strip() for some in packages if some for name in some.split(",")]
    for name in names:
        if not is_path(name):
            raise InputError(f"--allow {name}: is no package: give its name as Python imports it, such as my_lab")
    if others := [name for name in names if name != _OWN]:
        os.environ[ALLOW_VARIABLE] = ",".join(dict.fromkeys([*_allowed(), *others]))


def allow_words() -> list[str]:
    """The option by which another command allows what this one does; no words if that is nothing."""
    return ["--allow", ",".join(_allowed())] if _allowed() else []


def check_names(options: Any, place: str | Path) -> None:
    """Refuses options whose use would import a class that nobody allowed; nothing of others is imported for that.

    Args:
        options: of a method, as plain values.
        place: the file that they come from.

    Raises:
        InputError: for a class of a package that is neither this one nor allowed, for what is no class, and for
            options that are no plain values of a sensible size.
    """
    for name in dict.fromkeys(class_paths(options, place)):
        package = name.partition(".")[0]
        if not any(name.startswith(f"{known}.") for known in (_OWN, *_allowed())):
            raise InputError(
                f"{place} names {name[:200]}, so to use it would run the package {package[:100]}: if you trust that, "
                f"give --allow {package[:100]}"
            )
        if package == _OWN and not _is_ours(name):
            raise InputError(
                f"{place} does not fit this version of lightning_cells: take a checkpoint of this version "
                f"(there is no class {name[:200]})"
            )


def class_paths(options: Any, place: str | Path = "options") -> Iterator[str]:
    """Yields all that may be taken for the import path of a class, also in YAML within texts.

    Raises:
        InputError: for what are no plain values, or too many, too deep or too large ones.
    """
    waiting = [(options, 0)]
    for _ in range(_MOST):
        if not waiting:
            return
        value, depth = waiting.pop()
        if isinstance(value, dict):
            inner = [*value, *value.values()]
        elif isinstance(value, list | tuple):
            inner = list(value)
        elif isinstance(value, str) and len(value) <= _LONGEST:
            if is_path(value) and "." in value:
                yield value
                continue
            inner = [_read(value, place)]
            if inner == [value]:
                continue
        elif value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) <= _LARGEST):
            continue
        else:
            break
        if depth == _DEEPEST:
            break
        waiting += [(part, depth + 1) for part in inner]
    raise InputError(f"{place} is damaged: the options of its method are no plain values of a sensible size")


def _read(text: str, place: str | Path) -> Any:
    """What YAML makes of a text, as the parser of options would; the text itself if it is none."""
    import yaml  # the command line needs only names of this module to begin

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OverflowError):
        return text
    except RecursionError:
        raise InputError(f"{place} is damaged: the options of its method nest too deep") from None


def _allowed() -> list[str]:
    return [name for name in os.environ.get(ALLOW_VARIABLE, "").split(",") if is_path(name)]


def is_path(name: str) -> bool:
    """Whether a text can be the import path of something."""
    return all(part.isidentifier() for part in name.split("."))


def _is_ours(name: str) -> bool:
    """Whether it is a class of this package, and none that a module of it imports from elsewhere."""
    module, _, kind = name.rpartition(".")
    try:
        found = getattr(import_module(module), kind)
    except (ImportError, AttributeError):
        return False
    return isinstance(found, type) and found.__module__.partition(".")[0] == _OWN
