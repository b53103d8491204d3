"""A tracked video at a glance: a sheet of frames with the cells in the colours of their tracks."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from lightning_cells.data.ctc import Lineage
from lightning_cells.visualization.drawing import (
    grey,
    paint_cells,
    paint_lines,
    panel_size,
    resample,
    to_bytes,
    write,
)
from lightning_cells.visualization.tails import centres, tails

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
    sizes = {index: panel_size((labels[index].shape[0], labels[index].shape[1])) for index in needed}
    places = {index: centres(labels[index], sizes[index]) for index in needed}
    panels = []
    for index in chosen:
        panel = grey(frames[index], sizes[index])
        paint_cells(panel, resample(labels[index], sizes[index]))
        before = [places[past] for past in range(max(0, index - tail), index + 1)]
        paint_lines(panel, tails(before, lineage or {}), width=2)
        page = Image.fromarray(to_bytes(panel))
        write(page, f"frame {index if numbers is None else numbers[index]}", (6, 5), anchor="lt", light=True)
        panels.append(np.asarray(page))
    return in_columns(panels)


def in_columns(panels: Sequence[np.ndarray]) -> np.ndarray:
    """Puts pictures, uint8 (h, w, 3), into rows of up to four: uint8 (H, W, 3)."""
    columns = min(4, len(panels))
    tall, wide = (max(panel.shape[axis] for panel in panels) for axis in (0, 1))
    rows = -(-len(panels) // columns)
    page = Image.new("RGB", (columns * (wide + GAP) - GAP, rows * (tall + GAP) - GAP), "white")
    for k, panel in enumerate(panels):
        page.paste(Image.fromarray(panel), (k % columns * (wide + GAP), k // columns * (tall + GAP)))
    return np.asarray(page)
