"""Files in YAML that users write: read, and checked by pydantic with all mistakes told at once."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    TypeAdapter,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails

from lightning_cells.errors import InputError, nearest, one_line

_DEEPEST = 40
_MOST = 300_000  # values


def read_yaml(path: Path, wanted: str) -> Any:
    """Returns what a file says, as plain values.

    Args:
        path: the file.
        wanted: what the user is to give if it cannot be read at all.

    Raises:
        InputError: if it is no file, no text, or no valid YAML, of which the message names the line; and for values
            that nest deeper than anybody writes, contain themselves, or grow beyond all reason by repetition.
    """
    if not path.is_file():  # a pipe or a device would be waited for
        raise InputError(f"{path}: is not a readable text file: give {wanted}")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        _check_size(tree, path)
        return tree
    except RecursionError:
        raise InputError(f"{path}: nests too deep: give {wanted}") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}{line}: is no valid YAML ({error.problem}): correct it") from None
    except InputError:
        raise
    except (OSError, ValueError, OverflowError, yaml.YAMLError):
        raise InputError(f"{path}: is not a readable text file: give {wanted}") from None


def _check_size(tree: Any, path: Path) -> None:
    """Raises InputError for values that nest too deep, as those do that contain themselves, or are too many."""
    waiting = [(tree, 0)]
    seen = 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if depth > _DEEPEST or seen > _MOST:
            raise InputError(f"{path}: nests too deep, or says too much by repetition: write it out in fewer values")
        if isinstance(value, dict):
            waiting += [(part, depth + 1) for part in (*value, *value.values())]
        elif isinstance(value, list | tuple | set):
            waiting += [(part, depth + 1) for part in value]


def checked(kind: Any, tree: Any, place: str) -> Any:
    """Converts plain values to a type that pydantic knows, such as a `Strict` model.

    Args:
        kind: the type.
        tree: as YAML gave it.
        place: the file, the beginning of the message.

    Raises:
        InputError: if the values are none of that type. One line names every mistake by its key.
    """
    try:
        return TypeAdapter(kind).validate_python(tree)
    except ValidationError as error:
        raise InputError(one_line(f"{place}: {'; '.join(map(_told, error.errors()))}")) from None


class Strict(BaseModel):
    """A mapping of known keys; for an unknown one the nearest right one is told."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @model_validator(mode="wrap")
    @classmethod
    def _name_nearest(cls, tree: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(tree)
        except ValidationError as error:
            known = [field.alias or name for name, field in cls.model_fields.items()]
            raise mistakes(_of_key(one, known) or one for one in error.errors()) from None


def mistake(place: tuple[int | str, ...], message: str, value: Any = None) -> InitErrorDetails:
    """One of the `mistakes`, at a place within the value that is checked."""
    return {"type": "value_error", "loc": place, "input": value, "ctx": {"error": ValueError(message)}}


def mistakes(found: Iterable[InitErrorDetails | ErrorDetails]) -> ValidationError:
    """What a validator raises for several mistakes at once."""
    details = [mistake(one.get("loc", ()), _message(one), one["input"]) for one in found]
    return ValidationError.from_exception_data("", details)


def or_else(message: str) -> WrapValidator:
    """Annotates a type with what is told of a value that is not of it.

    Args:
        message: with ``{value}`` for the value. What a validator within the type says by a ValueError goes before it.
    """

    def check(value: Any, handler: Any) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            if any(one["type"] == "value_error" for one in error.errors()):
                raise
            raise ValueError(message.format(value=value)) from None

    return WrapValidator(check)


def _of_key(error: ErrorDetails, known: list[str]) -> InitErrorDetails | None:
    """A key that is unknown or missing, as a mistake of the mapping that it belongs to."""
    if len(error["loc"]) != 1 or error["type"] not in ("extra_forbidden", "missing"):
        return None
    key = str(error["loc"][0])
    return mistake(
        (), f"has no '{key}': add it" if error["type"] == "missing" else f"there is no '{key}': {nearest(key, known)}"
    )


def _message(error: Any) -> str:
    """A mistake in the words of a validator, or else in pydantic's."""
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    message = error["msg"].replace("Input should", "should").replace("dictionary", "mapping")
    return f"{message}, not '{error['input']}'"


def _told(error: ErrorDetails) -> str:
    place, message = ".".join(map(str, error["loc"])), _message(error)
    joint = "" if not place else " " if message.startswith(f"{error['input']}: ") else ": "
    return f"{place}{joint}{message}"
