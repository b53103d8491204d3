"""Mistakes in a sweep's file."""

from collections.abc import Iterable
from typing import Any

from lightning_cells.errors import InputError, nearest


def allow(tree: dict[Any, Any], keys: Iterable[str], place: str) -> None:
    """Raises InputError for a key that is none of `keys`, with the nearest right one."""
    known = list(keys)
    for key in tree:
        if key not in known:
            raise InputError(f"{place}: there is no '{key}': {nearest(str(key), known)}")
