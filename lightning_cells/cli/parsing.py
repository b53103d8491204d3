"""The words of a command line: the files, method and run that they name, and what is said of mistakes in them.

Also verbs that need neither torch nor MLflow tell mistakes; so those are imported where they are needed.
"""

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from lightning_cells.errors import InputError, one_line
from lightning_cells.paths import shipped
from lightning_cells.trust import class_paths
from lightning_cells.yaml_file import read_yaml

# What argparse and jsonargparse say of a key that they do not know, on the command line, in a file, within an object.
_UNKNOWN = (
    re.compile(r"unrecognized arguments: (?P<key>\S+)", re.IGNORECASE),
    re.compile(r"does not accept option '(?P<key>[^']+)'"),
    re.compile(r"^Option '(?P<key>[^']+)' is not accepted"),
)
_NO_MODEL = re.compile(r"arguments are required: (\w+\.)?model\b")
_KEY = re.compile(r"Parser key \"(?P<key>[\w.]+)\":\s*(?P<why>.+)", re.DOTALL)
# For an optional value all alternatives that were tried are listed.
_TRIED = re.compile(r"^\s+- (?!Expected a path but|Does not validate|Expected a <class 'NoneType'>)(.+)$", re.MULTILINE)
_GIVEN = re.compile(r"^\s*Given value: (?P<value>.+)", re.MULTILINE)
_NO_CLASS = re.compile(r"Expected a dot import path string: (?P<name>\S+)")
_TYPES = re.compile(r"(?:an? )?(?:<class '(\w+)'>|typing\.(Literal\[[^\]]*\]))")
_REMEDIES = (
    (re.compile(r"Got value: None$"), ": give one, or leave the option out"),
    # YAML reads 01 as a number.
    (re.compile(r"Expected str\b.*Got value: [\d.]+$"), ': quote names that look like numbers, as in \'["01", "02"]\''),
    (re.compile(r"^Expected list\b"), ": write a list in brackets, as in '[\"01\", \"02\"]' or '[1, 2]'"),
)
# What this module itself said of an object within another one.
_INNER_UNKNOWN = re.compile(r"there is no option '(?P<key>[^']+)'(: did you mean '(?P<near>[^']+)'\?)?")
_INNER_VALUE = re.compile(r"(?P<key>[\w.]+): (?P<why>.+)")


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


def check_configurations(args: list[str]) -> None:
    """Looks at the configuration files that the words name, before anything heavy is imported for them.

    Raises:
        InputError: if one is missing, or is no mapping in valid YAML.
    """
    for _, option, value in _options(shipped_configurations(args)):
        if option in ("-c", "--config"):
            _read(value)


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
    from lightning_cells.methods.short_options import complete_option

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
    if name is None:
        return None
    from lightning_cells.methods.short_options import find_class

    return find_class(name)


def named_packages(args: list[str]) -> set[str]:
    """The packages whose classes the user's own words name for the method, on the command line and in files."""
    named: list[Any] = []
    for _, option, value in _options(args):
        if option.partition(".")[0] == "--model":
            named.append(value)
        elif option in ("-c", "--config"):
            named.append(_read(value).get("model"))
    return {path.partition(".")[0] for path in class_paths(named)}


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


class Resumed(NamedTuple):
    """A training that goes on.

    Attributes:
        run: its name.
        words: the command line: the run's configuration, its last checkpoint, then what the user gives.
        checkpoint: where it goes on; None if it was interrupted before the first checkpoint.
    """

    run: str
    words: list[str]
    checkpoint: Path | None


def resumed(args: list[str], words: tuple[str, ...] | None) -> Resumed | None:
    """Looks for a run to go on with: the one that ``--resume`` names, or that an earlier attempt of this job began.

    Args:
        args: verb and options, with configuration files as they are found.
        words: the same as the user has given them, by which a job knows its run; None for one that does not go on by
            itself.

    Raises:
        InputError: if the run is not known here, or the verb is another than ``fit``.
    """
    run = given(args, "resume")
    if run is not None and args[0] != "fit":
        raise InputError(f"--resume {run}: goes on with a training: use it with fit, or give --ckpt_path")
    if args[0] != "fit":
        return None
    asked = run is not None
    from lightning_cells.loggers.run_folder import find_run, interrupted_run

    if run is None and words is not None:
        run = interrupted_run(words)
    if run is None:
        return None
    folder = find_run(run)
    last = folder.checkpoints / "last.ckpt"
    start = ["--ckpt_path", str(last)] if last.is_file() else []
    again = ["fit", "-c", str(folder.config)]
    # a job's own checkpoint to start from was that of its first attempt
    again += [*start, *without(args[1:], "resume")] if asked else [*args[1:], *start]
    return Resumed(folder.name, again, last if start else None)


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


def explain(message: str, options: Iterable[str]) -> str:
    """Returns a parser's message in one line, with a hint where a name is not known.

    Args:
        message: as argparse or jsonargparse says it. An object within another one is parsed by itself first, so the
            message may hold what this function said of the inner one.
        options: the names of all options that the parser has.
    """
    for pattern in _UNKNOWN:
        if found := pattern.search(message):
            key = found["key"].lstrip("-").partition("=")[0]
            near = get_close_matches(key, set(options), n=1)
            return _unknown(key, near[0] if near else None)
    if _NO_MODEL.search(message):
        return _no_method()
    found = _KEY.search(message)
    if found is None:
        return one_line(message)
    key = found["key"]
    tried = list(dict.fromkeys(_TRIED.findall(message)))
    for why in tried or [found["why"]]:
        if inner := _INNER_UNKNOWN.match(why):
            return _unknown(f"{key}.{inner['key']}", inner["near"] and f"{key}.{inner['near']}")
        if inner := _INNER_VALUE.fullmatch(why):
            return f"{key}.{inner['key']}: {inner['why']}"
    no_class = _NO_CLASS.search(message)
    if key == "model" and (no_class or "is abstract" in message):
        return _no_method(no_class["name"] if no_class else None)
    if no_class:
        return f"{key}: '{no_class['name']}' is no class: give its import path"
    why = " or ".join(tried) or found["why"]
    if tried and "Got value" not in why and (given := _GIVEN.search(message)):
        why += f". Got value: {given['value']}"
    said = one_line(_TYPES.sub(lambda kind: kind[1] or kind[2], why))
    remedy = next((remedy for pattern, remedy in _REMEDIES if pattern.search(said)), "")
    return f"{key}: {said}{remedy}"


def _unknown(key: str, near: str | None) -> str:
    return f"there is no option '{key}': " + (f"did you mean '{near}'?" if near else "see --help")


def _no_method(name: str | None = None) -> str:
    from lightning_cells import methods

    names = sorted({method.__name__ for method in _below(methods.CellMethod)})
    wrong = f"'{name}' is no method" if name else "no method is chosen"
    return (
        f"model: {wrong}: give -c conf/method/NAME/tiny.yaml, --model NAME with one of {', '.join(names)}, "
        "or a trained one with --ckpt_path"
    )


def _below(kind: type) -> set[type]:
    return set(kind.__subclasses__()).union(*map(_below, kind.__subclasses__()))
