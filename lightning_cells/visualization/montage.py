"""Pictures of results: a few frames beside their truth and their errors, and a tracked video at a glance."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from lightning_cells.data.intensity import resize_labels
from lightning_cells.data.targets import cell_ids
from lightning_cells.metrics.cells import Kind, frame_errors
from lightning_cells.visualization.depth import in_place, unfolded
from lightning_cells.visualization.drawing import (
    PANEL,
    Colour,
    grey,
    hexadecimal,
    paint,
    paint_cells,
    panel_size,
    resample,
    rims,
    text_width,
    to_bytes,
    write,
)

KINDS: Mapping[Kind, Colour] = {
    "matched": hexadecimal("2FB58A"),
    "missed": hexadecimal("E8590C"),
    "spurious": hexadecimal("56B4E9"),
    "split": hexadecimal("F0E442"),
    "merged": hexadecimal("D279B0"),
}
"""What can become of a cell, and its colour; after Okabe and Ito, for colour-blind people too."""

PANELS = ("Frame", "Truth", "Prediction", "Errors")
GAP = 8
"""White pixels between two panels."""
UNKNOWN = (0.6, 0.6, 0.6)  # outline of predicted cells where the truth is unknown
SEEN = "Network"  # title of the panel after the frame, where any sample has such a picture
MARGIN, CAPTION, HEADER, LEGEND = 12, 24, 30, 22  # pixels
NARROWEST, SHORTEST = 150, 20  # width and height of a panel that leave room for text


@dataclass(frozen=True, eq=False)
class Sample:
    """One frame to look at.

    Attributes:
        sequence: name of the video.
        number: number of the frame.
        frame: (h, w) or (Z, h, w), real intensities of any range, at any scale.
        result: (H, W) or (Z, H, W) integers, track ids of the predicted cells, 0 background.
        truth: integers of that shape in the label convention: > 0 id of a segmented cell, 0 background, -1 unknown,
            <= -2 marker of the cell ``-1 - value``; None without any truth.
        seen: uint8 (h, w, 3), what the network says of the frame, at any scale; None without such a picture.
        step: distance of the planes of a volume, in pixels of the result.
    """

    sequence: str
    number: int
    frame: np.ndarray
    result: np.ndarray
    truth: np.ndarray | None = None
    seen: np.ndarray | None = None
    step: float = 1.0


class _Row(NamedTuple):
    caption: str
    panels: list[np.ndarray]  # float32 (H, W, 3)
    notes: list[str]  # written on each panel
    kinds: Counter[str]


def montage(samples: Sequence[Sample], block: bool = False) -> np.ndarray:
    """Draws a row for each sample: the frame, its true cells, its predicted cells, and what is wrong with them.

    What the network says comes after the frame, if any sample has a picture of it. True and predicted cells have the
    colours of their tracks. In the last panel, true cells that were missed and predicted cells that are spurious are
    filled; so are split and merged cells, with the outlines of their parts. A legend counts them: each true cell once,
    and spurious predicted cells (see `metrics.cells.frame_errors`). Hatching marks where the truth is unknown;
    predicted cells there are outlined, but no errors. Volumes are compared as such and seen from three sides.

    Args:
        samples: the frames, from top to bottom; may be none.
        block: whether the panels of a frame are put in two lines, about as wide as high, instead of one.

    Returns:
        uint8 (H, W, 3). Panels are at most 320 pixels wide and high; smaller frames are enlarged by a whole number.
    """
    rows = [_row(sample) for sample in samples]
    titles: tuple[str, ...] = PANELS
    if any(sample.seen is not None for sample in samples):
        titles = (PANELS[0], SEEN, *PANELS[1:])
        for sample, row in zip(samples, rows, strict=True):
            seen = None if sample.seen is None else in_place(sample.seen, sample.result, sample.step)
            row.panels.insert(1, _seen(seen, row.panels[0]))
            row.notes.insert(1, "" if sample.seen is not None else "not drawn")
    across = -(-len(titles) // 2) if block else len(titles)
    down = -(-len(titles) // across)
    column = max([NARROWEST, *(panel.shape[1] for row in rows for panel in row.panels)])
    legend = list(_legend(sum((row.kinds for row in rows), Counter())))
    columns_width = across * (column + GAP) - GAP
    width = 2 * MARGIN + max([columns_width, *(text_width(row.caption) for row in rows)])
    lines = list(_wrapped(legend, width - 2 * MARGIN))
    talls = [max(SHORTEST, row.panels[0].shape[0]) for row in rows]
    heights = [CAPTION + tall + (down - 1) * (tall + CAPTION) for tall in talls]
    height = HEADER + sum(heights) + GAP * len(rows) + LEGEND * len(lines) + MARGIN
    page = Image.new("RGB", (width, height), "white")

    lefts = [MARGIN + k * (column + GAP) for k in range(across)]
    for left, title in zip(lefts, titles, strict=False):
        write(page, title, (left, 23), size=16)
    top = HEADER
    for row, tall, height in zip(rows, talls, heights, strict=True):
        write(page, row.caption, (MARGIN, top + CAPTION - 8))
        for line in range(down):
            part = slice(line * across, (line + 1) * across)
            below = top + CAPTION + line * (tall + CAPTION)
            for left, title in zip(lefts, titles[part] if line else (), strict=False):
                write(page, title, (left, below - 7), size=16)
            _paste(page, row._replace(panels=row.panels[part], notes=row.notes[part]), lefts, below)
        top += height + GAP
    for entries in lines:
        left = MARGIN
        for name, text in entries:
            _swatch(page, name, left, top + 4)
            write(page, text, (left + 20, top + 16))
            left += _entry_width(text)
        top += LEGEND
    return np.asarray(page)


class Strip(NamedTuple):
    """The panels of one frame side by side.

    Attributes:
        image: uint8 (h, w, 3): frame, truth, prediction and errors, all of one size, with gaps of `GAP` white pixels.
        caption: which frame it is and how well its cells were found.
        kinds: how many cells are of which kind, as the legend of a montage counts them.
    """

    image: np.ndarray
    caption: str
    kinds: Counter[str]


def strip(sample: Sample, longest: int = PANEL) -> Strip:
    """Draws a sample as a montage does, but without any text around, for pages that have their own.

    Args:
        sample: the frame.
        longest: pixels of a panel, at most; small frames are enlarged no further than in a montage.
    """
    row = _row(sample, longest)
    height, width = row.panels[0].shape[:2]
    page = Image.new("RGB", (len(PANELS) * (width + GAP) - GAP, height), "white")
    _paste(page, row, [k * (width + GAP) for k in range(len(PANELS))], 0)
    return Strip(np.asarray(page), row.caption, row.kinds)


def _paste(page: Image.Image, row: _Row, lefts: Sequence[int], top: int) -> None:
    for left, panel, note in zip(lefts, row.panels, row.notes, strict=False):
        page.paste(Image.fromarray(to_bytes(panel)), (left, top))
        write(page, note, (left + 6, top + max(SHORTEST, panel.shape[0]) - 6), light=True)


def _seen(picture: np.ndarray | None, frame: np.ndarray) -> np.ndarray:
    """A picture in the size of the frame's panel; without one, the darkened frame."""
    if picture is None:
        return 0.5 * frame
    height, width = frame.shape[:2]
    shrinks = height <= picture.shape[0] and width <= picture.shape[1]
    method = Image.Resampling.BOX if shrinks else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(picture).resize((width, height), method), np.float32) / 255


def _row(sample: Sample, longest: int = PANEL) -> _Row:
    """Draws the panels of a sample. Errors are found at full size, and then shrunk."""
    flat, cells, known = unfolded(sample.frame, sample.result, sample.truth, sample.step)
    size = panel_size((cells.shape[0], cells.shape[1]), max(PANEL, min(longest, max(cells.shape))))
    frame = grey(flat, size)
    panels = [frame, 0.5 * frame, frame.copy(), 0.5 * frame]
    notes = ["", "no truth", "", "no truth"]
    result = resample(cells, size)
    paint_cells(panels[2], result)
    found = int(np.count_nonzero(np.bincount(sample.result.ravel())[1:]))
    caption, kinds = f"{sample.sequence}   frame {sample.number}", Counter[str]()
    if sample.truth is None or known is None or not (sample.truth != -1).any():
        return _Row(f"{caption}   {_cells(found)} found", panels, notes, kinds)

    if not (sample.truth >= 0).any():
        paint_cells(panels[1], resample(cell_ids(known), size))
        notes[1] = "markers only"
        return _Row(f"{caption}   {_cells(found)} found", panels, notes, kinds)

    panels[1], notes[1], notes[3] = frame.copy(), "", ""
    _hatch(panels[1], resize_labels(known, size) == -1)
    paint_cells(panels[1], resample(cell_ids(known), size))
    errors = frame_errors(sample.result, sample.truth)
    true = [error for error in errors if error.side == "truth"]
    kinds.update(error.kind for error in true)
    kinds.update(error.kind for error in errors if error.side == "result" and error.kind == "spurious")
    kinds["unknown"] += int((sample.truth < 0).any())
    if true:
        caption += f"   SEG {np.mean([error.iou for error in true]):.3f}"
        caption += f"   {kinds['matched']} of {_cells(len(true))} matched"
    else:
        caption += f"   no true cells, {found} found"
    truth = resample(np.maximum(known, 0), size)
    _hatch(panels[3], resize_labels(known, size) < 0)
    _paint_errors(
        panels[3],
        (truth, {error.label: error.kind for error in true}),
        (result, {error.label: error.kind for error in errors if error.side == "result"}),
    )
    return _Row(caption, panels, notes, kinds)


def _paint_errors(
    panel: np.ndarray, truth: tuple[np.ndarray, dict[int, Kind]], result: tuple[np.ndarray, dict[int, Kind]]
) -> None:
    """Fills wrong cells and outlines all, in place; what is missed lies on top."""

    def of_kind(side: tuple[np.ndarray, dict[int, Kind]], kind: Kind) -> np.ndarray:
        labels, kinds = side
        return np.isin(labels, [label for label, other in kinds.items() if other == kind])

    true_rims, result_rims = rims(truth[0]), rims(result[0])
    lines: list[tuple[np.ndarray, Colour]] = [
        (true_rims & of_kind(truth, "matched"), KINDS["matched"]),
        (result_rims & of_kind(result, "unknown"), UNKNOWN),
    ]
    fill, filled = np.zeros_like(panel), np.zeros(panel.shape[:2], bool)
    for kind in ("spurious", "split", "merged", "missed"):
        own, other = of_kind(truth, kind), of_kind(result, kind)
        filled |= own | other
        fill[own | other] = KINDS[kind]
        lines.append(((true_rims & own) | (result_rims & other), KINDS[kind]))
    paint(panel, filled, fill, 0.45)
    for where, colour in lines:
        paint(panel, where, colour)


def _hatch(panel: np.ndarray, where: np.ndarray) -> None:
    """Darkens and stripes a part of a panel, in place."""
    rows, columns = np.indices(where.shape)
    stripe = (rows + columns) % 10 < 2
    paint(panel, where & ~stripe, (0, 0, 0), 0.35)
    paint(panel, where & stripe, (0.5, 0.5, 0.5), 0.5)


def _cells(count: int) -> str:
    return f"{count} cell" if count == 1 else f"{count} cells"


def _legend(kinds: Counter[str]) -> Iterator[tuple[str, str]]:
    for kind in KINDS:
        yield kind, f"{kind} {kinds[kind]}"
    if kinds["unknown"]:
        yield "unknown", "truth unknown"


def _wrapped(entries: list[tuple[str, str]], width: int) -> Iterator[list[tuple[str, str]]]:
    """Breaks the legend into lines."""
    line: list[tuple[str, str]] = []
    used = 0
    for name, text in entries:
        if line and used + _entry_width(text) > width:
            yield line
            line, used = [], 0
        line.append((name, text))
        used += _entry_width(text)
    yield line


def _entry_width(text: str) -> int:
    return 20 + text_width(text) + 24


def _swatch(page: Image.Image, name: str, left: int, top: int) -> None:
    """A small sample of how cells of a kind look."""
    swatch = np.full((14, 14, 3), 0.25, np.float32)
    inside = np.ones((14, 14), bool)
    inside[1:-1, 1:-1] = False
    if name == "unknown":
        _hatch(swatch, np.ones((14, 14), bool))
    else:
        colour = next(colour for kind, colour in KINDS.items() if kind == name)
        if name != "matched":
            paint(swatch, ~inside, colour, 0.6)
        paint(swatch, inside, colour)
    page.paste(Image.fromarray(to_bytes(swatch)), (left, top))
