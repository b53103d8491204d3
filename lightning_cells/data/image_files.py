"""Reads and writes the pixels of one image file."""

import io
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tifffile

from lightning_cells.data.atomic import writing
from lightning_cells.data.pixels import looked_up
from lightning_cells.data.tiff import check_density, explained, open_tiff, regular
from lightning_cells.data.tiff_axes import which_channel
from lightning_cells.data.voxels import Axes, Voxel
from lightning_cells.errors import InputError

STILLS = (".tif", ".tiff", ".png")
"""Endings of still images and their labels, in small letters."""
FRAMES = (".tif", ".tiff")
"""Endings of the frames and masks of videos, in small letters."""
_PALETTE = 3  # PNG's type of colour
MAX_LABEL = 65535
"""Largest label of the challenge's 16-bit masks."""


def is_frame(path: Path) -> bool:
    """Whether a file is named like a frame or a mask of a video; hidden ones are not."""
    return path.suffix.lower() in FRAMES and not path.name.startswith(".")


def read_frame(
    path: Path, size: tuple[int, ...] | None = None, channel: int | None = None, axes: Axes | None = None
) -> np.ndarray:
    """Reads one grey input frame, with the brightness that its file means.

    Args:
        path: 8- or 16-bit TIFF of any byte order and compression, or PNG. Where white is zero, or numbers stand for the
            greys of a palette, that is undone. A TIFF of several images is a volume, unless its metadata say that they
            are points in time.
        size: what it must have, (H, W) or (Z, H, W), as the other frames; looked at before memory is taken.
        channel: which of several channels or colours to take, from 0; None if there must be just one.
        axes: what the images of a TIFF are, whatever its metadata say.

    Returns:
        (H, W), or (Z, H, W) of a volume, uint8 or uint16, in native byte order.

    Raises:
        InputError: if the file is missing, truncated, in colour, a video, or of another type or size.
    """
    pixels = _read(path, size, channel, axes=axes)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: has {pixels.dtype} pixels: save frames as 8- or 16-bit unsigned integers")
    return pixels


def read_mask(path: Path, size: tuple[int, ...] | None = None) -> np.ndarray:
    """Reads one mask of instance labels or classes, as they are stored.

    Args:
        path: TIFF or PNG of integers; labels are 0 (background) to 65535. A TIFF of several images is a volume, unless
            its metadata say that they are points in time.
        size: what it must have, (H, W) or (Z, H, W), as the frame it is of; looked at before memory is taken.

    Returns:
        (H, W), or (Z, H, W) of a volume, uint16.

    Raises:
        InputError: if the file is missing, truncated, in colour, a video, not of integers, of another size, or holds
            labels outside 0..65535.
    """
    pixels = _read(path, size, raw=True)
    if pixels.dtype.kind not in "bui":
        raise InputError(f"{path}: has {pixels.dtype} pixels: save masks as 16-bit unsigned integers")
    if pixels.dtype.itemsize > 2 or pixels.dtype.kind == "i":
        low, high = int(pixels.min()), int(pixels.max())
        if low < 0 or high > MAX_LABEL:
            bad = low if low < 0 else high
            raise InputError(f"{path}: holds label {bad}: renumber the labels to 0..{MAX_LABEL}")
    return pixels.astype(np.uint16, copy=False)


def read_planes(paths: Mapping[int, Path], size: tuple[int, ...] | None) -> dict[int, np.ndarray]:
    """Reads the masks of single planes of a volume.

    Args:
        paths: by the numbers of the planes, from 0.
        size: of the volume, (Z, H, W).

    Returns:
        (H, W) uint16 of each.

    Raises:
        InputError: as `read_mask`; if the volume has no such plane, or is none.
    """
    masks = {}
    for plane, path in paths.items():
        if size is not None and (len(size) != 3 or plane >= size[0]):
            there = f"have planes 0 to {size[0] - 1}" if len(size) == 3 else "are images"
            raise InputError(f"{path}: is of plane {plane}, but the frames {there}: remove it, or number planes from 0")
        masks[plane] = read_mask(path, None if size is None else size[1:])
    return masks


def write_image(path: Path, array: np.ndarray, voxel: Voxel | None = None) -> None:
    """Writes a zlib-compressed TIFF; the same array always gives the same bytes, whole or not at all.

    Args:
        path: file to make or replace; missing folders are made.
        array: (H, W), or (Z, H, W) of two planes or more for a page of each, uint8 or uint16.
        voxel: of a volume, in micrometres; it is written as ImageJ writes it.

    Raises:
        ValueError: if the array is of another type or dimension.
    """
    fits = array.ndim == 2 or (array.ndim == 3 and len(array) > 1)  # one page is read as an image
    if not fits or array.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"expected an image or a volume, uint8 or uint16, got {array.dtype} of shape {array.shape}")
    metadata, resolution = None, None
    if voxel is not None:
        metadata = {"axes": "ZYX", "spacing": voxel[0], "unit": "um"}
        resolution = (1 / voxel[2], 1 / voxel[1])
    with writing(Path(path)) as temporary:
        tifffile.imwrite(
            temporary,
            np.ascontiguousarray(array),
            byteorder="<",
            photometric="minisblack",
            compression="zlib",
            imagej=voxel is not None,
            metadata=metadata,
            resolution=resolution,
            software=False,
        )


def _read(
    path: Path,
    size: tuple[int, ...] | None,
    channel: int | None = None,
    raw: bool = False,
    axes: Axes | None = None,
) -> np.ndarray:
    """Returns the pixels of a TIFF or PNG in native byte order."""
    if path.suffix.lower() == ".png":
        return _decode_png(path, size, channel, raw)
    with open_tiff(path, channel, alone=True, axes=axes) as planes:
        _check_size(path, planes.shape, size)
        return planes.read(0, raw)


def _check_size(path: Path, here: tuple[int, ...], size: tuple[int, ...] | None) -> None:
    if 0 in here:
        raise InputError(f"{path}: has shape {here}: give one 2-D grey image per file")
    if size is not None and here != size:
        found, wanted = ("x".join(map(str, shape)) for shape in (here, size))
        remedy = "give all images one size"
        if len(here) < len(size):
            remedy = "give all of them as volumes, and the truth of plane 7 of frame 3 as man_seg_003_007.tif"
        elif len(here) > len(size):
            remedy = "give all of them as volumes, or all as images"
        raise InputError(f"{path}: is {found} pixels, others of the video are {wanted}: {remedy}")


def _decode_png(path: Path, size: tuple[int, ...] | None, channel: int | None, raw: bool) -> np.ndarray:
    import imagecodecs  # most files need neither
    from PIL import Image

    with explained(path):
        content = regular(path).read_bytes()
        width, height, depth, kind = struct.unpack(">IIBB", content[16:26])
        _check_size(path, (height, width), size)
        check_density(str(path), (height, width), 2 * height * width, len(content))
        if kind == _PALETTE:
            picture = Image.open(io.BytesIO(content))
            palette = np.array(picture.getpalette(), np.uint16).reshape(-1, 3).T
            return np.asarray(picture) if raw else looked_up(np.asarray(picture), 257 * palette, path)
        pixels = imagecodecs.png_decode(content)
    chosen, is_colour = which_channel(path, {"S": pixels.shape[2] if pixels.ndim == 3 else 1}, channel)
    if is_colour:
        pixels = pixels[..., chosen]
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    return pixels // (255 // (2**depth - 1)) if raw and depth < 8 else pixels  # few bits are decoded as if they were 8
