"""What a TIFF says that it holds, and how many pages it has."""

import math
import re
import struct
from pathlib import Path

import tifffile

from lightning_cells.errors import InputError

_MOST_IMAGES = 10**7
_MOST_TAGS = 4096
_NEEDED = {270, 273, 279, 320, 324, 325, 50838, 50839}
"""Descriptions, places of pixels, look-up tables."""
_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Of a value of each type but those of one."""


def count_pages(file: tifffile.TiffFile) -> int:
    """Follows the pages of a file from one to the next.

    Raises:
        ValueError: where the way ends in nothing, or what describes a page lies behind the end of the file.
    """
    handle, kind = file.filehandle, file.tiff
    offset, seen = file.pages.first.offset, set()
    while offset:
        if offset in seen:
            raise ValueError("its pages go round in a circle")
        seen.add(offset)
        handle.seek(offset)
        head = handle.read(kind.tagnosize)
        tags = struct.unpack(kind.tagnoformat, head)[0] if len(head) == kind.tagnosize else 0
        entries = handle.read(min(tags, _MOST_TAGS) * kind.tagsize + kind.offsetsize)
        if not tags or len(entries) != tags * kind.tagsize + kind.offsetsize or _reaches_beyond(entries, file):
            raise ValueError(f"it ends in its page {len(seen)}")
        offset = struct.unpack(kind.offsetformat, entries[-kind.offsetsize :])[0]
    return len(seen)


def _reaches_beyond(entries: bytes, file: tifffile.TiffFile) -> bool:
    """Whether a tag that is needed to read a page is cut off."""
    kind, end = file.tiff, file.filehandle.size
    layout = f"{kind.byteorder}HH{'QQ' if kind.is_bigtiff else 'II'}"
    if struct.calcsize(layout) != kind.tagsize:
        return False  # as of NDPI
    for code, of, count, offset in struct.iter_unpack(layout, entries[: -kind.offsetsize]):
        size = count * _BYTES.get(of, 1)
        if code in _NEEDED and size > kind.tagoffsetthreshold and offset + size > end:
            return True
    return False


def count_reopened(file: tifffile.TiffFile) -> int:
    """`count_pages` of another file of a series, which tifffile has closed."""
    file.filehandle.open()
    try:
        return count_pages(file)
    finally:
        file.filehandle.close()


def is_one(file: tifffile.TiffFile, alone: bool) -> bool:
    """Whether the only page of a file is all that its metadata speak of.

    Args:
        file: of one page.
        alone: whether a file counts that is a part of a series, the other parts of which its metadata name.
    """
    page = file.pages.first
    if page.is_ome:
        described = file.ome_metadata or ""
        if alone and ("BinaryOnly" in described or len(set(re.findall(r'FileName=["\']([^"\']*)', described))) > 1):
            return True
        return "BinaryOnly" not in described and claimed_images(file) == 1
    if page.is_shaped or page.is_imagej:
        return claimed_images(file) == 1
    return not (page.is_stk or page.is_lsm or page.is_fluoview or file.is_mmstack or file.is_ndtiff)


def claimed_images(file: tifffile.TiffFile) -> int:
    """How many images the metadata of the first page speak of; 1 where they say nothing."""
    page = file.pages.first
    if page.is_ome:
        images = re.findall(r"<(?:\w+:)?Pixels\b[^>]*>", file.ome_metadata or "")
        return sum(math.prod(int(n) for n in re.findall(r'\bSize[CZT]=["\'](\d+)', image)) for image in images) or 1
    if page.is_imagej:
        said = file.imagej_metadata or {}
        axes = ("frames", "slices", "channels") if page.samplesperpixel == 1 else ("frames", "slices")
        return max(said.get("images", 1), math.prod(said.get(axis, 1) for axis in axes))
    if page.is_shaped:
        said = tifffile.tifffile.shaped_description_metadata(page.shaped_description or "")["shape"]
        if not isinstance(said, list | tuple):
            return 1
        shape, one = ([n for n in sides if n != 1] for sides in (said, page.shape))
        return math.prod(shape[: len(shape) - len(one)]) if shape[len(shape) - len(one) :] == one else 1  # of another
    return 1


def check_claims(path: Path, file: tifffile.TiffFile) -> None:
    """Raises InputError for numbers that cannot be: tifffile would make room for them."""
    numbers = re.findall(r'\b(?:Size[CZTXY]|PlaneCount|NumPlanes|First[CZT]|IFD)=["\'](\d+)', file.ome_metadata or "")
    if any(len(n) > 9 or int(n) > _MOST_IMAGES for n in numbers) or claimed_images(file) > _MOST_IMAGES:
        raise InputError(f"{path}: its metadata speak of more images than there can be: is damaged, copy it again")
