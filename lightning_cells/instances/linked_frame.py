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
        """The track that covers more than half of what a track covered in the frame before, 0 for none."""
        cells, olds, pixels = self.overlaps
        own = before.tracks[olds] == track
        return _majority(self.tracks[cells[own]], pixels[own], before.area(track))

    def origin(self, track: int, before: LinkedFrame) -> int:
        """The track that in the frame before covered more than half of what a track covers, 0 for none."""
        cells, olds, pixels = self.overlaps
        own = self.tracks[cells] == track
        return _majority(before.tracks[olds[own]], pixels[own], self.area(track))


def _majority(tracks: np.ndarray, pixels: np.ndarray, area: int) -> int:
    known, place = np.unique(tracks, return_inverse=True)
    held = np.flatnonzero((2 * np.bincount(place, pixels, len(known)) > area) & (known > 0))
    return int(known[held[0]]) if len(held) else 0
