"""What the images of a TIFF are: channels, planes in depth, points in time."""

import math
from pathlib import Path

import numpy as np

from lightning_cells.data.voxels import Axes
from lightning_cells.errors import InputError

_UNNAMED = "IQ"
"""Axes that nothing is known of: images that follow one another."""
_NAMES = {"Z": "planes in depth (axis Z)", "T": "points in time (axis T)"}


def which_channel(path: Path, lengths: dict[str, int], channel: int | None) -> tuple[int, bool]:
    """Returns which channel or colour to take of an image, and whether they are colours."""
    colours, channels = lengths.get("S", 1), lengths.get("C", 1)
    if colours > 1 and channels > 1:
        raise InputError(f"{path}: has channels of several colours each: save one grey channel")
    kind, known = ("colours", colours) if colours > 1 else ("channels", channels)
    if known > 1 and channel is None:
        raise InputError(
            f"{path}: has {known} {kind}: save one grey channel, or choose one of frames by --channel 0 to {known - 1} "
            "(in trainings --data.channel); if they are points in time, save it with time as that axis"
        )
    if channel is not None and not 0 <= channel < known:
        has = f"has {known} {kind}: give 0 to {known - 1}" if known > 1 else "is grey: leave the channel out"
        raise InputError(f"{path}: has no channel {channel}; it {has}")
    return channel or 0, colours > 1


def arranged(
    path: Path, axes: list[tuple[str, int]], channel: int, alone: bool, said: Axes | None
) -> tuple[np.ndarray, bool]:
    """Finds which images are points in time, and which are planes.

    Args:
        path: the file, for messages.
        axes: names and lengths of its axes, from the outermost.
        channel: the one that is taken.
        alone: the file is one point in time, so that images of which nothing is said are planes; otherwise they are
            points in time.
        said: what the user says of the axes.

    Returns:
        The places of one channel's images among all: (T,) in the order of time, or (T, Z) of volumes; and whether
        anything but `alone` told which it is.

    Raises:
        InputError: if that is not known, or it is a video in the place of a frame.
    """
    outer = [(axis, n) for axis, n in axes if axis not in "YXS"]
    places: np.ndarray = np.arange(math.prod(n for _, n in outer)).reshape([n for _, n in outer])
    letters = [axis for axis, _ in outer]
    if "C" in letters:
        places = places.take(channel, letters.index("C"))
    letters = [axis for axis, n in outer if n > 1 and axis != "C"]
    places = places.reshape([n for axis, n in outer if n > 1 and axis != "C"])
    meaning = _meaning(letters, alone, said)
    ordered = "".join(axis for axis, _ in axes if axis != "S").endswith("YX")
    if meaning is None or not ordered:
        raise _unclear(path, axes, letters, ordered, said)
    if alone and "T" in meaning:
        raise InputError(
            f"{path}: has {places.size} pages: give one 2-D image per file, or this file itself as the video"
        )
    places = places.transpose([meaning.index(axis) for axis in "TZ" if axis in meaning])
    return places.reshape(-1, *places.shape["T" in meaning :]), said is not None or letters == meaning


def _meaning(letters: list[str], alone: bool, said: Axes | None) -> list[str] | None:
    """T or Z for each axis of more than one image; None where it is not known."""
    if said is not None:
        wanted = list(said.removesuffix("YX"))
        if set(letters) <= set(wanted) and ("Z" in letters) == ("Z" in wanted):
            return letters  # of one point in time, maybe
        return wanted if len(letters) == len(wanted) else None
    unnamed = [axis for axis in letters if axis in _UNNAMED]
    if len(unnamed) > 1 or ("T" in letters and unnamed) or not set(letters) <= set("TZ" + _UNNAMED):
        return None
    meant = "Z" if alone and "Z" not in letters else "T"
    return [meant if axis in _UNNAMED else axis for axis in letters]


def _unclear(
    path: Path, axes: list[tuple[str, int]], letters: list[str], ordered: bool, said: Axes | None
) -> InputError:
    shape = "x".join(str(n) for axis, n in axes if axis != "S" or n > 1)
    named = " and ".join(_NAMES.get(axis, f"an axis {axis}") for axis in letters) if ordered else ""
    remedy = "save one grey image for each point in time, with time as the axis of the stack (in ImageJ: Image > " + (
        "Properties, frames)"
    )
    if said is not None:
        return InputError(f"{path}: is {shape}, which --axes {said} does not describe: give other axes, or {remedy}")
    if ordered and len(letters) == 2:
        remedy = "say which axis is time and which is depth by --axes TZYX, or " + remedy
    return InputError(f"{path}: is {shape}, with {named or 'axes in another order'}: {remedy}")
