"""The lineage tree of a truth beside that of a result."""

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from lightning_cells.data.ctc import Lineage, Track
from lightning_cells.metrics.divisions import Division, compare_divisions
from lightning_cells.visualization.drawing import text_width, to_bytes, track_colours, write
from lightning_cells.visualization.lineage_rows import Partners, Rows, arrange
from lightning_cells.visualization.montage import KINDS

WIDTH = 470  # pixels of one tree
MARGIN, GAP, HEADER, AXIS, LEGEND = 12, 16, 48, 22, 26
_FINE = 3  # drawn this many times larger, since Pillow's lines are jagged
_PAPER, _GRID, _DIM, _LINK = (28, 28, 30), (58, 58, 62), (150, 150, 155), (120, 120, 125)
_LABEL = 40  # pixels in front of the first frame, for the numbers of the tracks
_THICK, _HALF, _THIN = 5, 2, 1
_FOUND, _MISSED, _FALSE = (tuple(to_bytes(np.array(KINDS[kind]))) for kind in ("matched", "missed", "spurious"))

Ink = tuple[int, ...]


class Look(NamedTuple):
    """How a track is drawn in a frame: in the colour of which track, 0 for none, and how wide."""

    colour: int
    width: int


Looks = dict[int, dict[int, Look]]
_NO_PARTNER = Look(0, _THIN)


def lineage_picture(truth: Lineage, result: Lineage, partners: Partners) -> np.ndarray:
    """Draws the tracks over time, row by row: on the left those of the truth, on the right those of the result.

    A track of the result lies in the row of the true track that it follows most of the time and has its colour
    wherever it covers it, so that a change of colour is a change of identity. Lines are thinner where one cell of the
    result covers several true ones, and thinnest where a cell has no partner. Circles and crosses are divisions that
    were found, missed, or made up. If not all true families have room, those with most errors are shown.

    Args:
        truth: the true tracks, which may be none: then there is only the tree of the result.
        result: the result's tracks.
        partners: for all frames with markers.

    Returns:
        uint8 (H, W, 3).
    """
    shown = arrange(truth, result, partners)
    compared = compare_divisions(result, truth, partners)
    tracks = [*truth.values(), *result.values()] or [Track(0, 0, 0, 0)]
    first, last = min(t.begin for t in tracks), max(t.end for t in tracks)
    tall = 16 if len(shown.rows) <= 24 else 12
    sides = 2 if truth else 1
    height = max(1, len(shown.rows)) * tall + 8
    page = Image.new("RGB", (2 * MARGIN + sides * (WIDTH + GAP) - GAP, HEADER + height + AXIS + LEGEND), "white")
    found = [true for true, _ in compared.found], [ours for _, ours in compared.found]
    trees = []
    if truth:
        trees.append(_Tree((first, last), (height, tall), truth, _true_rows(shown)))
        trees[0].draw(_found(partners))
        trees[0].mark([(found[0], _FOUND, "o"), (compared.missed, _MISSED, "o")])
    trees.append(_Tree((first, last), (height, tall), result, _result_rows(shown)))
    trees[-1].draw(_followed(shown, partners) if truth else {})
    trees[-1].mark([(found[1], _FOUND, "o"), (compared.false, _FALSE, "x")])
    for side, tree in enumerate(trees):
        left = MARGIN + side * (WIDTH + GAP)
        page.paste(tree.image(), (left, HEADER))
        for frame in tree.ticks:
            write(page, str(frame), (left + tree.x(frame) / _FINE, HEADER + height + 15), size=11, anchor="ms")
        write(page, "frame", (left, HEADER + height + 15), size=11)
    counts = f"{len(compared.found)} found, {len(compared.missed)} missed, {len(compared.false)} false"
    heads = [f"Truth: {_number(len(truth), 'track')}"] if truth else []
    heads += [f"Result: {_number(len(result), 'track')}" + (f"; divisions: {counts}" if truth else "")]
    for side, head in enumerate(heads):
        write(page, head, (MARGIN + side * (WIDTH + GAP), 20), size=16)
    write(page, _shown(shown, bool(truth)), (MARGIN, 39), size=12)
    if truth:
        _legend(page, HEADER + height + AXIS)
    return np.asarray(page)


class _Tree:
    """One of the two trees, drawn at `_FINE` times its size."""

    def __init__(self, frames: tuple[int, int], size: tuple[int, int], lineage: Lineage, rows: dict[int, int]) -> None:
        self._first, self._last = frames
        self._tall = size[1] * _FINE
        self._lineage, self._rows = lineage, rows
        self._page = Image.new("RGB", (WIDTH * _FINE, size[0] * _FINE), _PAPER)
        self._ink = ImageDraw.Draw(self._page)
        self._signs = Image.new("RGBA", self._page.size)  # above the numbers
        self._texts: list[tuple[float, float, str]] = []
        count = self._last - self._first + 1
        step = next(s for k in range(9) for s in (10**k, 2 * 10**k, 5 * 10**k) if count / s <= 8)
        self.ticks = [f for f in range(self._first, self._last + 1) if f % step == 0]
        for frame in self.ticks:
            self._line(self.x(frame), 0, self.x(frame), size[0] * _FINE, _GRID, _THIN)

    def x(self, frame: float) -> float:
        """Where a frame begins."""
        share = (frame - self._first) / (self._last - self._first + 1)
        return _FINE * (_LABEL + share * (WIDTH - _LABEL - 8))

    def draw(self, looks: Looks) -> None:
        """Draws all tracks.

        Args:
            looks: frame -> label -> how the line looks; without a word of the label it is thin. Where nothing is said
                of a frame, a track has its own colour.
        """
        for label, row in self._rows.items():
            track = self._lineage[label]
            y = self._y(row)
            begin = self.x(track.begin)
            if track.parent in self._rows:
                mother, above = self._lineage[track.parent], self._y(self._rows[track.parent])
                self._line(self.x(mother.end + 1), above, begin, above, _LINK, _THIN)
                self._line(begin, above, begin, y, _LINK, _THIN)
            for look, start, stop in _runs(track, looks):
                ink = tuple(to_bytes(track_colours(np.array(look.colour)))) if look.colour else _DIM
                self._line(self.x(start), y, self.x(stop), y, ink, look.width)
            self._texts.append((begin / _FINE - 3, y / _FINE, str(label)))

    def mark(self, kinds: list[tuple[list[Division], Ink, str]]) -> None:
        """Marks divisions at the end of the mother."""
        for divisions, ink, sign in kinds:
            for division in divisions:
                if division.mother in self._rows:
                    mother = self._lineage[division.mother]
                    _sign(
                        ImageDraw.Draw(self._signs),
                        self.x(mother.end + 1),
                        self._y(self._rows[division.mother]),
                        ink,
                        sign,
                        _FINE,
                    )

    def image(self) -> Image.Image:
        """The tree at its size, with the numbers of the tracks."""
        size = (self._page.width // _FINE, self._page.height // _FINE)
        small = self._page.resize(size, Image.Resampling.BOX)
        taken: dict[float, float] = {}  # how far a row is written on
        for x, y, text in sorted(self._texts):
            right = max(x, 18)
            if right - text_width(text, 10) > taken.get(y, 0):
                write(small, text, (right, y), size=10, anchor="rm", light=True)
                taken[y] = right
        signs = self._signs.resize(size, Image.Resampling.BOX)
        small.paste(signs, mask=signs)
        return small

    def _y(self, row: int) -> float:
        return 4 * _FINE + (row + 0.5) * self._tall

    def _line(self, x0: float, y0: float, x1: float, y1: float, ink: Ink, width: int) -> None:
        self._ink.line([(x0, y0), (x1, y1)], ink, width * _FINE)


def _runs(track: Track, looks: Looks) -> Iterator[tuple[Look, int, int]]:
    """Stretches of a track that look the same: how, the first frame, and the one after the last."""
    own = {track.label: Look(track.label, _THICK)}
    each = ((looks.get(frame, own).get(track.label, _NO_PARTNER), frame) for frame in _frames(track))
    for look, frames in groupby(each, key=lambda entry: entry[0]):
        numbers = [frame for _, frame in frames]
        yield look, numbers[0], numbers[-1] + 1


def _frames(track: Track) -> range:
    return range(track.begin, track.end + 1)


def _true_rows(shown: Rows) -> dict[int, int]:
    return {row.truth: k for k, row in enumerate(shown.rows) if row.truth}


def _result_rows(shown: Rows) -> dict[int, int]:
    return {label: k for k, row in enumerate(shown.rows) for label in row.result}


def _found(partners: Partners) -> Looks:
    """How the true tracks look."""
    looks: Looks = {}
    for frame, cells in partners.items():
        covers = Counter(cells.values())
        looks[frame] = {
            true: Look(true, _THICK if covers[found] == 1 else _HALF) for true, found in cells.items() if found
        }
    return looks


def _followed(shown: Rows, partners: Partners) -> Looks:
    """How the tracks of the result look: as the true track of their row, if they cover several."""
    own = {label: row.truth for row in shown.rows for label in row.result}
    looks: Looks = {}
    for frame, cells in partners.items():
        there: dict[int, int] = {}
        for true, found in cells.items():
            if found and (found not in there or own.get(found) == true):
                there[found] = true
        covers = Counter(cells.values())
        looks[frame] = {label: Look(true, _THICK if covers[label] == 1 else _HALF) for label, true in there.items()}
    return looks


def _sign(ink: ImageDraw.ImageDraw, x: float, y: float, colour: Ink, sign: str, fine: int) -> None:
    reach = 4 * fine
    if sign == "o":
        ink.ellipse((x - reach, y - reach, x + reach, y + reach), colour, _PAPER, fine)
        return
    for slope in (-1, 1):
        ink.line([(x - reach, y - slope * reach), (x + reach, y + slope * reach)], colour, 2 * fine)


def _legend(page: Image.Image, top: int) -> None:
    ink = ImageDraw.Draw(page)
    left, middle = MARGIN, top + 12
    example = tuple(to_bytes(track_colours(np.array(2))))
    lines = ((_THICK, example, "matched, colour of the true track"), (_HALF, example, "merged"))
    for width, colour, text in (*lines, (_THIN, _LINK, "missed or spurious")):
        ink.line([(left, middle), (left + 24, middle)], colour, width)
        write(page, text, (left + 30, middle), size=12, anchor="lm")
        left += 30 + text_width(text, 12) + 18
    signs = ((_FOUND, "o", "division found"), (_MISSED, "o", "division missed"), (_FALSE, "x", "false division"))
    for colour, sign, text in signs:
        _sign(ink, left + 5, middle, colour, sign, 1)
        write(page, text, (left + 14, middle), size=12, anchor="lm")
        left += 14 + text_width(text, 12) + 18


def _shown(shown: Rows, truth: bool) -> str:
    parts = []
    if shown.families_shown < shown.families:
        worst = ", those with most errors" if truth else ", the largest"
        parts.append(f"{shown.families_shown} of {_number(shown.families, 'cell')} and their descendants{worst}")
    if shown.spurious_shown < shown.spurious:
        parts.append(f"{shown.spurious_shown} of {_number(shown.spurious, 'spurious track')}")
    return "shown: " + "; ".join(parts) if parts else ""


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
