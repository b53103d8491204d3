"""Volumes: how their axes are named, and the size of their voxels."""

import math
import re
from typing import Literal, cast, get_args

import tifffile

from lightning_cells.errors import InputError

Axes = Literal["TYX", "ZYX", "TZYX"]
"""What the images of a file are: points in time, the planes of one volume, or volumes at points in time."""
Order = Literal["time", "z"]
"""What a recurrent network goes through: each plane over time, or each volume from plane to plane."""
Voxel = tuple[float, float, float]
"""Depth, height and width of a voxel in any unit; only their ratios count."""
CUBE: Voxel = (1.0, 1.0, 1.0)
_UNITS = {"nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}


def check_axes(axes: str | None) -> Axes | None:
    """Raises InputError for axes that are none of `Axes`; small letters will do."""
    if axes is None or axes.upper() in get_args(Axes):
        return None if axes is None else cast(Axes, axes.upper())
    raise InputError(f"--axes {axes}: is not known: give TYX (a video), ZYX (a volume) or TZYX (a video of volumes)")


def check_voxel(voxel: tuple[float, ...] | None) -> Voxel | None:
    """Raises InputError unless a voxel has three positive sides, or is None."""
    if voxel is None:
        return None
    if len(voxel) != 3 or not all(0 < side < math.inf for side in voxel):
        shown = " ".join(f"{side:g}" for side in voxel)
        raise InputError(f"--voxel {shown}: give three positive numbers, depth, height and width, such as 5 1 1")
    depth, height, width = map(float, voxel)
    return depth, height, width


def described_voxel(file: tifffile.TiffFile) -> Voxel | None:
    """The voxel that the OME or ImageJ metadata of a file speak of; None where they do not tell all of it."""
    if file.is_ome:
        return _of_ome(file.ome_metadata or "")
    return _of_imagej(file) if file.is_imagej else None


def _of_ome(described: str) -> Voxel | None:
    sides = []
    for axis in "ZYX":
        size = re.search(rf'\bPhysicalSize{axis}=["\']([0-9.eE+-]+)', described)
        unit = re.search(rf'\bPhysicalSize{axis}Unit=["\']([^"\']*)', described)
        sides.append(_number(size[1]) * _UNITS.get(unit[1] if unit else "µm", math.nan) if size else math.nan)
    return _voxel(sides)


def _of_imagej(file: tifffile.TiffFile) -> Voxel | None:
    spacing = _number((file.imagej_metadata or {}).get("spacing", math.nan))
    sides = [spacing]
    for name in ("YResolution", "XResolution"):  # pixels per unit
        tag = file.pages.first.tags.get(name)
        pixels, units = tag.value if tag is not None and isinstance(tag.value, tuple) else (1, 1)
        sides.append(units / pixels if pixels else math.nan)
    return _voxel(sides)


def _voxel(sides: list[float]) -> Voxel | None:
    if not all(0 < side < math.inf for side in sides):
        return None
    depth, height, width = sides
    return depth, height, width


def _number(text: object) -> float:
    try:
        return float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan
