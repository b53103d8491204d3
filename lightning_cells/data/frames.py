"""Anyone's frames: a folder of images under any names, one multi-page TIFF, or an array."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile

from lightning_cells.data.ctc import frame_paths
from lightning_cells.data.image_files import is_frame, quiet_tifffile, read_frame
from lightning_cells.errors import InputError, one_line

_CHANNELS = (1, 3, 4)
_LARGEST = np.iinfo(np.uint16).max


class Frames(ABC):
    """A video of which one frame is in memory at a time.

    Attributes:
        files: the files that it consists of.
        numbers: the numbers of its frames, consecutive.
        digits: digits of the numbers in file names.
        size: height and width of the first frame.
    """

    files: list[Path]
    numbers: range
    digits: int
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, index: int) -> np.ndarray:
        """Reads frame `index`, 0 to ``len(self) - 1``: (H, W) uint8 or uint16.

        Raises:
            InputError: if it cannot be read, is no grey 8- or 16-bit image, or is of another size than the first.
        """
        frame, name = self._pixels(index)
        if frame.shape != self.size:
            here, first = ("x".join(map(str, shape)) for shape in (frame.shape, self.size))
            raise InputError(f"{name}: is {here} pixels, the first frame is {first}: give all frames one size")
        return frame

    @abstractmethod
    def _pixels(self, index: int) -> tuple[np.ndarray, str]:
        """A frame of any size, and how to call it."""


@contextmanager
def open_frames(path: Path | np.ndarray) -> Iterator[Frames]:
    """Opens a folder of TIFFs, one TIFF of any number of pages, or an array.

    Args:
        path: the folder or file, or frames (T, H, W) of whole numbers from 0 to 65535. Files named t000.tif, t001.tif,
            ... keep their numbers; if any has another name, all are frames 0, 1, ... in natural order (img2 before
            img10), as are pages.

    Raises:
        InputError: if there is nothing to read, or it is of a kind that is not a grey two-dimensional video.
    """
    if not isinstance(path, Path):
        yield _Array(path)
    elif path.is_dir():
        yield _Folder(path)
    elif path.is_file():
        with quiet_tifffile():
            try:
                file = tifffile.TiffFile(path)
            except Exception:  # damaged headers make it stumble in many ways
                raise InputError(
                    f"{path}: is no readable TIFF: give a folder of TIFFs or one multi-page TIFF"
                ) from None
            with file:
                yield _Pages(path, file)
    else:
        raise InputError(f"{path}: there is no such folder or file: check the path")


class _Folder(Frames):
    def __init__(self, folder: Path) -> None:
        images = (path for path in folder.iterdir() if is_frame(path))
        self.files = sorted(images, key=lambda path: _natural(path.name))
        if not self.files:
            raise InputError(f"{folder}: holds no TIFF: give the folder of the frames, saved as .tif files")
        if all(re.fullmatch(r"t\d{3,}", path.stem, re.IGNORECASE) for path in self.files):
            numbered = frame_paths(folder)
            self.files = list(numbered.values())
            self.numbers = range(min(numbered), max(numbered) + 1)
            self.digits = len(self.files[0].stem) - 1
        else:
            self.numbers = range(len(self.files))
            self.digits = _digits(len(self.files))
        height, width = read_frame(self.files[0]).shape
        self.size = (height, width)

    def _pixels(self, index: int) -> tuple[np.ndarray, str]:
        return read_frame(self.files[index]), str(self.files[index])


class _Pages(Frames):
    def __init__(self, path: Path, file: tifffile.TiffFile) -> None:
        self.files = [path]
        self._file = file
        self._stack: np.ndarray | None = None
        try:
            series, pages = file.series, len(file.pages)
            first = series[0].keyframe
            axes = [axis for axis, n in zip(series[0].axes, series[0].shape, strict=True) if n > 1 and axis not in "YX"]
        except Exception:
            raise InputError(f"{path}: is truncated or no TIFF of images: copy it again") from None
        if first.samplesperpixel != 1 or "C" in axes or "S" in axes:
            raise InputError(
                f"{path}: has several colours or channels: save one grey channel, with time as the axis of its pages"
            )
        if len(series) > 1 or len(axes) > 1:
            shape = "x".join(map(str, series[0].shape)) if len(series) == 1 else f"{len(series)} sizes of pages"
            raise InputError(f"{path}: has {shape}: give pages of one size, one per frame")
        if first.dtype not in (np.uint8, np.uint16):
            raise InputError(f"{path}: has {first.dtype} pixels: save frames as 8- or 16-bit unsigned integers")
        if pages == 1 and axes:  # ImageJ describes only the first page of large stacks
            try:
                self._stack = tifffile.memmap(path, mode="r").squeeze()
            except (OSError, ValueError):
                raise InputError(f"{path}: is truncated or compressed as a whole: save it with plain pages") from None
        self.numbers = range(pages if self._stack is None else len(self._stack))
        self.digits = _digits(len(self.numbers))
        height, width = first.shape[-2:]
        self.size = (height, width)

    def _pixels(self, index: int) -> tuple[np.ndarray, str]:
        name = f"{self.files[0]}, page {index + 1}"
        if self._stack is not None:
            frame = np.array(self._stack[index])
            return frame.astype(frame.dtype.newbyteorder("="), copy=False), name
        page = self._file.pages[index]
        segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        try:
            # a short strip may decode to wrong pixels without any error
            if not segments or any(n <= 0 or start + n > self._file.filehandle.size for start, n in segments):
                raise ValueError("its pixels end early")
            frame = page.asarray()
        except Exception as error:  # each codec has an exception class of its own
            reason = one_line(error)[:80]
            raise InputError(f"{name}: is truncated or not readable ({reason}): copy the file again") from None
        if frame.ndim != 2 or frame.dtype not in (np.uint8, np.uint16):
            raise InputError(f"{name}: is no grey 8- or 16-bit image: save all pages alike")
        return frame.astype(frame.dtype.newbyteorder("="), copy=False), name


class _Array(Frames):
    def __init__(self, frames: np.ndarray) -> None:
        self.files = []
        self._frames = check_frames(np.asarray(frames))
        self.numbers = range(len(frames))
        self.digits = _digits(len(frames))
        height, width = self._frames.shape[1:]
        self.size = (height, width)

    def _pixels(self, index: int) -> tuple[np.ndarray, str]:
        return self._frames[index], f"frame {index}"


def check_frames(frames: np.ndarray) -> np.ndarray:
    """Returns frames, (T, H, W) of numbers, as uint16; uint8 stays as it is.

    Raises:
        InputError: unless they are what an 8- or 16-bit grey camera could give.
    """
    shape = " x ".join(map(str, frames.shape))
    if frames.ndim != 3 or not np.issubdtype(frames.dtype, np.number):
        raise InputError(f"frames: are {shape} of {frames.dtype}: give numbers, all frames of one size, (T, H, W)")
    if frames.size == 0:
        raise InputError(f"frames: are empty ({shape}): give at least one frame, (T, H, W)")
    if frames.shape[2] in _CHANNELS and min(frames.shape[:2]) > max(_CHANNELS):
        raise InputError(f"frames: {shape} looks like one image with channels: give grey frames, (T, H, W)")
    if frames.dtype in (np.uint8, np.uint16):
        return frames.astype(frames.dtype.newbyteorder("="), copy=False)
    if not np.isfinite(frames).all():
        raise InputError("frames: hold values that are not finite (NaN, null or infinite): give whole numbers")
    odd = frames[(frames < 0) | (frames > _LARGEST) | (frames != np.rint(frames))]
    if odd.size:
        raise InputError(
            f"frames: hold {odd[0]:g}: give whole numbers from 0 to {_LARGEST}, as the camera does, not normalised"
        )
    return frames.astype(np.uint16)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts numbers within names by their values."""
    parts = re.findall(r"\d+|\D+", name.lower())
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]


def _digits(frames: int) -> int:
    return max(3, len(str(frames - 1)))
