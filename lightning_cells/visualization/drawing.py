"""What pictures of cells are made of: grey frames, coloured outlines, captions. Colours are float32 RGB in 0..1."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage.segmentation import find_boundaries

from lightning_cells.data.atomic import writing
from lightning_cells.data.intensity import resize_labels

PANEL = 320
"""Pixels of the longer side of a panel, at most."""

INK = (33, 33, 33)
"""Of text on paper."""

Colour = tuple[float, float, float]


def hexadecimal(code: str) -> Colour:
    """``"E69F00"`` -> red, green and blue."""
    red, green, blue = (value / 255 for value in bytes.fromhex(code))
    return red, green, blue


# Okabe and Ito's colours, which colour-blind people can tell apart (jfly.uni-koeln.de/color), blue made brighter for
# dark frames, and a pale variant of each. Neighbours in the list, which sisters get, are far from each other.
_BASE = ("E69F00", "56B4E9", "CC79A7", "F0E442", "009E73", "D55E00", "3B82E0")
_PALETTE = np.array([hexadecimal(code) for code in _BASE], np.float32)
_PALETTE = np.concatenate([_PALETTE, 0.5 * _PALETTE + 0.5])


def panel_size(size: tuple[int, int], longest: int = PANEL) -> tuple[int, int]:
    """Height and width in which an image is shown: shrunk to `longest`, or enlarged by a whole number."""
    side = max(size)
    if side <= longest:
        return size[0] * (longest // side), size[1] * (longest // side)
    return max(1, round(size[0] * longest / side)), max(1, round(size[1] * longest / side))


def grey(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resamples a frame, by the mean over areas to shrink it, and stretches its contrast.

    Args:
        frame: (h, w) of any real type and range.
        size: height and width of the picture.

    Returns:
        float32 (H, W, 3) in 0..1: the 0.5 and 99.8 percentiles become black and white, a constant frame is black.
    """
    image = Image.fromarray(np.nan_to_num(np.asarray(frame, np.float32)))
    shrinks = size[0] <= frame.shape[0] and size[1] <= frame.shape[1]
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    values = np.asarray(image.resize(size[::-1], method))
    low, high = np.percentile(values, (0.5, 99.8))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    stretched = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return np.repeat(np.clip(stretched, 0, 1, dtype=np.float32)[..., None], 3, axis=2)


def resample(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resamples cells such that thin ones stay: a shrunk cell covers every new pixel that it touches, if that is free.

    A cell that still has no pixel takes those of others that it touches.

    Args:
        labels: (h, w) integers, 0 background, cells positive.
        size: new height and width.

    Returns:
        (H, W) of the same type.
    """
    sampled = resize_labels(labels, size)
    height, width = labels.shape
    if sampled is labels or (size[0] >= height and size[1] >= width):
        return sampled
    sampled = sampled.copy()
    rows, columns = np.nonzero(labels)
    values = labels[rows, columns]
    rows, columns = rows * size[0] // height, columns * size[1] // width
    free = sampled[rows, columns] == 0
    np.maximum.at(sampled, (rows[free], columns[free]), values[free])
    there = np.zeros(int(labels.max(initial=0)) + 1, bool)
    there[sampled] = True
    lost = ~there[values]
    sampled[rows[lost], columns[lost]] = values[lost]
    return sampled


def rims(labels: np.ndarray) -> np.ndarray:
    """Pixels of cells next to another cell or background, bool (H, W); the border of the image is no rim."""
    return find_boundaries(labels, mode="inner")


def track_colours(labels: np.ndarray) -> np.ndarray:
    """The colour of each track, float32 (..., 3), from its id alone: a cell keeps it through a video."""
    return _PALETTE[(labels - 1) % len(_PALETTE)]


def paint(image: np.ndarray, where: np.ndarray, colour: np.ndarray | Colour, opacity: float = 1.0) -> None:
    """Lays a colour over some pixels, in place.

    Args:
        image: float32 (H, W, 3).
        where: bool (H, W).
        colour: one colour, or one for each pixel, (H, W, 3).
        opacity: 0 to 1.
    """
    colour = np.asarray(colour, np.float32)
    colour = colour[where] if colour.ndim == 3 else colour
    image[where] = (1 - opacity) * image[where] + opacity * colour


def paint_cells(image: np.ndarray, labels: np.ndarray) -> None:
    """Lays cells over an image in the colours of their tracks, in place: a faint fill and an outline.

    Args:
        image: float32 (H, W, 3).
        labels: (H, W) integers, 0 background.
    """
    colours = track_colours(labels)
    paint(image, labels > 0, colours, 0.3)
    paint(image, rims(labels), colours)


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The typeface that comes with Pillow, which has the letters of English."""
    return ImageFont.load_default(size)


def write(
    page: Image.Image, text: str, at: tuple[float, float], size: int = 13, anchor: str = "ls", light: bool = False
) -> None:
    """Writes a line of text on a page.

    Args:
        page: RGB image.
        text: one line.
        at: column and row of the anchor.
        size: of the letters, in pixels.
        anchor: Pillow's name of the point of the text that lies there; "ls" is the left end of the base line.
        light: white with a dark edge, to be read on any picture, instead of dark for paper.
    """
    draw = ImageDraw.Draw(page)
    if light:
        draw.text(at, text, "white", font(size), anchor, stroke_width=2, stroke_fill=(20, 20, 20))
    else:
        draw.text(at, text, INK, font(size), anchor)


def text_width(text: str, size: int = 13) -> int:
    """Pixels that a line of text is wide."""
    return int(np.ceil(font(size).getlength(text)))


def paint_lines(image: np.ndarray, lines: Sequence[tuple[np.ndarray, np.ndarray]], width: float) -> None:
    """Draws smooth lines with a dark edge, in place.

    Args:
        image: float32 (H, W, 3).
        lines: points (N, 2) as row and column, and a colour (3,), for each line.
        width: in pixels.
    """
    if not lines:
        return
    fine = 4  # drawn this many times larger, since Pillow's lines are jagged
    height, breadth = image.shape[:2]
    size = (breadth * fine, height * fine)
    edge, core, tint = Image.new("L", size), Image.new("L", size), Image.new("RGB", size)
    for points, colour in lines:
        path = [(float(fine * (x + 0.5)), float(fine * (y + 0.5))) for y, x in points]
        for layer, ink, extra in ((edge, 255, 2), (core, 255, 0), (tint, tuple(to_bytes(colour)), 0)):
            ImageDraw.Draw(layer).line(path, ink, round(fine * (width + extra)), joint="curve")
    shade, cover, colours = (
        np.asarray(layer.resize((breadth, height), Image.Resampling.BOX), np.float32) / 255
        for layer in (edge, core, tint)
    )
    image *= 1 - 0.6 * shade[..., None]
    image *= 1 - cover[..., None]
    image += colours


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Float32 0..1 -> uint8 0..255."""
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)


def save_png(path: Path, image: np.ndarray) -> None:
    """Writes a picture; the file is whole or not there. Missing folders are made.

    Args:
        path: the file.
        image: uint8 (H, W, 3) or (H, W).
    """
    with writing(Path(path)) as temporary:
        Image.fromarray(image).save(temporary, "PNG")
