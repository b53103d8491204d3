"""Which track of the frames before a new track stems from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from scipy.ndimage import find_objects

MIN_IOU = 0.01  # less is no sign of a parent


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

    def present(self) -> set[int]:
        """The tracks of this frame."""
        return set(self.tracks.tolist()) - {0}


class Candidate(NamedTuple):
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
) -> dict[int, list[Candidate]]:
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
        ones the latest first, then the older track.
    """
    boxes = find_objects(frame.labels)
    size = 2 * dilation + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    result: dict[int, list[Candidate]] = {}
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
            under = earlier.tracks[earlier.labels[box][mask]]
            for track, common in zip(*np.unique(under[under > 0], return_counts=True), strict=True):
                iou = common / (area + earlier.area(track) - common)
                if iou >= MIN_IOU:
                    candidates.append(Candidate(float(iou), back, int(track)))
        result[child] = sorted(candidates, key=lambda c: (-c.iou, c.back, c.track))
    return result
