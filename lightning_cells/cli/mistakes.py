"""Mistakes in options and configuration files, in one line, with the nearest right name."""

import inspect
import re
from collections.abc import Iterable
from difflib import get_close_matches

from lightning_cells.methods import CellMethod

# What jsonargparse says of a key that it does not know, on the command line and in a file.
_UNKNOWN = (
    re.compile(r"unrecognized arguments: (?P<key>\S+)", re.IGNORECASE),
    re.compile(r"does not accept option '(?P<key>[^']+)'"),
    re.compile(r"Parser key \"(?P<group>[^\"]+)\".*Option '(?P<key>[^']+)' is not accepted"),
)
_NO_METHOD = re.compile(
    r"Parser key \"model\"(?!.*Errors: - \w+: ).*(is abstract|Expected a dot import path string: (?P<name>[\w.]+))"
)
_NO_CLASS = re.compile(r"Parser key \"(?P<key>[\w.]+)\": - .*Expected a dot import path string: (?P<name>[\w.]+)")
# A mistake within an optional object comes wrapped in the alternatives that were tried.
_WITHIN = re.compile(r"Parser key \"(?P<key>[\w.]+)\": .*? Errors: - (?P<why>.+?) - Expected a <class 'NoneType'>")
_VALUE = re.compile(r"Parser key \"(?P<key>[\w.]+)\": (?P<why>.+)")
_TYPES = re.compile(r"(?:an? )?(?:<class '(\w+)'>|typing\.(Literal\[[^\]]*\]))")


def explain(message: str, options: Iterable[str]) -> str:
    """Returns a parser's message in one line, with a hint where a name is not known.

    Args:
        message: as jsonargparse says it.
        options: the dotted names of all options that there are.
    """
    message = " ".join(message.split())
    for pattern in _UNKNOWN:
        if found := pattern.search(message):
            key = found["key"].lstrip("-").partition("=")[0]
            group = found.groupdict().get("group")
            return f"there is no option '{f'{group}.{key}' if group else key}'{_nearest(key, group, options)}"
    if found := _NO_METHOD.search(message):
        methods = {method.__name__ for method in _methods()}
        wrong = f"'{found['name']}' is no method: " if found["name"] else "no method is chosen: "
        names = ", ".join(sorted(methods))
        return f"model: {wrong}give -c conf/method/NAME/tiny.yaml, or --model NAME with one of {names}"
    if found := _NO_CLASS.search(message):
        return f"{found['key']}: '{found['name']}' is no class: give its import path"
    if found := _WITHIN.search(message) or _VALUE.search(message):
        return f"{found['key']}: {_TYPES.sub(lambda kind: kind[1] or kind[2], found['why'])}"
    return message


def _nearest(key: str, group: str | None, options: Iterable[str]) -> str:
    """The hint for an unknown key: the nearest of the same depth, else the nearest of all."""
    if group == "model":
        names = {name for method in _methods() for name in inspect.signature(method).parameters}
    else:
        names = set(options)
    near = get_close_matches(key, names, n=1, cutoff=0.6)
    return f": did you mean '{f'{group}.{near[0]}' if group else near[0]}'?" if near else ": see --help"


def _methods() -> list[type[CellMethod]]:
    def below(kind: type[CellMethod]) -> list[type[CellMethod]]:
        return [kind, *(deeper for sub in kind.__subclasses__() for deeper in below(sub))]

    return below(CellMethod)[1:]  # type: ignore[type-abstract]
