"""The words of a training verb before they are parsed: which files they name, and which checkpoint."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lightning_cells.cli.mistakes import explain
from lightning_cells.errors import InputError
from lightning_cells.methods.short_options import complete_option, find_method
from lightning_cells.paths import shipped
from lightning_cells.yaml_file import read_yaml


def shipped_configurations(args: list[str]) -> list[str]:
    """Replaces configuration files that are not in the working directory by those that ship with the package.

    Raises:
        InputError: if there is no such file.
    """
    found = list(args)
    for position, option, value in _options(args):
        if option in ("-c", "--config"):
            path = value if Path(value).exists() else str(shipped(value))
            found[position] = f"{option}={path}" if found[position] != value else path
    return found


def given(args: list[str], name: str) -> str | None:
    """Returns what the option `name` will be, from the command line or a configuration file; the last one counts.

    Raises:
        InputError: if a configuration file is no mapping in valid YAML.
    """
    found = None
    for _, option, value in _options(args):
        if option == f"--{name}":
            found = None if value in ("null", "") else value
        elif option in ("-c", "--config"):
            settings = _read(value)
            if name in settings:
                found = settings[name]
    return found


def completed(args: list[str], method: type | None) -> list[str]:
    """Returns the words with the options of the method under their own names, see `methods.short_options`."""
    if method is None:
        return args
    words = list(args)
    for position, option, value in _options(args):
        if option.startswith("--model."):
            name, value = complete_option(method, option.removeprefix("--model.").removeprefix("init_args."), value)
            if words[position].startswith("--model."):
                words[position] = f"--model.{name}={value}"
            else:
                words[position - 1 : position + 1] = [f"--model.{name}", str(value)]
    return words


def chosen_method(args: list[str]) -> type | None:
    """The class of the method that the words name, or the files among them; the last one counts."""
    name = None
    for _, option, value in _options(args):
        model: Any = value if option == "--model" else None
        if option in ("-c", "--config"):
            model = _read(value).get("model")
        if isinstance(model, dict):
            model = model.get("class_path")
        name = model or name
    return None if name is None else find_method(name)


def without(args: list[str], name: str) -> list[str]:
    """Returns the words without the option `name` and its value."""
    left, skip = [], False
    for word in args:
        if not skip and not word.startswith(f"--{name}=") and word != f"--{name}":
            left.append(word)
        skip = word == f"--{name}" and not skip
    return left


def dotted(passed_on: list[str], known: Iterable[str]) -> list[str]:
    """Returns what a verb does not know itself, options of ``fit``, as ``OPTION=VALUE``.

    Args:
        passed_on: the words that the verb does not know.
        known: names of its own options, for hints.

    Raises:
        InputError: for anything else.
    """
    settings: list[str] = []
    words = iter(passed_on)
    for word in words:
        option, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not ("." in option or option == "seed_everything"):
            raise InputError(explain(f"unrecognized arguments: {word}", [*known, "seed_everything"]))
        settings.append(f"{option}={value if equals else next(words, '')}")
    return settings


def _options(args: list[str]) -> Iterator[tuple[int, str, str]]:
    """Yields position of the value, option and value of ``--option value`` and ``--option=value``."""
    for position, word in enumerate(args):
        option, equals, value = word.partition("=")
        if equals:
            yield position, option, value
        elif word.startswith("-") and position + 1 < len(args):
            yield position + 1, word, args[position + 1]


def _read(path: str) -> dict:
    settings = read_yaml(Path(path), "a configuration in YAML")
    if not isinstance(settings, dict | None):
        raise InputError(f"{path}: is no configuration: write options as 'data:', 'model:', ... in YAML")
    return settings or {}
