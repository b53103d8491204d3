"""Whether memory has room for a volume, before it is taken."""

import math

import psutil

from lightning_cells.errors import InputError

_SMALLER = "cut it into parts, or save it at half the size"


def check_room(name: str, shape: tuple[int, ...], each: float, remedy: str = _SMALLER) -> None:
    """Raises InputError for what is larger than the memory that is free.

    Args:
        name: what to call it.
        shape: of a volume.
        each: bytes that a voxel takes.
        remedy: what to do.
    """
    needed, free = math.prod(shape) * each, psutil.virtual_memory().available
    if needed > free:
        size = " x ".join(map(str, shape))
        raise InputError(
            f"{name}: a volume of {size} takes {needed / 2**30:.1f} GB of memory, and {free / 2**30:.1f} GB are free: "
            f"{remedy}"
        )
