"""Mistakes in options and configuration files, in one line, with the nearest right name."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

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
    # YAML reads 01 as a number.
    (re.compile(r"Expected str\b.*Got value: [\d.]+$"), ': quote names that look like numbers, as in \'["01", "02"]\''),
    (re.compile(r"^Expected list\b"), ": write a list in brackets, as in '[\"01\", \"02\"]' or '[1, 2]'"),
)
# What this module itself said of an object within another one.
_INNER_UNKNOWN = re.compile(r"there is no option '(?P<key>[^']+)'(: did you mean '(?P<near>[^']+)'\?)?")
_INNER_VALUE = re.compile(r"(?P<key>[\w.]+): (?P<why>.+)")


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
        return " ".join(message.split())
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
    said = " ".join(_TYPES.sub(lambda kind: kind[1] or kind[2], why).split())
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
