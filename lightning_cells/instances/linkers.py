"""Linkers by the name that configuration files and the command line give them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lightning_cells.data.tracks import Lineage
from lightning_cells.data.voxels import CUBE, Voxel
from lightning_cells.instances.lap import LapLinker
from lightning_cells.instances.linking import OverlapLinker


class FrameLinker(Protocol):
    """A linker at work on one video: frames of cells go in one after another, frames of tracks come out."""

    @property
    def lineage(self) -> Lineage:
        """Rows of the tracks in the frames returned so far; final after `finish`."""

    def push(self, labels: np.ndarray) -> list[np.ndarray]:
        """Takes the cells of the next frame, and returns the frames that are done, which may lag behind.

        Args:
            labels: (H, W) or (Z, H, W) int32, 0 background, cells positive; a label means nothing beyond its frame.

        Returns:
            int32 of that shape each, 0 background, else the track, of the frames that follow those returned before.
        """

    def finish(self) -> Iterable[np.ndarray]:
        """Returns the frames that are left when the video has ended."""


@dataclass(frozen=True, kw_only=True)
class Linker(ABC):
    """How the cells of a video's frames become tracks: subclasses are the kinds, their attributes the thresholds."""

    @abstractmethod
    def start(self, first_frame: int = 0, voxel: Voxel = CUBE) -> FrameLinker:
        """Returns a fresh state for a video of frames, or of volumes of such voxels, that begins with `first_frame`."""


@dataclass(frozen=True, kw_only=True)
class Overlap(Linker):
    """By overlap with the frame before; see `OverlapLinker`.

    Attributes:
        min_overlap: share of a cell that must lie on its predecessor in the last frame to inherit its track.
        min_division_ratio: smallest area of a daughter as a share of the other's; less makes it a fragment.
    """

    min_overlap: float = 0.3
    min_division_ratio: float = 0.5

    def start(self, first_frame: int = 0, voxel: Voxel = CUBE) -> OverlapLinker:
        """Returns a fresh state for a video whose frames, or volumes, are numbered from `first_frame`."""
        return OverlapLinker(self.min_overlap, self.min_division_ratio, first_frame)


@dataclass(frozen=True, kw_only=True)
class Lap(Linker):
    """By linear assignment of centroids over the whole video, with the package laptrack; see `LapLinker`.

    Distances are in diameters of the video's median cell.

    Attributes:
        max_distance: how far a cell may move from one frame to the next, and over a gap.
        division_distance: how far a daughter may be from its mother's last place; 0 for no divisions.
        max_gap: for how many frames a cell may be missing and keep its track; 0 for none.
    """

    max_distance: float = 0.75
    division_distance: float = 0.75
    max_gap: int = 2

    def start(self, first_frame: int = 0, voxel: Voxel = CUBE) -> LapLinker:
        """Returns a fresh state for a video of frames, or of volumes of such voxels, that begins with `first_frame`."""
        return LapLinker(self.max_distance, self.division_distance, self.max_gap, first_frame, voxel)
