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
    rows = [t.label + VERTEX * np.arange(t.begin, t.end + 1) for t in lineage.values()]
    expected = np.concatenate([np.empty(0, np.int64), *rows])
    extra = np.setdiff1d(vertices, expected)
    if extra.size:
        frame, label = divmod(int(extra[0]), VERTEX)
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
    absent = np.setdiff1d(expected, vertices)
    if absent.size:
        frame, label = divmod(int(absent[0]), VERTEX)
        track = lineage[label]
        if not np.any(vertices % VERTEX == label):
            raise InputError(f"{name}: track {label} has a row but is in no mask; remove the row")
        raise InputError(
            f"{name}: label {label} is missing in the mask of frame {frame}, though its row says frames "
            f"{track.begin} to {track.end}; shorten the row, or split the track at the gap"
        )
