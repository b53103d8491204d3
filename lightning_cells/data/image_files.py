"""Reads and writes the pixels of one image file."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile

from lightning_cells.data.atomic import writing
from lightning_cells.errors import InputError, one_line

STILLS = (".tif", ".tiff", ".png")
"""Endings of still images and their labels, in small letters."""
FRAMES = (".tif", ".tiff")
"""Endings of the frames and masks of videos, in small letters."""
MAX_LABEL = 65535
"""Largest label of the challenge's 16-bit masks."""


def is_frame(path: Path) -> bool:
    """Whether a file is named like a frame or a mask of a video; hidden ones are not."""
    return path.suffix.lower() in FRAMES and not path.name.startswith(".")


def read_frame(path: Path) -> np.ndarray:
    """Reads one grey input frame.

    Args:
        path: 8- or 16-bit TIFF of any byte order and compression, or PNG.

    Returns:
        (H, W) uint8 or uint16, in native byte order.

    Raises:
        InputError: if the file is missing, truncated, in colour, three-dimensional, or of another type.
    """
    pixels = _read(path)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: has {pixels.dtype} pixels: save frames as 8- or 16-bit unsigned integers")
    return pixels


def read_mask(path: Path) -> np.ndarray:
    """Reads one mask of instance labels or classes.

    Args:
        path: TIFF or PNG of integers; labels are 0 (background) to 65535.

    Returns:
        (H, W) uint16.

    Raises:
        InputError: if the file is missing, truncated, in colour, three-dimensional, not of integers, or holds
            labels outside 0..65535.
    """
    pixels = _read(path)
    if pixels.dtype.kind not in "bui":
        raise InputError(f"{path}: has {pixels.dtype} pixels: save masks as 16-bit unsigned integers")
    if pixels.dtype.itemsize > 2 or pixels.dtype.kind == "i":
        low, high = int(pixels.min()), int(pixels.max())
        if low < 0 or high > MAX_LABEL:
            bad = low if low < 0 else high
            raise InputError(f"{path}: holds label {bad}: renumber the labels to 0..{MAX_LABEL}")
    return pixels.astype(np.uint16, copy=False)


def write_image(path: Path, array: np.ndarray) -> None:
    """Writes a zlib-compressed TIFF; the same array always gives the same bytes, whole or not at all.

    Args:
        path: file to make or replace; missing folders are made.
        array: (H, W) uint8 or uint16.

    Raises:
        ValueError: if the array is of another type or dimension.
    """
    if array.ndim != 2 or array.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"expected a 2-D uint8 or uint16 array, got {array.dtype} of shape {array.shape}")
    with writing(Path(path)) as temporary:
        tifffile.imwrite(
            temporary,
            np.ascontiguousarray(array),
            byteorder="<",
            photometric="minisblack",
            compression="zlib",
            metadata=None,
            software=False,
        )


def _read(path: Path) -> np.ndarray:
    """Returns the (H, W) pixels of a TIFF or PNG in native byte order."""
    try:
        pixels = _decode_png(path) if path.suffix.lower() == ".png" else _decode_tiff(path)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file: check the name") from None
    except (IsADirectoryError, PermissionError) as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): make it a readable image file") from None
    except Exception as error:  # each codec has an exception class of its own
        reason = one_line(error)[:80]
        raise InputError(f"{path}: is truncated or not a readable image ({reason}): copy it again") from None
    while pixels.ndim > 2 and pixels.shape[0] == 1:
        pixels = pixels[0]
    if pixels.ndim != 2 or pixels.size == 0:
        raise InputError(f"{path}: has shape {pixels.shape}: give one 2-D grey image per file")
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _decode_png(path: Path) -> np.ndarray:
    import imagecodecs  # most files need it not

    pixels = imagecodecs.png_decode(path.read_bytes())
    if pixels.ndim == 3:
        raise InputError(f"{path}: is a colour image: save it as one grey channel")
    return pixels


def _decode_tiff(path: Path) -> np.ndarray:
    with quiet_tifffile(), tifffile.TiffFile(path) as file:
        series, end = file.series, file.filehandle.size
        if len(series) != 1 or len(file.pages) != 1:
            raise InputError(f"{path}: has {len(file.pages)} pages: give one 2-D image per file")
        page = series[0].keyframe
        if page.samplesperpixel != 1:
            raise InputError(f"{path}: is a colour image: save it as one grey channel")
        # a short LZW strip decodes to wrong pixels without any error
        segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        if not segments or any(count <= 0 or offset + count > end for offset, count in segments):
            raise InputError(f"{path}: is truncated: copy it again")
        return series[0].asarray(maxworkers=1)


@contextmanager
def quiet_tifffile() -> Iterator[None]:
    """Keeps tifffile from printing dozens of lines about a broken file: ours names it in one."""
    logger = logging.getLogger("tifffile")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
