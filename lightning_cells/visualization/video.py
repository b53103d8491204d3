"""A tracked video at a glance: a sheet of frames, or a looping picture, with tails where cells came from."""

import io
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lightning_cells.data.atomic import writing
from lightning_cells.data.tracks import Lineage
from lightning_cells.visualization.depth import from_above
from lightning_cells.visualization.drawing import (
    grey,
    paint,
    paint_cells,
    paint_lines,
    panel_size,
    resample,
    rims,
    to_bytes,
    track_colours,
    write,
)

FRAMES = 50
"""Most frames of a preview."""
LONGEST = 512
"""Pixels of its longer side, at most."""
GAP = 6  # pixels
_TAIL = 6  # frames back that a tail goes, of those that are shown
_DURATION = 120  # milliseconds of a frame
_READABLE = 9  # pixels across, in the picture, from which a cell has room for its number
_COLOURS = 14  # of the tracks


def track_picture(
    frames: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    numbers: Sequence[int] | None = None,
    lineage: Lineage | None = None,
    shown: int = 8,
    tail: int = _TAIL,
) -> np.ndarray:
    """Draws evenly spaced frames of a tracked video on a sheet of up to four columns.

    A cell has the colour of its track in all frames, and a tail where it came from. Volumes are seen from above.

    Args:
        frames: the video, each (h, w) or (Z, h, w) of real intensities.
        labels: track ids of each frame, (H, W) or (Z, H, W) integers, 0 background.
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
    seen = {index: from_above(frames[index], labels[index]) for index in needed}
    sizes = {index: panel_size((there.shape[0], there.shape[1])) for index, (_, there) in seen.items()}
    places = {index: centres(there, sizes[index]) for index, (_, there) in seen.items()}
    panels = []
    for index in chosen:
        frame, there = seen[index]
        panel = grey(frame, sizes[index])
        paint_cells(panel, resample(there, sizes[index]))
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


class Preview:
    """Gathers evenly spaced frames of a video as they come, and writes them as a GIF.

    Memory holds the pictures, one byte per pixel.

    Args:
        frames: length of the video.
        longest: pixels of the longer side, at most.

    Attributes:
        chosen: the indices in the video of the frames that are to be added, in order.
    """

    def __init__(self, frames: int, longest: int = LONGEST) -> None:
        self.chosen = frozenset(np.linspace(0, frames - 1, min(FRAMES, frames)).round().astype(int).tolist())
        self._longest = longest
        self._palette = _palette()
        self._pictures: list[Image.Image] = []
        self._places: deque[dict[int, np.ndarray]] = deque(maxlen=_TAIL + 1)

    def add(self, frame: np.ndarray, labels: np.ndarray, number: int, lineage: Lineage) -> None:
        """Draws a frame; a volume is seen from above.

        Args:
            frame: (h, w) or (Z, h, w) of real intensities.
            labels: track ids, (H, W) or (Z, H, W) integers, 0 background.
            number: of the frame, to be written on it.
            lineage: the tracks so far; the tail of a daughter begins at her mother.
        """
        frame, labels = from_above(frame, labels)
        size = panel_size((labels.shape[0], labels.shape[1]), self._longest)
        small = resample(labels, size)
        image = grey(frame, size)
        self._places.append(centres(small))
        paint_lines(image, tails(self._places, lineage), width=2)
        paint(image, rims(small), track_colours(small))
        page = Image.fromarray(to_bytes(image))
        for label in _readable(small):
            row, column = self._places[-1][label] + 0.5
            write(page, str(label), (column, row), size=11, anchor="mm", light=True)
        write(page, f"frame {number}", (6, 5), anchor="lt", light=True)
        self._pictures.append(page.quantize(palette=self._palette, dither=Image.Dither.NONE))

    def save(self, path: Path, most_bytes: int | None = None) -> None:
        """Writes the GIF, whole or not at all.

        Args:
            path: the file.
            most_bytes: every second frame is left out, again and again, until the file is no larger.

        Raises:
            ValueError: if no frame was added.
        """
        if not self._pictures:
            raise ValueError("no frames: add at least one")
        step = 1
        content = self._gif(step)
        while most_bytes is not None and len(content) > most_bytes and step < len(self._pictures):
            step *= 2
            content = self._gif(step)
        with writing(path) as temporary:
            temporary.write_bytes(content)

    def frames(self) -> list[np.ndarray]:
        """The pictures that were drawn, each uint8 (H, W, 3)."""
        return [np.asarray(picture.convert("RGB")) for picture in self._pictures]

    def sheet(self, shown: int = 8) -> np.ndarray:
        """Puts evenly spaced frames on a sheet of up to four columns, uint8 (H, W, 3).

        Args:
            shown: most frames to show.

        Raises:
            ValueError: if no frame was added.
        """
        if not self._pictures:
            raise ValueError("no frames: add at least one")
        last = len(self._pictures) - 1
        chosen = np.unique(np.linspace(0, last, min(shown, last + 1)).round().astype(int))
        return in_columns([np.asarray(self._pictures[index].convert("RGB")) for index in chosen])

    def _gif(self, step: int) -> bytes:
        first, *others = self._pictures[::step]
        options = {"save_all": True, "append_images": others, "loop": 0, "optimize": False}
        buffer = io.BytesIO()
        first.save(buffer, "GIF", duration=step * _DURATION, **options)
        return buffer.getvalue()


def _palette() -> Image.Image:
    """One for all frames, so that nothing flickers: the tracks' colours, the rest greys."""
    colours = to_bytes(track_colours(np.arange(1, _COLOURS + 1)))
    greys = np.linspace(0, 255, 256 - _COLOURS).round().astype(np.uint8)
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([colours, np.repeat(greys[:, None], 3, 1)]).tobytes())
    return palette


def _readable(labels: np.ndarray) -> list[int]:
    """Labels of the cells that have room for a number."""
    counts = np.bincount(labels[labels > 0])
    return np.flatnonzero(counts >= _READABLE**2).tolist()


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
