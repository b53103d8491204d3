"""What the stored numbers of an image stand for: white is zero, and look-up tables."""

from pathlib import Path

import numpy as np
import tifffile

from lightning_cells.errors import InputError

_PHOTOMETRIC = 262  # the tag; tifffile takes a missing one for "white is zero"


def as_shown(frame: np.ndarray, page: tifffile.TiffPage, falls: bool, path: Path) -> np.ndarray:
    """Returns the brightness that stored numbers stand for, as the file's photometric interpretation has it.

    Args:
        frame: (H, W) as stored.
        page: the page that describes it.
        falls: whether a look-up table beside the pixels inverts them, see `is_falling`.
        path: what to call it in messages.

    Returns:
        (H, W): the same where black is zero; else inverted, or taken from a palette of greys, or of one hue.

    Raises:
        InputError: if it is a palette of several hues, or of another interpretation than these.
    """
    kind = page.photometric if _PHOTOMETRIC in page.tags else tifffile.PHOTOMETRIC.MINISBLACK
    if kind == tifffile.PHOTOMETRIC.MINISBLACK:
        return _inverted(frame, page) if falls else frame
    if kind == tifffile.PHOTOMETRIC.MINISWHITE:
        return _inverted(frame, page)
    if kind == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
        return looked_up(frame, page.colormap, path)
    name = getattr(kind, "name", kind)
    raise InputError(f"{path}: has pixels of photometric interpretation {name}: save it as one grey channel")


def _inverted(frame: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    if frame.dtype.kind != "u":
        return frame  # refused as a frame anyway
    return frame.dtype.type(2 ** min(page.bitspersample, 8 * frame.dtype.itemsize) - 1) - frame


def looked_up(frame: np.ndarray, palette: np.ndarray, path: Path) -> np.ndarray:
    """Returns the greys that the numbers of an image stand for.

    Args:
        frame: (H, W) indices of the palette.
        palette: (3, N) uint16, red, green and blue.
        path: what to call the image in messages.

    Returns:
        (H, W) uint8, or uint16 for a palette of more than 8 bits.

    Raises:
        InputError: if they are not greys, or shades of one hue.
    """
    ramp = palette.max(axis=0)
    if not all((row == ramp).all() or not row.any() for row in palette):
        raise InputError(
            f"{path}: has colours of a look-up table, whose brightness is not known: save it as one grey channel (in "
            "ImageJ: Image > Lookup Tables > Grays)"
        )
    if (ramp % 257 == 0).all() or (ramp % 256 == 0).all():  # of 8 bits, made 16 in one of two ways
        ramp = (ramp >> 8).astype(np.uint8)
    return ramp[frame]


def is_falling(file: tifffile.TiffFile, channel: int) -> bool:
    """Whether ImageJ shows a channel inverted, by a look-up table beside the pixels."""
    if not file.pages.first.is_imagej:
        return False
    tables = (file.imagej_metadata or {}).get("LUTs", [])
    if isinstance(tables, np.ndarray):
        tables = [tables]
    if channel >= len(tables):
        return False
    ramp = np.asarray(tables[channel]).max(axis=0).astype(int)
    return bool((np.diff(ramp) <= 0).all() and ramp[0] > ramp[-1])
