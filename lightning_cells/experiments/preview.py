"""A tracked video in short: a looping picture with outlined and numbered cells."""

from pathlib import Path

import numpy as np
from PIL import Image

from lightning_cells.data.atomic import writing
from lightning_cells.experiments.drawing import (
    grey,
    paint,
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
_READABLE = 9  # pixels across, in the picture, from which a cell has room for its number
_COLOURS = 14  # of the tracks


class Preview:
    """Gathers evenly spaced frames of a video as they come, and writes them as a GIF.

    Memory holds the pictures, one byte per pixel.

    Args:
        frames: length of the video.
    """

    def __init__(self, frames: int) -> None:
        self.chosen = frozenset(np.linspace(0, frames - 1, min(FRAMES, frames)).round().astype(int).tolist())
        self._palette = _palette()
        self._pictures: list[Image.Image] = []

    def add(self, frame: np.ndarray, labels: np.ndarray, number: int) -> None:
        """Draws a frame.

        Args:
            frame: (h, w) of real intensities.
            labels: track ids, (H, W) integers, 0 background.
            number: of the frame, to be written on it.
        """
        size = panel_size((labels.shape[0], labels.shape[1]), LONGEST)
        small = resample(labels, size)
        image = grey(frame, size)
        paint(image, rims(small), track_colours(small))
        page = Image.fromarray(to_bytes(image))
        for label, row, column in _places(small):
            write(page, str(label), (column, row), size=11, anchor="mm", light=True)
        write(page, f"frame {number}", (6, 5), anchor="lt", light=True)
        self._pictures.append(page.quantize(palette=self._palette, dither=Image.Dither.NONE))

    def save(self, path: Path) -> None:
        """Writes the GIF, whole or not at all.

        Raises:
            ValueError: if no frame was added.
        """
        if not self._pictures:
            raise ValueError("no frames: add at least one")
        first, *others = self._pictures
        with writing(path) as temporary:
            first.save(temporary, "GIF", save_all=True, append_images=others, duration=120, loop=0, optimize=False)


def _palette() -> Image.Image:
    """One for all frames, so that nothing flickers: the tracks' colours, the rest greys."""
    colours = to_bytes(track_colours(np.arange(1, _COLOURS + 1)))
    greys = np.linspace(0, 255, 256 - _COLOURS).round().astype(np.uint8)
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([colours, np.repeat(greys[:, None], 3, 1)]).tobytes())
    return palette


def _places(labels: np.ndarray) -> list[tuple[int, float, float]]:
    """Label, row and column of the centre of each cell that has room for a number."""
    rows, columns = np.nonzero(labels)
    values = labels[rows, columns]
    counts = np.bincount(values)
    found = np.flatnonzero(counts >= _READABLE**2)
    middle = (np.bincount(values, axis)[found] / counts[found] + 0.5 for axis in (rows, columns))
    return list(zip(found.tolist(), *(part.tolist() for part in middle), strict=True))
