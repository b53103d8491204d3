"""The tracked cells of a video, in memory: label images, tracks, and a table of cells."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from lightning_cells.data.ctc import frame_paths, track_table
from lightning_cells.data.frames import open_frames
from lightning_cells.data.image_files import read_mask
from lightning_cells.data.result_folder import ResultWriter
from lightning_cells.data.tracks import Lineage, read_tracks
from lightning_cells.errors import InputError
from lightning_cells.visualization.page import jpeg
from lightning_cells.visualization.video import track_picture

_TRACKS = ["track", "first", "last", "parent"]
_AXES = ["z", "y", "x"]


@dataclass(frozen=True, eq=False)
class Result:
    """Tracked cells; in a notebook it shows itself as a sheet of frames.

    Attributes:
        labels: int32 (T, H, W), or (T, Z, H, W) of volumes: 0 background, else the number of the cell's track.
        lineage: the tracks by number, with their first and last frame and their mother.
        first_frame: number of the first frame, as in the names of its files.
        frames: the video that was tracked, an array or its place on disk; None if it is not at hand.
        pattern: which files there are its frames, see `open_frames`.
        channel: which channel of it was tracked.
        axes: what the images of its files are, see `open_frames`.
    """

    labels: np.ndarray
    lineage: Lineage
    first_frame: int = 0
    frames: np.ndarray | Path | None = None
    pattern: str | None = None
    channel: int | None = None
    axes: str | None = None

    @classmethod
    def read(
        cls,
        folder: str | Path,
        frames: np.ndarray | str | Path | None = None,
        pattern: str | None = None,
        channel: int | None = None,
        axes: str | None = None,
    ) -> "Result":
        """Reads a result folder, with ``maskNNN.tif`` and ``res_track.txt``.

        Args:
            folder: by custom ``01_RES``.
            frames: the video that was tracked, for pictures and intensities.
            pattern: which files there are its frames, see `open_frames`.
            channel: which channel of it was tracked.
            axes: what the images of its files are, see `open_frames`.

        Raises:
            InputError: if a file is missing or not readable, or masks differ in size.
        """
        folder = Path(folder)
        masks = frame_paths(folder, "mask")
        labels = [read_mask(path) for path in masks.values()]
        for path, mask in zip(masks.values(), labels, strict=True):
            if mask.shape != labels[0].shape:
                raise InputError(f"{path}: is of another size than the first mask: give masks of one size")
        lineage = read_tracks(track_table(folder, "res_track.txt"))
        source = Path(frames) if isinstance(frames, str) else frames
        return cls(np.stack(labels).astype(np.int32), lineage, min(masks), source, pattern, channel, axes)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.labels.shape[1:]))
        return f"Result({len(self)} frames of {size}, {len(self.lineage)} tracks)"

    def images(self) -> list:
        """Reads the frames, (H, W) or (Z, H, W) arrays; None for each where they are not at hand.

        Raises:
            InputError: if they cannot be read, or are not those that were tracked.
        """
        if self.frames is None:
            return [None] * len(self)
        with open_frames(self.frames, self.pattern, self.channel, self.axes) as frames:
            if (len(frames), *frames.size) != self.labels.shape:
                there = f"{len(frames)} of {' x '.join(map(str, frames.size))}"
                raise InputError(
                    f"frames: are {there}, which {self} is not of: give the video that was tracked, and --axes if it "
                    "needs them"
                )
            return [frames.read(index) for index in range(len(frames))]

    @cached_property
    def tracks(self) -> pd.DataFrame:
        """A row for each track: ``track``, ``first`` and ``last`` frame, ``parent`` (0 for none)."""
        return pd.DataFrame(sorted(self.lineage.values()), columns=_TRACKS, dtype=np.int64)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """A row for each cell in each frame: ``frame``, ``track``, ``y``, ``x``, ``area``, ``mean_intensity``.

        Of volumes ``z`` stands before ``y``. Centres are in pixels from the first pixel's centre, areas in pixels, or
        voxels; the intensity, of the frame as it is on disk, is NaN where the frames are not at hand.
        """
        tables = [_measured(labels, frame) for labels, frame in zip(self.labels, self.images(), strict=True)]
        numbered = [table.assign(frame=self.first_frame + index) for index, table in enumerate(tables)]
        axes = _AXES[1 - self.labels.ndim :]
        return pd.concat(numbered, ignore_index=True)[["frame", "track", *axes, "area", "mean_intensity"]]

    def picture(self, shown: int = 8) -> np.ndarray:
        """Draws evenly spaced frames, cells in the colours of their tracks: uint8 (H, W, 3).

        Args:
            shown: most frames to show.
        """
        frames = [np.zeros(self.labels.shape[1:], np.uint8) if image is None else image for image in self.images()]
        numbers = range(self.first_frame, self.first_frame + len(self))
        return track_picture(frames, list(self.labels), numbers, self.lineage, shown)

    def _repr_jpeg_(self) -> bytes:
        return jpeg(self.picture())

    def save(self, folder: str | Path) -> Path:
        """Writes ``maskNNN.tif`` and ``res_track.txt``; an earlier result there is replaced.

        Raises:
            InputError: if the folder holds anything but a result.
        """
        digits = max(3, len(str(self.first_frame + len(self) - 1)))
        with ResultWriter(Path(folder), digits) as writer:
            for number, labels in enumerate(self.labels, self.first_frame):
                writer.write(number, labels)
            writer.finish(self.lineage)
        return Path(folder)


def _measured(labels: np.ndarray, image: np.ndarray | None) -> pd.DataFrame:
    """Centre, area and mean intensity of the cells of a frame."""
    places = np.nonzero(labels)
    inside = labels[places]
    area = np.bincount(inside)
    track = np.flatnonzero(area)
    values = dict(zip(_AXES[-len(places) :], places, strict=True))
    values["mean_intensity"] = np.full(len(inside), np.nan) if image is None else image[places]
    means = {name: np.bincount(inside, these)[track] / area[track] for name, these in values.items()}
    return pd.DataFrame({"track": track, "area": area[track], **means})
