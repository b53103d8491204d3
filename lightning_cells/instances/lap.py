"""Linking by linear assignment over a whole video, with the package laptrack."""

import zlib
from collections.abc import Iterator
from importlib import import_module
from itertools import chain, pairwise
from typing import Any

import numpy as np

from lightning_cells.data.image_files import MAX_LABEL
from lightning_cells.data.tracks import Lineage, Track
from lightning_cells.data.voxels import CUBE, Voxel
from lightning_cells.errors import InputError


class HeldFrames:
    """Frames of cells, compressed but for the last few that were used.

    Attributes:
        areas: of each frame the pixels, or voxels, of its cells, (K,).
        centroids: of each frame the rows and columns of their middles, (K, 2); of volumes (K, 3), the planes first.
    """

    _OPEN = 8  # frames that stay uncompressed

    def __init__(self) -> None:
        self.areas: list[np.ndarray] = []
        self.centroids: list[np.ndarray] = []
        self.shape: tuple[int, ...] | None = None
        self._held: list[bytes] = []
        self._open: dict[int, np.ndarray] = {}  # the latest used last
        self._changed: set[int] = set()

    def __len__(self) -> int:
        return len(self._held)

    def append(self, labels: np.ndarray) -> None:
        """Adds a frame, (H, W) or (Z, H, W) int32, 0 background, cells positive: they become 0..K-1 by rising label."""
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        present = sizes > 0
        number = np.where(present, np.cumsum(present), 0).astype(np.int32)
        self.areas.append(sizes[present])
        places = np.nonzero(labels)
        found = number[labels[places]] - 1
        sums = [np.bincount(found, place, int(present.sum())) for place in places]
        self.centroids.append(np.stack(sums, 1) / sizes[present][:, None])
        self.shape = labels.shape
        self._held.append(_compressed(number[labels]))

    def labels(self, frame: int) -> np.ndarray:
        """Int32 of a frame, not to be changed: 0 background, cell k as k + 1."""
        if frame not in self._open:
            while len(self._open) >= self._OPEN:
                self._close(next(iter(self._open)))
            pixels = np.frombuffer(zlib.decompress(self._held[frame]), np.int32).reshape(self.shape or (0, 0))
            self._open[frame] = pixels.copy()
        self._open[frame] = self._open.pop(frame)
        return self._open[frame]

    def draw(self, frame: int, pixels: np.ndarray) -> int:
        """Adds a cell to a frame and returns its number; (N, 2) or (N, 3) places in the background, at least one."""
        number = len(self.areas[frame])
        self.labels(frame)[tuple(pixels.T)] = number + 1
        self.areas[frame] = np.append(self.areas[frame], len(pixels))
        self.centroids[frame] = np.vstack([self.centroids[frame], pixels.mean(0)])
        self._changed.add(frame)
        return number

    def _close(self, frame: int) -> None:
        labels = self._open.pop(frame)
        if frame in self._changed:
            self._held[frame] = _compressed(labels)
            self._changed.remove(frame)


def _compressed(labels: np.ndarray) -> bytes:
    return zlib.compress(labels.tobytes(), 1)


Node = tuple[int, int]  # a cell: number of the frame, counted from 0, and of the cell in it, from 0

_VISIBLE = 0.5  # share of a missing cell that other cells must leave free, or it is not drawn


class LapLinker:
    """Link the cells of a video by the assignment with the smallest sum of squared distances of their centroids.

    Cells of consecutive frames are assigned to one another first. Then ends of the tracks so found are assigned to
    beginnings of others, which closes gaps, and beginnings to tracks that go on beside them, which makes divisions
    (Jaqaman et al., Robust single-particle tracking in live-cell time-lapse sequences, Nature Methods 5, 2008, as the
    package laptrack has it: Fukai and Kawaguchi, Bioinformatics 39, 2023). All that needs the whole video, so no frame
    is done before `finish`; until then frames are kept compressed, and then each cell in each frame takes some 3 kB.

    The result is valid in the Cell Tracking Challenge. A division ends the mother's track. A cell that is missing for
    some frames is drawn there, in the shape it had before and on a straight line, where other cells leave room. Where
    they do not, its track ends, and the one after the gap becomes its only child.

    Distances are in diameters of the video's median cell, so that they suit any magnification.

    Args:
        max_distance: how far a cell may move from one frame to the next, and over a gap.
        division_distance: how far a daughter may be from its mother's last place; 0 for no divisions.
        max_gap: for how many frames a cell may be missing and keep its track; 0 for none.
        first_frame: number of the first frame pushed.
        voxel: sides of the voxels of volumes.

    Raises:
        InputError: the package is missing, or a number out of range.
    """

    def __init__(
        self,
        max_distance: float = 0.75,
        division_distance: float = 0.75,
        max_gap: int = 2,
        first_frame: int = 0,
        voxel: Voxel = CUBE,
    ) -> None:
        if max_distance <= 0:
            raise InputError(f"max_distance: {max_distance} links nothing; choose a number above 0")
        for name, value in (("division_distance", division_distance), ("max_gap", max_gap)):
            if value < 0:
                raise InputError(f"{name}: {value} is negative; choose 0 or more")
        try:
            laptrack: Any = import_module("laptrack")
        except ImportError:
            raise InputError(
                "linker laptrack: the package is not installed: pip install laptrack, or choose the linker overlap"
            ) from None
        # to leave cells apart costs as much as the farthest link; laptrack's own guess depends on the other cells
        alone, segment_alone = max_distance**2, max(max_distance, division_distance) ** 2
        self._tracker = laptrack.LapTrack(
            track_start_cost=alone,
            track_end_cost=alone,
            segment_start_cost=segment_alone,
            segment_end_cost=segment_alone,
            no_splitting_cost=segment_alone,
            cutoff=max_distance**2,
            gap_closing_cutoff=max_distance**2 if max_gap else False,
            gap_closing_max_frame_count=max_gap + 1,
            splitting_cutoff=division_distance**2 or False,
        )
        self._first = first_frame
        self._sides = np.array(voxel) / voxel[2]
        self._frames = HeldFrames()
        self._rows: list[Track] = []

    @property
    def lineage(self) -> Lineage:
        """Rows of the tracks: none before `finish`, then all."""
        return {row.label: row for row in self._rows}

    def push(self, labels: np.ndarray) -> list[np.ndarray]:
        """Take the next frame, and return none.

        Args:
            labels: (H, W) or (Z, H, W) int32, 0 background, cells positive; a label means nothing beyond its frame.

        Raises:
            InputError: a frame of another size than the ones before.
        """
        if self._frames.shape not in (None, labels.shape):
            before, now = ("x".join(map(str, shape)) for shape in (self._frames.shape or (), labels.shape))
            number = self._first + len(self._frames)
            raise InputError(f"frame {number}: {now} pixels after frames of {before}; give frames of one size")
        self._frames.append(labels)
        return []

    def finish(self) -> Iterator[np.ndarray]:
        """Link all frames; `lineage` is whole as soon as this returns.

        Returns:
            int32 track labels of each frame, made one after another as they are asked for.

        Raises:
            InputError: more tracks than a result can hold.
        """
        parents = self._parents()
        families: dict[Node, int] = {}
        for parent in parents.values():
            families[parent] = families.get(parent, 0) + 1
        continued = self._bridged({node: parent for node, parent in parents.items() if families[parent] == 1})
        tracks: dict[Node, int] = {}
        for frame, areas in enumerate(self._frames.areas):
            number = self._first + frame
            for node in ((frame, cell) for cell in range(len(areas))):
                if node in continued:
                    tracks[node] = tracks[continued[node]]
                    self._rows[tracks[node] - 1] = self._rows[tracks[node] - 1]._replace(end=number)
                    continue
                tracks[node] = len(self._rows) + 1
                if tracks[node] > MAX_LABEL:
                    raise InputError(
                        f"frame {number}: more than {MAX_LABEL} tracks, which a 16-bit result cannot hold; "
                        "drop small cells by the decoder's min_size, or track fewer frames"
                    )
                mother = tracks[parents[node]] if node in parents else 0
                self._rows.append(Track(tracks[node], number, number, mother))
        return self._relabelled(tracks)

    def _parents(self) -> dict[Node, Node]:
        """What comes before each cell, if anything does: the cell itself or its mother, maybe after a gap."""
        areas = np.concatenate([np.empty(0), *self._frames.areas])
        if not len(areas):  # laptrack stumbles over a video without cells
            return {}
        diameter = 2 * np.sqrt(np.median(areas) / np.pi)
        places = self._frames.centroids
        if places[0].shape[1] == 3:
            diameter = np.cbrt(6 / np.pi * np.median(areas) * self._sides.prod())
            places = [those * self._sides for those in places]
        graph = self._tracker.predict([those / diameter for those in places])
        nodes = (sorted((int(frame), int(cell)) for frame, cell in edge) for edge in graph.edges())
        return {later: earlier for earlier, later in nodes}

    def _bridged(self, links: dict[Node, Node]) -> dict[Node, Node]:
        """Draws cells where they are missing, and returns the links without those over gaps."""
        steps = (pairwise([before, *self._drawn(before, node), node]) for node, before in sorted(links.items()))
        return {later: earlier for earlier, later in chain.from_iterable(steps) if later[0] == earlier[0] + 1}

    def _drawn(self, before: Node, after: Node) -> list[Node]:
        """Draws a cell in all frames between two of its places, or, if it has no room in one of them, in none."""
        frames = range(before[0] + 1, after[0])
        if not frames:
            return []
        start, stop = (self._frames.centroids[frame][cell] for frame, cell in (before, after))
        shape = np.argwhere(self._frames.labels(before[0]) == before[1] + 1)
        places = []
        for frame in frames:
            labels = self._frames.labels(frame)
            way = (stop - start) * (frame - before[0]) / (after[0] - before[0])
            pixels = shape + np.round(way).astype(np.int64)
            pixels = pixels[((pixels >= 0) & (pixels < labels.shape)).all(1)]
            places.append(pixels[labels[tuple(pixels.T)] == 0])
        if min(map(len, places)) < _VISIBLE * len(shape):
            return []
        return [(frame, self._frames.draw(frame, place)) for frame, place in zip(frames, places, strict=True)]

    def _relabelled(self, tracks: dict[Node, int]) -> Iterator[np.ndarray]:
        for frame, areas in enumerate(self._frames.areas):
            numbers = [0, *(tracks[frame, cell] for cell in range(len(areas)))]
            yield np.array(numbers, np.int32)[self._frames.labels(frame)]
