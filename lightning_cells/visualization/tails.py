"""Where cells came from: the way of their centres through the frames before, beyond a division to the mother."""

from collections.abc import Sequence

import numpy as np

from lightning_cells.data.ctc import Lineage
from lightning_cells.visualization.drawing import track_colours


def centres(labels: np.ndarray, size: tuple[int, int] | None = None) -> dict[int, np.ndarray]:
    """Finds where the cells of a frame are.

    Args:
        labels: (H, W) integers, 0 background.
        size: height and width of the picture in whose pixels the answer is; None takes those of the frame.

    Returns:
        Label -> row and column of the centre, (2,).
    """
    rows, columns = np.nonzero(labels)
    values = labels[rows, columns]
    counts = np.bincount(values)
    found = np.flatnonzero(counts)
    middle = np.stack([np.bincount(values, axis)[found] / counts[found] for axis in (rows, columns)], 1)
    factor = np.array(size or labels.shape) / labels.shape
    return dict(zip(found.tolist(), (middle + 0.5) * factor - 0.5, strict=True))


def tails(places: Sequence[dict[int, np.ndarray]], lineage: Lineage) -> list[tuple[np.ndarray, np.ndarray]]:
    """Traces the cells of the last of some frames back through the others.

    Args:
        places: `centres` of each frame, in order.
        lineage: with a row for a daughter, her tail begins at her mother.

    Returns:
        Points (N, 2) as row and column, and the colour (3,) of the track, for each cell that was there before.
    """
    lines = []
    for label in places[-1]:
        points, track = [], label
        for there in reversed(places):
            if track not in there and track in lineage and lineage[track].parent in there:
                track = lineage[track].parent
            if track in there:
                points.append(there[track])
        if len(points) > 1:
            lines.append((np.array(points), track_colours(np.array(label))))
    return lines
