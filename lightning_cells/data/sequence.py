"""One video of images or volumes: normalised frames and merged truth, decoded once and then memory-mapped."""

import hashlib
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lightning_cells.data.cache import content_digests, entry, make_room, open_array, opened, stamp, touch
from lightning_cells.data.ctc import SequenceFiles, Truth, find_sequence, merge_identities, merge_planes
from lightning_cells.data.decode import ARRAYS, FORMAT, decode, roles
from lightning_cells.data.image_files import read_frame, read_mask, read_planes
from lightning_cells.data.intensity import Normalisation, prepare
from lightning_cells.data.tracks import Lineage, Track, clip_lineage
from lightning_cells.data.voxels import CUBE, Order, Voxel
from lightning_cells.errors import InputError
from lightning_cells.paths import cache_dir, cache_limit

_NO_ENTRIES = ("digests", "embeddings")  # in the folder of the cache


class Stored(NamedTuple):
    """Where a sequence lies in the cache: an array of ``shape`` from pixel ``start`` on of each flat file.

    With a ``plane`` it is that plane of each volume of the array.
    """

    folder: Path
    start: int
    shape: tuple[int, ...]
    plane: int | None = None


@dataclass(frozen=True, eq=False)
class Sequence:
    """One video, or a range of its frames. Arrays are read-only views of memory-mapped files.

    It travels to a worker process as file names: the arrays are mapped again there.

    Attributes:
        name: folder of the video, or stem of the still image.
        frames: (T, H, W), or (T, Z, H, W) of volumes, float16, normalised, at the scale asked for.
        labels: int32 of the same shape, at the same scale, or None without any truth: > 0 id of a segmented cell, 0
            background, -1 unknown, <= -2 marker of the cell ``-1 - value``.
        classes: int8 semantic classes, -1 unknown, or None.
        numbers: numbers of the frames on disk.
        annotated: (T,) bool: the frame has segmented cells, known background, or known classes.
        lineage: tracks within these frames; cells that no track knows are not in it.
        size: height and width on disk; of volumes first the number of planes.
        files: the files it was made of.
        fingerprint: digest of the contents of all files, the same for any range of frames.
        stored: where the arrays lie; None for arrays in memory.
        annotated_planes: (T, Z) bool, `annotated` for each plane of volumes; None of images.
        voxel: sides of a voxel of volumes.
        order: what a recurrent network goes through in volumes.
    """

    name: str
    frames: np.ndarray = field(repr=False)
    labels: np.ndarray | None = field(repr=False)
    classes: np.ndarray | None = field(repr=False)
    numbers: tuple[int, ...]
    annotated: np.ndarray = field(repr=False)
    lineage: Lineage = field(repr=False)
    size: tuple[int, ...]
    files: SequenceFiles = field(repr=False)
    fingerprint: str
    stored: Stored | None = field(default=None, repr=False)
    annotated_planes: np.ndarray | None = field(default=None, repr=False)
    voxel: Voxel = CUBE
    order: Order = "time"

    def __len__(self) -> int:
        return len(self.numbers)

    def frame(self, index: int) -> np.ndarray:
        """Reads one frame as it is on disk, uint8 or uint16 of the original size; see `read_frame`."""
        return read_frame(self.files.frames[self.numbers[index]], channel=self.files.channel)

    def truth(self, index: int) -> tuple[np.ndarray | dict[int, np.ndarray] | None, np.ndarray | None]:
        """Reads the masks of segmented cells and of markers of one frame, as they are on disk.

        Args:
            index: position in this sequence, 0 to ``len(self) - 1``.

        Returns:
            Two uint16 arrays of the original size, each None where there is no file; where single planes of a volume
            are segmented, the (H, W) of these by their numbers in place of the first.
        """
        number = self.numbers[index]
        seg, tra = self.files.seg.get(number), self.files.tra.get(number)
        planes = read_planes(self.files.planes.get(number, {}), self.size)
        return planes or (None if seg is None else read_mask(seg)), (None if tra is None else read_mask(tra))

    def merged_truth(self, index: int) -> np.ndarray | None:
        """Merges both masks of one frame, at original size; see `merge_identities`. None without any."""
        seg, tra = self.truth(index)
        if isinstance(seg, dict):
            return merge_planes(np.zeros(self.size, np.uint16) if tra is None else tra, seg)
        return None if seg is None and tra is None else merge_identities(tra, seg)

    def class_truth(self, index: int) -> np.ndarray | None:
        """Reads the semantic classes of one frame, uint16 as they are on disk; None where there is no file."""
        path = self.files.classes.get(self.numbers[index])
        return None if path is None else read_mask(path)

    def select(self, start: int, stop: int) -> "Sequence":
        """Returns the frames with ``start <= number < stop``, without copying; tracks are clipped to them.

        Raises:
            InputError: if there is no such frame.
        """
        inside = [i for i, number in enumerate(self.numbers) if start <= number < stop]
        if not inside:
            first, last = self.numbers[0], self.numbers[-1]
            raise InputError(f"{self.name}: no frame in [{start}:{stop}]: its frames are {first} to {last}")
        part = slice(inside[0], inside[-1] + 1)
        stored = self.stored
        if stored is not None:
            _, *size = stored.shape
            stored = stored._replace(start=stored.start + inside[0] * math.prod(size), shape=(len(inside), *size))
        return replace(
            self,
            frames=self.frames[part],
            labels=None if self.labels is None else self.labels[part],
            classes=None if self.classes is None else self.classes[part],
            numbers=self.numbers[part],
            annotated=self.annotated[part],
            lineage=clip_lineage(self.lineage, start, stop),
            stored=stored,
            annotated_planes=None if self.annotated_planes is None else self.annotated_planes[part],
        )

    def planes(self) -> list["Sequence"]:
        """Returns the planes of volumes as 2-D videos to learn from, without copying; of images itself.

        In the order of ``time`` each plane is a video; in that of ``z`` each volume is one, of its planes.
        Their truth on disk is that of the volumes.
        """
        if self.annotated_planes is None:
            return [self]
        if self.order == "time":
            return [self._part((slice(None), plane), self.numbers, plane=plane) for plane in range(self.size[0])]
        return [self._part((index,), tuple(range(self.size[0])), index=index) for index in range(len(self))]

    def _part(self, which: tuple, numbers: tuple[int, ...], plane: int | None = None, index: int = 0) -> "Sequence":
        """One plane of all volumes, or all planes of one."""
        assert self.annotated_planes is not None
        stored = self.stored
        if stored is not None and plane is not None:
            stored = stored._replace(plane=plane)
        elif stored is not None:
            size = stored.shape[1:]
            stored = stored._replace(start=stored.start + index * math.prod(size), shape=size)
        return replace(
            self,
            frames=self.frames[which],
            labels=None if self.labels is None else self.labels[which],
            classes=None if self.classes is None else self.classes[which],
            numbers=numbers,
            annotated=self.annotated_planes[which],
            lineage={} if plane is None else self.lineage,
            size=self.size[1:],
            stored=stored,
            annotated_planes=None,
        )

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        for name in ("frames", "labels", "classes"):
            if _is_stored(state[name], self.stored, name):
                state[name] = _Mapped(name)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            if isinstance(value, _Mapped):
                state[name] = _view(state["stored"], name)
        self.__dict__.update(state)


class _Mapped(NamedTuple):
    """Stands for a memory-mapped array while a sequence is pickled."""

    name: str


def _is_stored(array: np.ndarray | None, stored: Stored | None, name: str) -> bool:
    """Whether an array is just what `_view` gives, not a copy, another part, or one put in its place."""
    if array is None or stored is None:
        return False
    try:
        view = _view(stored, name)
    except InputError:
        return False
    return array.__array_interface__ == view.__array_interface__


def _view(stored: Stored, name: str) -> np.ndarray:
    stop = stored.start + math.prod(stored.shape)
    array = open_array(stored.folder / f"{name}.bin", ARRAYS[name])[stored.start : stop].reshape(stored.shape)
    return array if stored.plane is None else array[:, stored.plane]


def open_sequence(
    root: Path,
    name: str,
    normalisation: Normalisation,
    scale: float = 1.0,
    truth: Truth = "gold",
    cache: Path | None = None,
    smoothing: float = 0.0,
    channel: int | None = None,
) -> Sequence:
    """Opens one video of a Cell Tracking Challenge data set; the first time it is decoded into the cache.

    Args:
        root: folder of the data set.
        name: video, such as "01".
        normalisation: how each frame is normalised, see `normalise`.
        scale: factor by which frames and masks are resampled.
        truth: whether segmented cells come from ``NN_GT`` or ``NN_ST``.
        cache: folder of the cache; None takes `paths.cache_dir`.
        smoothing: standard deviation by which each frame is smoothed before, see `prepare`.
        channel: which of several channels or colours of the frames to take, from 0.

    Raises:
        InputError: for missing, broken or contradictory files; the message names one.
    """
    files = replace(find_sequence(Path(root), name, truth), channel=channel)
    return open_files([files], normalisation, scale, cache, smoothing)[0]


def open_files(
    files: list[SequenceFiles],
    normalisation: Normalisation,
    scale: float = 1.0,
    cache: Path | None = None,
    smoothing: float = 0.0,
) -> list[Sequence]:
    """Opens videos or still images that share one cache entry and a channel; the rest as `open_sequence`."""
    prepare(np.zeros((1, 1), np.uint8), normalisation, scale, smoothing)  # refuses before anything is read
    cache = cache or cache_dir()
    groups = [list(roles(item)) for item in files]
    paths = [path for group in groups for _, path in group]
    before = stamp(paths)
    digests = content_digests(groups, cache / "digests")
    joint = hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest()
    smoothed = f"-{float(smoothing)!r}" if smoothing else ""
    chosen = "" if files[0].channel is None else f"-channel{files[0].channel}"
    folder = (cache / f"{joint}-{normalisation}-{float(scale)!r}{smoothed}{chosen}-v{FORMAT}").absolute()

    def build(temporary: Path) -> list[dict[str, Any]]:
        described = decode(temporary, files, normalisation, scale, smoothing)
        if stamp(paths) != before:
            raise InputError(f"{paths[0].parent}: its files changed while they were read: try again")
        return described

    new = not folder.exists()
    described = entry(folder, build)
    touch(folder)
    if new:
        make_room(cache, cache_limit(), {*opened(), folder, *(cache / name for name in _NO_ENTRIES)})
    return [_sequence(folder, *item) for item in zip(files, described, digests, strict=True)]


def _sequence(folder: Path, files: SequenceFiles, described: dict[str, Any], fingerprint: str) -> Sequence:
    stored = Stored(folder, described["start"], tuple(described["shape"]))
    planes, voxel = described.get("planes"), described.get("voxel")
    lineage = {row[0]: Track(*row) for row in described["lineage"]}
    return Sequence(
        name=files.name,
        frames=_view(stored, "frames"),
        labels=_view(stored, "labels") if described["labels"] else None,
        classes=_view(stored, "classes") if described["classes"] else None,
        numbers=tuple(files.frames),
        annotated=np.array(described["annotated"], bool),
        lineage=lineage,
        size=tuple(described["size"]),
        files=files,
        fingerprint=fingerprint,
        stored=stored,
        annotated_planes=None if planes is None else np.array(planes, bool),
        voxel=CUBE if voxel is None else tuple(voxel),
    )
