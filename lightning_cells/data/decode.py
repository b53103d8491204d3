"""Decodes videos and their truth, frame by frame, into the flat arrays of a cache entry."""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lightning_cells.data.ctc import SequenceFiles, merge_identities, merge_planes
from lightning_cells.data.image_files import read_frame, read_mask, read_planes
from lightning_cells.data.intensity import Normalisation, prepare, rescale_labels
from lightning_cells.data.tiff import open_tiff
from lightning_cells.data.tracks import Lineage, clip_lineage, read_tracks
from lightning_cells.data.voxels import Voxel
from lightning_cells.errors import InputError
from lightning_cells.progress import Progress

FORMAT = 2
"""Version of what `decode` writes; a cache entry of another version is not used."""

ARRAYS: dict[str, np.dtype] = {
    "frames": np.dtype(np.float16),
    "labels": np.dtype(np.int32),
    "classes": np.dtype(np.int8),
}
"""The arrays of a cache entry; ``frames.bin`` and so on hold nothing but their numbers."""


def roles(files: SequenceFiles) -> Iterator[tuple[str, Path]]:
    """All files of a video, each with what it stands for."""
    for kind in ("frames", "seg", "tra", "classes"):
        for number, path in getattr(files, kind).items():
            yield f"{kind} {number}", path
    for number, planes in files.planes.items():
        for plane, path in planes.items():
            yield f"plane {number} {plane}", path
    if files.tracks is not None:
        yield "tracks", files.tracks


def decode(
    folder: Path, items: list[SequenceFiles], normalisation: Normalisation, scale: float, smoothing: float = 0.0
) -> list[dict[str, Any]]:
    """Writes the arrays of all videos, one after another, with one frame in memory at a time.

    Args:
        folder: where ``frames.bin`` and, if any video has such truth, ``labels.bin`` and ``classes.bin`` go.
        items: the videos.
        normalisation: as `prepare`.
        scale: as `prepare`.
        smoothing: as `prepare`.

    Returns:
        For each video: first pixel ("start") and "shape" of its arrays, "size" on disk, whether it has
        "labels" and "classes", which frames are "annotated", and the rows of its "lineage"; of volumes which of their
        "planes" are annotated, and the sides of a "voxel", if the first one tells.

    Raises:
        InputError: for a broken file, or one that contradicts the others.
    """
    has_labels = [bool(item.seg or item.tra or item.planes) for item in items]
    has_classes = [bool(item.classes) for item in items]
    described: list[dict[str, Any]] = []
    start, total = 0, sum(len(item.frames) for item in items)
    with ExitStack() as stack:
        out: dict[str, BinaryIO] = {
            name: stack.enter_context((folder / f"{name}.bin").open("wb"))
            for name, wanted in (("frames", True), ("labels", any(has_labels)), ("classes", any(has_classes)))
            if wanted
        }
        bar = stack.enter_context(Progress("decoding", total, shown=total > 20))
        for item, labelled, classified in zip(items, has_labels, has_classes, strict=True):
            reader = _Reader(item)
            known: list[np.ndarray] = []  # of each frame, or of each plane of it
            shape: tuple[int, ...] = (0, 0)
            for number in item.frames:
                frame = prepare(reader.frame(number), normalisation, scale, smoothing)
                shape = frame.shape
                pieces = {"frames": frame}
                if "labels" in out:
                    pieces["labels"] = rescale_labels(reader.labels(number), scale)
                if "classes" in out:
                    pieces["classes"] = rescale_labels(reader.classes(number), scale)
                for name, piece in pieces.items():
                    out[name].write(np.ascontiguousarray(piece, ARRAYS[name]).data)
                told = [(pieces[k] >= 0).any((-2, -1)) for k in ("labels", "classes") if k in pieces]
                known.append(np.any(told, 0) if told else np.zeros(shape[:-2], bool))
                bar.update()
            described.append(
                {
                    "start": start,
                    "shape": [len(item.frames), *shape],
                    "size": reader.size,
                    "labels": labelled,
                    "classes": classified,
                    "annotated": [bool(one.any()) for one in known],
                    "lineage": list(reader.lineage.values()),
                    **({"planes": np.array(known).tolist(), "voxel": reader.voxel} if len(shape) > 2 else {}),
                }
            )
            start += len(item.frames) * math.prod(shape)
    return described


class _Reader:
    """Reads the frames of one video in order, and checks that its files agree."""

    def __init__(self, files: SequenceFiles) -> None:
        self.files = files
        self.size: tuple[int, ...] | None = None
        self.voxel: Voxel | None = None
        self._rows: Lineage = {} if files.tracks is None else read_tracks(files.tracks)
        numbers = list(files.frames)
        self.lineage = clip_lineage(self._rows, numbers[0], numbers[-1] + 1)
        self._fresh = max(self._rows, default=0) + 1

    def frame(self, number: int) -> np.ndarray:
        """Pixels as on disk; all of one size."""
        path = self.files.frames[number]
        frame = read_frame(path, self.size, self.files.channel)
        if self.size is None and frame.ndim > 2:
            with open_tiff(path, self.files.channel, alone=True) as planes:
                self.voxel = planes.voxel
        self.size = frame.shape
        return frame

    def labels(self, number: int) -> np.ndarray:
        """Merged truth of one frame, with ids of cells beyond the tracks that occur in this frame only."""
        tra, seg = self._mask(self.files.tra, number), self._mask(self.files.seg, number)
        planes = read_planes(self.files.planes.get(number, {}), self.size)
        if tra is not None:
            self._check(tra, number)
        assert self.size is not None
        if seg is None and tra is None and not planes:
            return np.full(self.size, -1, np.int32)
        if tra is None and (planes or len(self.files.frames) > 1):
            # without markers nothing tells which cell is which in another frame
            tra = np.zeros(self.size, np.uint16)
        if planes:
            assert tra is not None
            labels = merge_planes(tra, planes, self._fresh)
        else:
            labels = merge_identities(tra, seg, self._fresh)
        self._fresh = max(self._fresh, int(labels.max()) + 1)
        return labels

    def classes(self, number: int) -> np.ndarray:
        """Semantic classes of one frame."""
        classes = self._mask(self.files.classes, number)
        if classes is None:
            assert self.size is not None
            return np.full(self.size, -1, np.int8)
        if classes.max() > 126:
            path = self.files.classes[number]
            raise InputError(f"{path}: holds class {classes.max()}: number the classes 0, 1, 2, ... up to 126")
        return classes.astype(np.int8)

    def _mask(self, paths: dict[int, Path], number: int) -> np.ndarray | None:
        if number not in paths:
            return None
        return read_mask(paths[number], self.size)

    def _check(self, tra: np.ndarray, number: int) -> None:
        """Each marker needs a row that covers the frame."""
        for label in np.flatnonzero(np.bincount(tra.ravel())).tolist():
            track = self._rows.get(label)
            if label and (track is None or not track.begin <= number <= track.end):
                lack = "has no row" if track is None else f"lives in frames {track.begin} to {track.end} only"
                raise InputError(
                    f"{self.files.tra[number]}: holds label {label}, which {lack} in {self.files.tracks}: "
                    "correct the mask or the row"
                )
