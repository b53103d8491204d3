"""Which track of the frames before a new track stems from."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from scipy.ndimage import find_objects

from lightning_cells.instances.linked_frame import LinkedFrame

MIN_IOU = 0.01  # less is no sign of a parent


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
        ones the latest first, then in the order of their labels.
    """
    boxes = find_objects(frame.labels)
    reach = np.arange(-dilation, dilation + 1) ** 2
    disc = (reach[:, None] + reach <= dilation**2).astype(np.uint8)
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
            common: Counter[int] = Counter()
            for label, pixels in zip(*np.unique(earlier.labels[box][mask], return_counts=True), strict=True):
                if earlier.tracks[label]:
                    common[int(earlier.tracks[label])] += int(pixels)
            for track, pixels in common.items():
                iou = pixels / (area + earlier.area(track) - pixels)
                if iou >= MIN_IOU:
                    candidates.append(Candidate(iou, back, track))
        result[child] = sorted(candidates, key=lambda candidate: -candidate.iou)  # stable
    return result
