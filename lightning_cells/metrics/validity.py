"""Whether a result is one that the Cell Tracking Challenge accepts: each mistake is told in one line."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from lightning_cells.data.image_files import MAX_LABEL
from lightning_cells.data.tracks import Lineage
from lightning_cells.errors import InputError

VERTEX = MAX_LABEL + 1  # a vertex, a cell in a frame, is written frame * VERTEX + label


def check_parents(lineage: Lineage, name: str) -> None:
    """Raises InputError unless every parent has a row and ends before its child begins.

    Args:
        lineage: the rows of a track table.
        name: what to call the table in messages.
    """
    for track in lineage.values():
        if track.end < track.begin:
            raise InputError(
                f"{name}: track {track.label} ends in frame {track.end}, before it begins in frame "
                f"{track.begin}; correct its row"
            )
        if track.parent == 0:
            continue
        parent = lineage.get(track.parent)
        if parent is None:
            raise InputError(
                f"{name}: track {track.label} has parent {track.parent}, which has no row; add it, or write 0"
            )
        if parent.end >= track.begin:
            raise InputError(
                f"{name}: parent {parent.label} ends in frame {parent.end}, not before its child "
                f"{track.label} begins in frame {track.begin}; end the parent earlier, "
                "or give the rest of it a new label"
            )


def check_masks(lineage: Lineage, frames: Collection[int], vertices: NDArray[np.int64], name: str) -> None:
    """Raises InputError unless each label is in exactly the frames of its row.

    Args:
        lineage: the rows of the result's track table.
        frames: numbers of the frames that have a mask.
        vertices: (N,) ascending ``frame * VERTEX + label`` of all cells in the result's masks.
        name: what to call the result in messages.
    """
    first, last = (min(frames), max(frames)) if frames else (0, -1)
    for track in lineage.values():
        if track.begin < first or track.end > last:
            raise InputError(
                f"{name}: the row of track {track.label} says frames {track.begin} to {track.end}, but the "
                f"masks are those of frames {first} to {last}; correct the row"
            )
    outside = outside_rows(lineage, vertices)
    if outside.size:
        frame, label = divmod(int(outside[0]), VERTEX)
        if label not in lineage:
            raise InputError(
                f"{name}: label {label} in the mask of frame {frame} has no row in the track "
                "table; add one, or remove it"
            )
        track = lineage[label]
        raise InputError(
            f"{name}: label {label} is in the mask of frame {frame}, outside frames {track.begin} to "
            f"{track.end} of its row; correct the row, or give these cells another label"
        )
    numbers, labels = np.divmod(vertices, VERTEX)
    missing = _first_missing(numbers, labels, *_rows(lineage))
    if missing is not None:
        frame, label = missing
        track = lineage[label]
        if not np.any(labels == label):
            raise InputError(f"{name}: track {label} has a row but is in no mask; remove the row")
        raise InputError(
            f"{name}: label {label} is missing in the mask of frame {frame}, though its row says frames "
            f"{track.begin} to {track.end}; shorten the row, or split the track at the gap"
        )


def outside_rows(lineage: Lineage, vertices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns those of the ascending ``frame * VERTEX + label`` of cells that no row covers."""
    begin, end = _rows(lineage)
    numbers, labels = np.divmod(vertices, VERTEX)
    return vertices[(numbers < begin[labels]) | (numbers > end[labels])]


def _rows(lineage: Lineage) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first and the last frame of each label's row, -1 without a row."""
    begin, end = np.full((2, max(MAX_LABEL, *lineage, 0) + 1), -1)
    for track in lineage.values():
        begin[track.label], end[track.label] = track.begin, track.end
    return begin, end


def _first_missing(
    numbers: NDArray[np.int64], labels: NDArray[np.int64], begin: NDArray[np.int64], end: NDArray[np.int64]
) -> tuple[int, int] | None:
    """Finds the first frame, and there the lowest label, in which a cell of a row is not; None if all are there.

    Args:
        numbers: (N,) frames of the cells, none outside its row.
        labels: (N,) theirs.
        begin: first frame of each label's row, -1 without a row.
        end: last frame.
    """
    order = np.lexsort((numbers, labels))
    numbers, labels = numbers[order], labels[order]
    counts = np.bincount(labels, minlength=len(begin))
    rank = np.arange(len(labels)) - (np.cumsum(counts) - counts)[labels]  # in the order of a label's frames
    unbroken = counts.copy()
    shifted = np.flatnonzero(numbers != begin[labels] + rank)
    np.minimum.at(unbroken, labels[shifted], rank[shifted])
    short = np.flatnonzero((end >= begin) & (begin >= 0) & (counts < end - begin + 1))
    if not short.size:
        return None
    frames = begin[short] + unbroken[short]
    first = np.argmin(frames)  # of several the lowest label
    return int(frames[first]), int(short[first])
