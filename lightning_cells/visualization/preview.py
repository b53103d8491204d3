"""A tracked video in short: a looping picture with outlined and numbered cells, and tails where they came from."""

import io
from collections import deque
from pathlib import Path

import numpy as np
from PIL import Image

from lightning_cells.data.atomic import writing
from lightning_cells.data.ctc import Lineage
from lightning_cells.visualization.drawing import (
    grey,
    paint,
    paint_lines,
    panel_size,
    resample,
    rims,
    to_bytes,
    track_colours,
    write,
)
from lightning_cells.visualization.sheet import in_columns
from lightning_cells.visualization.tails import centres, tails

FRAMES = 50
"""Most frames of a preview."""
LONGEST = 512
"""Pixels of its longer side, at most."""
_TAIL = 6  # frames back that a tail goes, of those that are shown
_DURATION = 120  # milliseconds of a frame
_READABLE = 9  # pixels across, in the picture, from which a cell has room for its number
_COLOURS = 14  # of the tracks


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
        """Draws a frame.

        Args:
            frame: (h, w) of real intensities.
            labels: track ids, (H, W) integers, 0 background.
            number: of the frame, to be written on it.
            lineage: the tracks so far; the tail of a daughter begins at her mother.
        """
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
