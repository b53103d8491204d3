"""Linkers by the name that configuration files and the command line give them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from lightning_cells.instances.linking import OverlapLinker


@dataclass(frozen=True, kw_only=True)
class Linker(ABC):
    """How the cells of a video's frames become tracks: subclasses are the kinds, their attributes the thresholds."""

    @abstractmethod
    def start(self, first_frame: int = 0) -> OverlapLinker:
        """Returns a fresh state for a video whose frames are numbered from `first_frame`."""


@dataclass(frozen=True, kw_only=True)
class Overlap(Linker):
    """By overlap with the frame before; see `OverlapLinker`.

    Attributes:
        min_overlap: share of a cell that must lie on its predecessor in the last frame to inherit its track.
        min_division_ratio: smallest area of a daughter as a share of the other's; less makes it a fragment.
    """

    min_overlap: float = 0.3
    min_division_ratio: float = 0.5

    def start(self, first_frame: int = 0) -> OverlapLinker:
        """Returns a fresh state for a video whose frames are numbered from `first_frame`."""
        return OverlapLinker(self.min_overlap, self.min_division_ratio, first_frame)
