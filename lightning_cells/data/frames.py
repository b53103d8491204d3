"""Anyone's frames: a folder of images or volumes under any names, one file of a whole video, or an array."""

import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Lock

import numpy as np
from tqdm import tqdm

from lightning_cells.data.ctc import frame_paths
from lightning_cells.data.frame_names import frames_in_order
from lightning_cells.data.image_files import is_frame, read_frame
from lightning_cells.data.microscope_files import MicroscopeVideo, is_microscope_file
from lightning_cells.data.tiff import Planes, open_tiff
from lightning_cells.data.voxels import CUBE, Axes, Voxel, check_axes, check_voxel
from lightning_cells.errors import InputError

_CHANNELS = (1, 3, 4)
_LARGEST = np.iinfo(np.uint16).max


class Frames(ABC):
    """A video of which one frame is in memory at a time.

    Attributes:
        files: the files that it consists of.
        numbers: the numbers of its frames, consecutive.
        digits: digits of the numbers in file names.
        size: height and width of the first frame; of volumes first the number of planes.
        told: whether the files or the user say which images are points in time and which are planes; of volumes alone.
        voxel: what the files say of it; None where they do not, and of images.
    """

    files: list[Path]
    numbers: range
    digits: int
    size: tuple[int, ...]
    told: bool = True
    voxel: Voxel | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, index: int) -> np.ndarray:
        """Reads frame `index`, 0 to ``len(self) - 1``: (H, W) or (Z, H, W), uint8 or uint16.

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
def open_frames(
    path: Path | np.ndarray, pattern: str | None = None, channel: int | None = None, axes: str | None = None
) -> Iterator[Frames]:
    """Opens a folder of TIFFs, one file of a whole video, or an array.

    Args:
        path: the folder or file, or frames (T, H, W) or (T, Z, H, W) of whole numbers from 0 to 65535. Files named
            t000.tif, t001.tif, ... keep their numbers; under other names frames are 0, 1, ... in the order of the
            number that tells them apart (img2 before img10), as are the images of a file, in the order of its time
            axis. A file of several images in a folder is a volume.
        pattern: which files of a folder are frames, see `frames_in_order`.
        channel: which of several channels or colours to take, from 0.
        axes: what the images of files, or the axes of an array, are, whatever the metadata say; see `Axes`.

    Raises:
        InputError: if there is nothing to read, it is of a kind that is no grey video of images or volumes, frames are
            missing, or their order is not known.
    """
    said = check_axes(axes)
    if not isinstance(path, Path):
        _only(pattern, channel, "an array", "a folder of frames")
        yield _Array(path, said)
    elif is_microscope_file(path):
        _only(pattern, None, f"{path}", "a folder of frames")
        if said is not None:
            raise InputError(f"--axes {said}: {path} names its axes itself: leave it out")
        yield _Stack(MicroscopeVideo(path, channel), path, _files(path))
    elif path.is_dir():
        yield _Folder(path, pattern, channel, said)
    elif path.exists():
        _only(pattern, None, f"{path}", "a folder of frames")
        with open_tiff(path, channel, axes=said) as planes:
            if planes.dtype not in (np.uint8, np.uint16):
                raise InputError(f"{path}: has {planes.dtype} pixels: save frames as 8- or 16-bit unsigned integers")
            yield _Stack(planes, path, planes.files)
    else:
        raise InputError(f"{path}: there is no such folder or file: check the path")


def voxel_of(frames: Frames, said: tuple[float, ...] | None, progress: bool = True) -> Voxel:
    """The sides of a voxel: as the user says, as the files say, or a cube's; tells what nobody says of volumes.

    Raises:
        InputError: for sides that cannot be, or of images.
    """
    voxel = check_voxel(said)
    if len(frames.size) == 2:
        if said is not None:
            raise InputError("--voxel: is for volumes, and the frames are images: leave it out, or see --axes")
        return CUBE
    if progress and (len(frames) == 1 or not frames.told):
        which = "frames are volumes" if len(frames) > 1 else "there is one volume"
        remedy = "" if len(frames) > 1 else "; --axes TYX if they are points in time"
        tqdm.write(f"{which} of {frames.size[0]} planes{remedy}", file=sys.stderr)
    if progress and voxel is None and frames.voxel is None:
        tqdm.write("nothing says how large voxels are: they are taken for cubes; give --voxel Z Y X", file=sys.stderr)
    return voxel or frames.voxel or CUBE


def _only(pattern: str | None, channel: int | None, here: str, where: str) -> None:
    """Raises InputError for an option that says nothing here."""
    for name, value in (("--pattern", pattern), ("--channel", channel)):
        if value is not None:
            raise InputError(f"{name} {value}: is for {where}, not for {here}: leave it out")


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(filter(Path.is_file, path.rglob("*")))


class _Folder(Frames):
    def __init__(self, folder: Path, pattern: str | None, channel: int | None, axes: Axes | None) -> None:
        if pattern is None and _are_numbered(list(filter(is_frame, folder.iterdir()))):
            self.files = list(frame_paths(folder).values())
        else:
            self.files = frames_in_order(folder, pattern)
        self._channel = channel
        self._axes: Axes | None = "ZYX" if axes == "TZYX" else axes  # time goes from file to file
        self.numbers, self.digits = range(len(self.files)), _digits(len(self.files))
        if _are_numbered(self.files):
            first, last = (int(self.files[index].stem[1:]) for index in (0, -1))
            if last - first + 1 == len(self.files):
                self.numbers, self.digits = range(first, last + 1), len(self.files[0].stem) - 1
        with self._opened(0) as planes:
            self.size, self.told, self.voxel = planes.shape, planes.told, planes.voxel
        if len(self.size) > 2 and not self.told and len(self.files) == 1:
            raise InputError(
                f"{self.files[0]}: is one file of {self.size[0]} images: give it itself as a video, or say by --axes "
                "ZYX that they are the planes of a volume"
            )
        if axes is not None and ("Z" in axes) != (len(self.size) > 2):
            raise _other_axes(str(folder), axes, self.size)
        with self._opened(-1) as planes:
            other = planes.shape
        if other != self.size:  # told before one that claims too much takes memory
            here, there = ("x".join(map(str, shape)) for shape in (other, self.size))
            raise InputError(
                f"{self.files[-1]}: is {here} pixels, {self.files[0].name} is {there}: give all frames one size"
            )

    def _opened(self, index: int) -> AbstractContextManager[Planes]:
        return open_tiff(self.files[index], self._channel, alone=True, axes=self._axes)

    def _pixels(self, index: int) -> tuple[np.ndarray, str]:
        return read_frame(self.files[index], self.size, self._channel, self._axes), str(self.files[index])


class _Stack(Frames):
    def __init__(self, images: Planes | MicroscopeVideo, path: Path, files: list[Path]) -> None:
        self.files = files
        self._images, self._path = images, path
        self._one = Lock()  # reads a file at a time
        self.numbers, self.digits = range(images.count), _digits(images.count)
        self.size, self.voxel = images.shape, images.voxel

    def _pixels(self, index: int) -> tuple[np.ndarray, str]:
        name = "page" if len(self.size) == 2 else "volume"
        with self._one:
            return self._images.read(index), f"{self._path}, {name} {index + 1}"


class _Array(Frames):
    def __init__(self, frames: np.ndarray, axes: Axes | None) -> None:
        self.files = []
        frames = np.asarray(frames)
        if axes is not None and len(axes) != frames.ndim:
            raise _other_axes("frames", axes, frames.shape)
        self._frames = check_frames(frames[None] if axes == "ZYX" else frames)
        self.numbers = range(len(self._frames))
        self.digits = _digits(len(self._frames))
        self.size = self._frames.shape[1:]

    def _pixels(self, index: int) -> tuple[np.ndarray, str]:
        return self._frames[index], f"frame {index}"


def _other_axes(name: str, axes: Axes, shape: tuple[int, ...]) -> InputError:
    return InputError(f"{name}: --axes {axes} does not describe {'x'.join(map(str, shape))}: give other axes, or none")


def check_frames(frames: np.ndarray) -> np.ndarray:
    """Returns frames, (T, H, W) or (T, Z, H, W) of numbers, as uint16; uint8 stays as it is.

    Raises:
        InputError: unless they are what an 8- or 16-bit grey camera could give.
    """
    shape = " x ".join(map(str, frames.shape))
    if frames.ndim not in (3, 4) or not np.issubdtype(frames.dtype, np.number):
        raise InputError(f"frames: are {shape} of {frames.dtype}: give numbers, all frames of one size, (T, H, W)")
    if frames.size == 0:
        raise InputError(f"frames: are empty ({shape}): give at least one frame, (T, H, W)")
    if frames.shape[-1] in _CHANNELS and min(frames.shape[-3:-1]) > max(_CHANNELS):
        kind = "one image" if frames.ndim == 3 else "images"
        raise InputError(f"frames: {shape} looks like {kind} with channels: give grey frames, (T, H, W)")
    if frames.ndim == 4 and frames.shape[1] == 1:
        raise InputError(f"frames: {shape} are volumes of one plane: give them as images, (T, H, W)")
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


def _are_numbered(files: list[Path]) -> bool:
    """Whether there are files, named t000.tif, t001.tif, ..."""
    return bool(files) and all(re.fullmatch(r"t\d{3,}", path.stem, re.IGNORECASE) for path in files)


def _digits(frames: int) -> int:
    return max(3, len(str(frames - 1)))
