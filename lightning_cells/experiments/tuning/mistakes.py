"""Mistakes in a sweep's file."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from lightning_cells.errors import InputError, nearest


class StudyMistake(InputError):
    """Something that spoils every trial of a study, not only the one that noticed it."""


def never_logged(objective: str, logged: Iterable[str]) -> StudyMistake:
    """What to raise for an objective that trials do not log."""
    names = sorted(logged)
    near = get_close_matches(objective, names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"logged are {', '.join(names) or 'none'}"
    return StudyMistake(f"objective '{objective}' is never logged: {hint}")


def allow(tree: dict[Any, Any], keys: Iterable[str], place: str) -> None:
    """Raises InputError for a key that is none of `keys`, with the nearest right one."""
    known = list(keys)
    for key in tree:
        if key not in known:
            raise InputError(f"{place}: there is no '{key}': {nearest(str(key), known)}")
