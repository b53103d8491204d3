"""A trained method's decoder and linker, changed from outside."""

from collections.abc import Mapping
from copy import copy
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal

import numpy as np
import yaml

from lightning_cells.errors import InputError, nearest
from lightning_cells.instances.components import Decoder
from lightning_cells.instances.embedding import EmbeddingDecoder
from lightning_cells.instances.linkers import Lap, Linker, Overlap
from lightning_cells.methods.base import CellMethod

LinkerName = Literal["overlap", "laptrack"]


def decode_by(method: CellMethod, settings: Mapping[str, Any]) -> None:
    """Gives the decoder of a method other settings.

    Args:
        method: is changed.
        settings: by name, such as ``seed_threshold`` or ``clustering.bandwidth``; numbers, also as text.

    Raises:
        InputError: for a name or a value that the decoder does not take.
    """
    for name, value in settings.items():
        method.decoder = _changed(getattr(method, "decoder", None), f"--decoder.{name}", name, value)


def drop_smaller(method: CellMethod, share: float, diameter: float, scale: float) -> None:
    """Lets a method drop what is smaller than a share of a typical cell's area.

    Args:
        method: is changed.
        share: of the area, from 0, which keeps all, to below 1.
        diameter: of a typical cell, in pixels that the network sees.
        scale: of the frames that it sees.

    Raises:
        InputError: for another share, or a method without decoder.
    """
    if not 0 <= share < 1:
        raise InputError(f"--min-size {share}: must be a share of a cell's area, from 0 to below 1")
    area = share * np.pi / 4 * diameter**2
    # cells are cut out of the frames at their own size, or of two frames at the network's
    pixels = 2 * area if isinstance(getattr(method, "decoder", None), EmbeddingDecoder) else area / scale**2
    decode_by(method, {"min_size": round(pixels)})


def resized(method: CellMethod, factor: float) -> CellMethod:
    """A method for frames whose cells are larger by a factor than those that its decoder was set up for.

    It shares the network of the one that is given. What works at the network's resolution stays as it is.
    """
    decoder = getattr(method, "decoder", None)
    if factor == 1 or not isinstance(decoder, Decoder):
        return method
    other = copy(method)
    other.decoder = decoder.resized(factor)  # type: ignore[assignment]  # no module, which mypy takes attributes for
    return other


def link_by(method: CellMethod, name: LinkerName) -> None:
    """Gives a method another linker; one of the same kind keeps its thresholds.

    Raises:
        InputError: for a method that links by means of its own.
    """
    if method.linker is None:
        raise InputError(f"--linker {name}: {type(method).__name__} links cells by its own embeddings: leave it out")
    kinds: dict[LinkerName, type[Linker]] = {"overlap": Overlap, "laptrack": Lap}
    if not isinstance(method.linker, kinds[name]):
        method.linker = kinds[name]()


def _changed(part: Any, option: str, name: str, value: Any) -> Any:
    """A dataclass with another value of a field, or of a field of a field."""
    head, _, rest = name.partition(".")
    known = {field.name: str(field.type) for field in fields(part)} if is_dataclass(part) else {}
    if head not in known:
        raise InputError(f"{option}: there is no such setting: {nearest(head, known)}")
    before = getattr(part, head)
    if rest or is_dataclass(before):
        return replace(part, **{head: _changed(before, option, rest, value)})
    number = yaml.safe_load(value) if isinstance(value, str) else value
    allowed = (int, float) if isinstance(before, float) else (int,) if before is None else (type(before),)
    if type(number) not in allowed and not (number is None and "None" in known[head]):
        raise InputError(f"{option} {value}: must be of the kind of {before}, which it is otherwise")
    return replace(part, **{head: number})
