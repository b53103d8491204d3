"""A frame whose cells belong to tracks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(eq=False)
class LinkedFrame:
    """The cells of a frame and their tracks; to change a track costs no pixels.

    Attributes:
        labels: (H, W) int32, 0 background, labels 1..K.
        areas: (K + 1,) pixels of each label, 0 for the background and for labels that do not count.
        tracks: (K + 1,) track of each label, 0 for none. Several labels may have one track.
        overlaps: labels of this frame, labels of the frame before, and the pixels they have in common.
    """

    labels: np.ndarray
    areas: np.ndarray
    tracks: np.ndarray
    overlaps: tuple[np.ndarray, np.ndarray, np.ndarray]

    def area(self, track: int) -> int:
        """Pixels of a track in this frame."""
        return int(self.areas[self.tracks == track].sum())

    def rename(self, old: int, new: int) -> None:
        """Gives the cells of one track to another."""
        self.tracks[self.tracks == old] = new

    def present(self) -> list[int]:
        """The tracks of this frame in the order of their labels."""
        return [track for track in dict.fromkeys(self.tracks.tolist()) if track]

    def heir(self, track: int, before: LinkedFrame) -> int:
        """The track that covers most of a track's cell in the frame before, 0 for none."""
        cells, olds, pixels = self.overlaps
        own = before.tracks[olds] == track
        return _most(self.tracks[cells[own]], pixels[own])

    def origin(self, track: int, before: LinkedFrame) -> int:
        """The track of the frame before that covers most of a track's cell in this one, 0 for none."""
        cells, olds, pixels = self.overlaps
        own = np.flatnonzero(self.tracks[cells] == track)
        own = own[np.argsort(olds[own], kind="stable")]  # a track may have several cells
        return _most(before.tracks[olds[own]], pixels[own])


def _most(tracks: np.ndarray, pixels: np.ndarray) -> int:
    """Returns the track with the most pixels, of equal ones the first, 0 if there is none."""
    known, first, place = np.unique(tracks, return_index=True, return_inverse=True)
    total = np.where(known > 0, np.bincount(place, pixels, len(known)), 0)
    return int(known[np.lexsort((first, -total))[0]]) if total.any() else 0
