"""The frames of a TIFF file along its time axis: all that it speaks of, and with the pixels that it means."""

import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import tifffile

from lightning_cells.data.pixels import as_shown, is_falling
from lightning_cells.data.room import check_room
from lightning_cells.data.tiff_axes import arranged, which_channel
from lightning_cells.data.tiff_metadata import check_claims, claimed_images, count_pages, count_reopened, is_one
from lightning_cells.data.voxels import Axes, described_voxel
from lightning_cells.errors import InputError, one_line

_LARGE = 2**26
_DENSEST = 5000
"""No codec packs so many bytes of a real image into one; larger images that claim it are damaged."""

Page = tifffile.TiffPage | tifffile.TiffFrame


class Planes:
    """The frames of one TIFF, in the order of time: images, or volumes of several planes each.

    Attributes:
        count: how many there are.
        shape: height and width of each; of a volume first the number of its planes.
        dtype: of the numbers that are stored, in native byte order.
        told: whether the metadata, or `axes`, say which of its images are points in time and which are planes.
        voxel: what the metadata say of it; None where they do not, and of images.
    """

    def __init__(
        self, path: Path, file: tifffile.TiffFile, channel: int | None, alone: bool, said: Axes | None
    ) -> None:
        self._path = path
        self._stack: np.ndarray | None = None
        pages = count_pages(file)
        first = file.pages.first
        if pages == 1 and is_one(file, alone):
            self._pages: list[Page] = [first]
            axes = list(zip(first.axes, first.shape, strict=True))
        else:
            axes = self._described(file, pages)
        self.dtype = np.dtype(first.dtype).newbyteorder("=")
        lengths = dict(axes)
        self._channel, self._is_colour = which_channel(path, lengths, channel)
        self._places, self.told = arranged(path, axes, self._channel, alone, said)
        self.shape: tuple[int, ...] = (*self._places.shape[1:], lengths["Y"], lengths["X"])
        self.voxel = described_voxel(file) if self._places.ndim > 1 else None
        self._falls = is_falling(file, self._channel)
        self.count = len(self._places)
        if self._places.size > 1 and self._stack is None:
            last = int(self._places.flat[-1])
            self._check(self._pages[last], last)  # before much is done with the first ones

    def _described(self, file: tifffile.TiffFile, pages: int) -> list[tuple[str, int]]:
        """Takes the pages of the one series of a file, and returns its axes and their lengths."""
        check_claims(self._path, file)
        if ".ome." in self._path.name.lower() and not file.is_ome:
            raise InputError(
                f"{self._path}: is called OME-TIFF, but its OME metadata are damaged or missing, so that the order of "
                "images is not known: save it again, or rename it if it is none"
            )
        series = [one for one in file.series if not one.keyframe.is_reduced]  # as thumbnails are
        pages -= sum(len(one) for one in file.series if one.keyframe.is_reduced)
        if len(series) != 1:
            return self._joined(series, pages)
        (one,) = series
        axes = list(zip(one.get_axes(squeeze=False), one.get_shape(squeeze=False), strict=True))
        planes = math.prod(n for axis, n in axes if axis not in "YXS")
        said = planes if one.kind in ("ome", "mmstack") else claimed_images(file)
        if pages == 1 < planes and one.kind in ("shaped", "imagej", "stk"):
            self._stack = self._mapped(file, one, (planes, *one.keyframe.shape))
            self._pages = [one.keyframe]
            return axes
        held = [page for page in one if page is not None]
        if len({(id(page.parent), page.offset) for page in held}) != planes or said not in (1, planes):
            found = len(held) if one.is_multifile or one.kind == "ome" else pages
            raise InputError(_other_count(self._path, planes if said == 1 else said, found))
        if one.kind in ("generic", "uniform") and (file.is_ome or file.is_imagej):
            raise InputError(
                f"{self._path}: its metadata ({'OME' if file.is_ome else 'ImageJ'}) cannot be followed, so that the "
                "order of images is not known: save it again, or give the folder of the frames"
            )
        for parent in {page.parent for page in held}:
            used = sum(page.parent is parent for page in held)
            there = pages if parent is file else count_reopened(parent)
            if there != used:
                raise InputError(_other_count(Path(parent.filehandle.path), used, there))
        self._pages = held
        return axes

    def _joined(self, series: list[tifffile.TiffPageSeries], pages: int) -> list[tuple[str, int]]:
        """Takes pages that were written one by one, each as a series of its own."""
        held = sorted((page for one in series for page in one if page is not None), key=lambda page: page.index)
        kinds = {(key.shape, key.dtype, key.photometric) for key in map(_keyframe, held)}
        single = all(one.kind == "generic" or (one.kind == "shaped" and len(one) == 1) for one in series)
        if not single or len(kinds) != 1 or len(held) != pages:
            shapes = ", ".join("x".join(map(str, one.shape)) for one in series[:3]) + (", ..." if series[3:] else "")
            raise InputError(
                f"{self._path}: holds {len(series)} series of images ({shapes}): save one series, with one grey image "
                "for each point in time, as a file"
            )
        self._pages = held
        return [("T", len(held)), *zip(_keyframe(held[0]).axes, _keyframe(held[0]).shape, strict=True)]

    def _mapped(self, file: tifffile.TiffFile, series: tifffile.TiffPageSeries, shape: tuple[int, ...]) -> np.ndarray:
        """Images that follow one another behind a single page, as ImageJ writes large stacks."""
        size = math.prod(shape) * series.dtype.itemsize
        if series.dataoffset is None or not series.keyframe.is_memmappable:
            raise InputError(f"{self._path}: is truncated or compressed as a whole: save it with plain pages")
        if series.dataoffset + size > file.filehandle.size:
            whole = (file.filehandle.size - series.dataoffset) // max(1, size // shape[0])
            raise InputError(_other_count(self._path, shape[0], whole))
        code = series.dtype.newbyteorder(file.byteorder)
        return np.memmap(self._path, code, mode="r", offset=series.dataoffset, shape=shape)

    @property
    def files(self) -> list[Path]:
        """The files that hold them; more than one where parts of a series name each other."""
        return sorted({self._path, *(Path(page.parent.filehandle.path) for page in self._pages)})

    def read(self, index: int, raw: bool = False) -> np.ndarray:
        """Reads one frame.

        Args:
            index: 0 to ``count - 1``.
            raw: numbers as they are stored, as for labels; otherwise as they are to be seen, see `as_shown`.

        Returns:
            (H, W), or (Z, H, W) of a volume, in native byte order.

        Raises:
            InputError: if it is cut off or damaged, or of colours that are no greys.
        """
        places = self._places[index]
        if places.ndim == 0:
            return self._image(int(places), raw)
        check_room(str(self._path), self.shape, self.dtype.itemsize)
        first = self._image(int(places[0]), raw)
        volume = np.empty((len(places), *first.shape), first.dtype)
        volume[0] = first
        for plane, place in enumerate(places[1:].tolist(), 1):
            volume[plane] = self._image(place, raw)
        return volume

    def _image(self, place: int, raw: bool) -> np.ndarray:
        """One image, (H, W), by its place among all."""
        page = self._pages[0 if self._stack is not None else place]
        with explained(self._path):
            if self._stack is not None:
                frame = np.array(self._stack[place])
            else:
                self._check(page, place)
                frame = _decoded(page)
            if self._is_colour:
                frame = frame.take(self._channel, _keyframe(page).axes.index("S"))
            frame = frame.astype(frame.dtype.newbyteorder("="), copy=False)
            if raw or self._is_colour:
                return frame
            return as_shown(frame, _keyframe(page), self._falls, self._path)

    def _check(self, page: Page, place: int) -> None:
        """Raises InputError for a page whose pixels are not all there; a short strip may decode without any error."""
        keyframe, end = _keyframe(page), page.parent.filehandle.size
        segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        whole = segments and all(n > 0 and start + n <= end for start, n in segments)
        stored = sum(n for _, n in segments)
        if keyframe.compression == 1 and keyframe.bitspersample == 8 * self.dtype.itemsize:
            whole = whole and stored >= keyframe.nbytes
        name = str(self._path) if self._places.size == 1 else f"{self._path}, page {place + 1}"
        if not whole:
            raise InputError(f"{name}: is truncated: copy it again")
        check_density(name, self.shape[-2:], keyframe.nbytes, stored)


@contextmanager
def open_tiff(
    path: Path, channel: int | None = None, alone: bool = False, axes: Axes | None = None
) -> Iterator[Planes]:
    """Opens a TIFF of any number of images.

    Args:
        path: the file.
        channel: which of several channels or colours to take, from 0.
        alone: it is one point in time: a file of one image is that image, even where its metadata names the other files
            of a series; several are the planes of a volume, unless the metadata say that they are points in time.
        axes: what its images are, whatever the metadata say.

    Raises:
        InputError: if it is no TIFF, or cut off; if it holds other images than its metadata say, or such that are not
            in an order of time; and all that `Planes` refuses, also while it is open.
    """
    with ExitStack() as stack:
        with explained(path):
            planes = Planes(path, stack.enter_context(tifffile.TiffFile(regular(path))), channel, alone, axes)
        yield planes


def check_density(name: str, shape: tuple[int, ...], size: int, stored: int) -> None:
    """Raises InputError for an image that takes far more memory than its file can hold, before the memory is taken.

    Args:
        name: what to call it.
        shape: height and width.
        size: bytes in memory.
        stored: bytes in the file.
    """
    if size > max(_LARGE, _DENSEST * stored):
        height, width = shape
        raise InputError(f"{name}: claims {height}x{width} pixels in {stored} bytes: is damaged, copy it again")


def regular(path: Path) -> Path:
    """Returns the path of a file, and raises InputError for a pipe or device, on which reading may wait for ever."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path}: is no regular file, but a pipe or device: give the path of a file")
    return path


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Says in one line what is wrong with a file."""
    with quiet_tifffile():
        try:
            yield
        except InputError:
            raise
        except FileNotFoundError as error:
            raise InputError(f"{error.filename or path}: there is no such file: check the name") from None
        except (IsADirectoryError, PermissionError) as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}): make it a readable image file") from None
        except Exception as error:  # damaged headers make it stumble in many ways, and each codec has its own errors
            reason = one_line(error)[:80]
            raise InputError(f"{path}: is truncated or not a readable image ({reason}): copy it again") from None


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


def _keyframe(page: Page) -> tifffile.TiffPage:
    """The page that describes this one: in a series all are alike, and tifffile reads one description."""
    assert page.keyframe is not None
    return page.keyframe


def _decoded(page: Page) -> np.ndarray:
    handle = page.parent.filehandle
    if not handle.closed:
        return page.asarray(maxworkers=1)
    handle.open()  # another file of a series, which tifffile has closed
    try:
        return page.asarray(maxworkers=1)
    finally:
        handle.close()


def _other_count(path: Path, described: int, held: int) -> str:
    return (
        f"{path}: its metadata speak of {described} images, but it holds {held}: if it was cut off, copy it again, "
        "else save it again, with all parts of a series side by side"
    )
