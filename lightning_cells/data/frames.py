"""Anyone's frames: a folder of images under any names, one file of a whole video, or an array."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lightning_cells.data.ctc import frame_paths
from lightning_cells.data.frame_names import frames_in_order
from lightning_cells.data.image_files import is_frame, read_frame
from lightning_cells.data.microscope_files import MicroscopeVideo, is_microscope_file
from lightning_cells.data.tiff import Planes, open_tiff
from lightning_cells.errors import InputError

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
def open_frames(path: Path | np.ndarray, pattern: str | None = None, channel: int | None = None) -> Iterator[Frames]:
    """Opens a folder of TIFFs, one file of a whole video, or an array.

    Args:
        path: the folder or file, or frames (T, H, W) of whole numbers from 0 to 65535. Files named t000.tif, t001.tif,
            ... keep their numbers; under other names frames are 0, 1, ... in the order of the number that tells them
            apart (img2 before img10), as are the images of a file, in the order of its time axis.
        pattern: which files of a folder are frames, see `frames_in_order`.
        channel: which of several channels or colours to take, from 0.

    Raises:
        InputError: if there is nothing to read, it is of a kind that is not a grey two-dimensional video, frames are
            missing, or their order is not known.
    """
    if not isinstance(path, Path):
        _only(pattern, channel, "an array", "a folder of frames")
        yield _Array(path)
    elif is_microscope_file(path):
        _only(pattern, None, f"{path}", "a folder of frames")
        yield _Stack(MicroscopeVideo(path, channel), path, _files(path))
    elif path.is_dir():
        yield _Folder(path, pattern, channel)
    elif path.exists():
        _only(pattern, None, f"{path}", "a folder of frames")
        with open_tiff(path, channel) as planes:
            if planes.dtype not in (np.uint8, np.uint16):
                raise InputError(f"{path}: has {planes.dtype} pixels: save frames as 8- or 16-bit unsigned integers")
            yield _Stack(planes, path, planes.files)
    else:
        raise InputError(f"{path}: there is no such folder or file: check the path")


def _only(pattern: str | None, channel: int | None, here: str, where: str) -> None:
    """Raises InputError for an option that says nothing here."""
    for name, value in (("--pattern", pattern), ("--channel", channel)):
        if value is not None:
            raise InputError(f"{name} {value}: is for {where}, not for {here}: leave it out")


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(filter(Path.is_file, path.rglob("*")))


class _Folder(Frames):
    def __init__(self, folder: Path, pattern: str | None, channel: int | None) -> None:
        if pattern is None and _are_numbered(list(filter(is_frame, folder.iterdir()))):
            self.files = list(frame_paths(folder).values())
        else:
            self.files = frames_in_order(folder, pattern)
        self._channel = channel
        self.numbers, self.digits = range(len(self.files)), _digits(len(self.files))
        if _are_numbered(self.files):
            first, last = (int(self.files[index].stem[1:]) for index in (0, -1))
            if last - first + 1 == len(self.files):
                self.numbers, self.digits = range(first, last + 1), len(self.files[0].stem) - 1
        self.size, other = (self._shape(index) for index in (0, -1))
        if other != self.size:  # told before one that claims too much takes memory
            here, there = ("x".join(map(str, shape)) for shape in (other, self.size))
            raise InputError(
                f"{self.files[-1]}: is {here} pixels, {self.files[0].name} is {there}: give all frames one size"
            )

    def _shape(self, index: int) -> tuple[int, int]:
        with open_tiff(self.files[index], self._channel, alone=True) as planes:
            return _image(self.files[index], planes.shape)

    def _pixels(self, index: int) -> tuple[np.ndarray, str]:
        return read_frame(self.files[index], self.size, self._channel), str(self.files[index])


class _Stack(Frames):
    def __init__(self, images: Planes | MicroscopeVideo, path: Path, files: list[Path]) -> None:
        self.files = files
        self._images, self._path = images, path
        self.numbers, self.digits = range(images.count), _digits(images.count)
        self.size = _image(path, images.shape)

    def _pixels(self, index: int) -> tuple[np.ndarray, str]:
        return self._images.read(index), f"{self._path}, page {index + 1}"


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


def _image(path: Path, shape: tuple[int, ...]) -> tuple[int, int]:
    """Raises InputError for the size of a volume."""
    if len(shape) > 2:
        raise InputError(f"{path}: has {shape[0]} planes in depth (axis Z): save one plane, or a projection of them")
    height, width = shape
    return height, width


def _are_numbered(files: list[Path]) -> bool:
    """Whether there are files, named t000.tif, t001.tif, ..."""
    return bool(files) and all(re.fullmatch(r"t\d{3,}", path.stem, re.IGNORECASE) for path in files)


def _digits(frames: int) -> int:
    return max(3, len(str(frames - 1)))
