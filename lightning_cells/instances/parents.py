"""The cells of a frame that belong to tracks, and which track of the frames before a new one stems from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from scipy.ndimage import find_objects


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


MIN_IOU = 0.01  # less is no sign of a parent


class ParentCandidate(NamedTuple):
    """A possible parent.

    Attributes:
        iou: overlap of the child's first cell, dilated, with the parent's cell, 0..1.
        back: how many frames earlier that cell is, 1 for the frame before.
        track: the parent.
    """

    iou: float
    back: int
    track: int


def find_parents(
    frame: LinkedFrame, before: Sequence[LinkedFrame], children: Iterable[int], dilation: int
) -> dict[int, list[ParentCandidate]]:
    """Lists the tracks that new tracks may stem from.

    Payer et al., Segmenting and Tracking Cell Instances with Cosine Embeddings and Recurrent Hourglass Networks,
    Medical Image Analysis 57 (2019), section 3.4: the overlap of a track's first cell with earlier frames.

    Args:
        frame: where the children begin.
        before: the frames before it, the latest first.
        children: tracks of `frame`.
        dilation: radius of the disc by which the children's cells are dilated, in pixels.

    Returns:
        For each child its candidates with an intersection over union of at least `MIN_IOU`, best first; of equal
        ones the latest first, then in the order of their labels.
    """
    boxes = find_objects(frame.labels)
    reach = np.arange(-dilation, dilation + 1) ** 2
    disc = (reach[:, None] + reach <= dilation**2).astype(np.uint8)
    result: dict[int, list[ParentCandidate]] = {}
    for child in children:
        own = np.flatnonzero(frame.tracks == child)
        box = tuple(
            slice(
                max(min(boxes[label - 1][axis].start for label in own) - dilation, 0),
                max(boxes[label - 1][axis].stop for label in own) + dilation,
            )
            for axis in (0, 1)
        )
        mask = (frame.tracks == child)[frame.labels[box]]
        if dilation:
            mask = cv2.dilate(mask.astype(np.uint8), disc) > 0
        area = int(mask.sum())
        candidates = []
        for back, earlier in enumerate(before, 1):
            common: Counter[int] = Counter()
            for label, pixels in zip(*np.unique(earlier.labels[box][mask], return_counts=True), strict=True):
                if earlier.tracks[label]:
                    common[int(earlier.tracks[label])] += int(pixels)
            for track, pixels in common.items():
                iou = pixels / (area + earlier.area(track) - pixels)
                if iou >= MIN_IOU:
                    candidates.append(ParentCandidate(iou, back, track))
        result[child] = sorted(candidates, key=lambda candidate: -candidate.iou)  # stable
    return result
