"""A tracked video at a glance: a sheet of frames with the cells in the colours of their tracks."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from lightning_cells.data.ctc import Lineage
from lightning_cells.experiments.drawing import (
    grey,
    paint_cells,
    paint_lines,
    panel_size,
    resample,
    to_bytes,
    track_colours,
    write,
)

GAP = 6  # pixels


def track_picture(
    frames: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    numbers: Sequence[int] | None = None,
    lineage: Lineage | None = None,
    shown: int = 8,
    tail: int = 6,
) -> np.ndarray:
    """Draws evenly spaced frames of a tracked video on a sheet of up to four columns.

    A cell has the colour of its track in all frames, and a tail where it came from.

    Args:
        frames: the video, each (h, w) of real intensities.
        labels: track ids of each frame, (H, W) integers, 0 background.
        numbers: numbers of the frames, to be written on them; None counts from 0.
        lineage: with it, the tails of daughters begin at their mother.
        shown: most frames to show.
        tail: how many frames back a tail goes.

    Returns:
        uint8 (H, W, 3); each frame at most 320 pixels wide and high.

    Raises:
        ValueError: if there are no frames, or not as many labels.
    """
    if not len(frames) or len(frames) != len(labels):
        raise ValueError(f"{len(frames)} frames and {len(labels)} label images: give as many, at least one")
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(shown, len(frames))).round().astype(int))
    needed = {past for index in chosen for past in range(max(0, index - tail), index + 1)}
    places = {index: _centres(labels[index]) for index in needed}
    panels = [_panel(frames[index], labels[index], index, places, lineage or {}, tail) for index in chosen]

    columns = min(4, len(panels))
    tall, wide = (max(panel.shape[axis] for panel in panels) for axis in (0, 1))
    rows = -(-len(panels) // columns)
    page = Image.new("RGB", (columns * (wide + GAP) - GAP, rows * (tall + GAP) - GAP), "white")
    for k, (index, panel) in enumerate(zip(chosen, panels, strict=True)):
        left, top = k % columns * (wide + GAP), k // columns * (tall + GAP)
        page.paste(Image.fromarray(to_bytes(panel)), (left, top))
        number = index if numbers is None else numbers[index]
        write(page, f"frame {number}", (left + 6, top + 5), anchor="lt", light=True)
    return np.asarray(page)


def _panel(
    frame: np.ndarray,
    labels: np.ndarray,
    index: int,
    places: dict[int, dict[int, np.ndarray]],
    lineage: Lineage,
    tail: int,
) -> np.ndarray:
    size = panel_size((labels.shape[0], labels.shape[1]))
    image = grey(frame, size)
    paint_cells(image, resample(labels, size))
    factor = np.array(size) / labels.shape
    lines = []
    for label in places[index]:
        points, track = [], label
        for back in range(index, max(0, index - tail) - 1, -1):
            if track not in places[back] and track in lineage and lineage[track].parent in places[back]:
                track = lineage[track].parent
            if track in places[back]:
                points.append((places[back][track] + 0.5) * factor - 0.5)
        if len(points) > 1:
            lines.append((np.array(points), track_colours(np.array(label))))
    paint_lines(image, lines, width=2)
    return image


def _centres(labels: np.ndarray) -> dict[int, np.ndarray]:
    """Row and column of the centre of each cell."""
    rows, columns = np.nonzero(labels)
    values = labels[rows, columns]
    counts = np.bincount(values)
    found = np.flatnonzero(counts)
    centres = np.stack([np.bincount(values, axis)[found] / counts[found] for axis in (rows, columns)], 1)
    return dict(zip(found.tolist(), centres, strict=True))
