"""The lineage tree of a truth beside that of a result: which tracks are drawn, in which row, and how."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from lightning_cells.data.tracks import Lineage, Track
from lightning_cells.metrics.cells import Kind
from lightning_cells.metrics.divisions import Division, compare_divisions
from lightning_cells.visualization.drawing import Colour, track_colours
from lightning_cells.visualization.montage import KINDS

MOST_TRUE = 40
"""True tracks that are drawn, at most."""
MOST_SPURIOUS = 6
"""Rows of tracks that never cover a true cell, at most."""

Partners = dict[int, dict[int, int]]
"""Frame -> true label -> label of the result cell that covers it, 0 for none."""


@dataclass
class LineageRow:
    """One row of a picture of lineages.

    Attributes:
        truth: label of the true track in it, or 0.
        result: labels of the result's tracks in it, of which no two overlap in time.
    """

    truth: int = 0
    result: list[int] = field(default_factory=list)


@dataclass
class Rows:
    """The rows from top to bottom, and how much of all they show."""

    rows: list[LineageRow]
    families: int
    families_shown: int
    spurious: int  # tracks of the result that never cover a true cell
    spurious_shown: int


def arrange(truth: Lineage, result: Lineage, partners: Partners) -> Rows:
    """Gives true families their rows, those with most errors if not all have room, and puts the result beside them.

    A track of the result lies in the row of the true track that it covers most often, below it where that is taken.
    Tracks that cover none come last, the longest of them. Without a truth, the families of the result are shown.
    """
    if not truth:
        shown, families = _families(result, {})
        return Rows([LineageRow(result=[label]) for label in shown], families, _roots(shown, result), 0, 0)
    covered: dict[int, Counter[int]] = defaultdict(Counter)
    errors: Counter[int] = Counter()
    for cells in partners.values():
        for true, found in cells.items():
            if found:
                covered[found][true] += 1
            else:
                errors[true] += 1
    followers: dict[int, list[int]] = defaultdict(list)  # true label -> tracks of the result that follow it
    alone = []
    for label in result:
        if covered[label]:
            followers[covered[label].most_common(1)[0][0]].append(label)
        else:
            alone.append(label)
    errors.update({true: len(labels) - 1 for true, labels in followers.items()})
    shown, families = _families(truth, errors)
    rows = []
    for true in shown:
        rows += _packed(followers[true], result, LineageRow(true))
    alone.sort(key=lambda label: (result[label].begin - result[label].end, label))
    last = _packed(alone[: 10 * MOST_SPURIOUS], result)[:MOST_SPURIOUS]  # packing all of thousands would take long
    return Rows(rows + last, families, _roots(shown, truth), len(alone), sum(len(row.result) for row in last))


def _packed(labels: list[int], lineage: Lineage, first: LineageRow | None = None) -> list[LineageRow]:
    """Puts tracks into rows, in each those that fit in between."""
    rows = [first] if first else []
    for label in labels:
        track = lineage[label]
        for row in rows:
            if all(track.begin > lineage[o].end or track.end < lineage[o].begin for o in row.result):
                row.result.append(label)
                break
        else:
            rows.append(LineageRow(result=[label]))
    return rows


def _families(lineage: Lineage, errors: dict[int, int]) -> tuple[list[int], int]:
    """The tracks to show, each mother between her daughters, and the number of all families."""
    children: dict[int, list[int]] = defaultdict(list)
    for label in sorted(lineage):
        children[lineage[label].parent].append(label)
    members = {root: _inner_order(root, children) for root in children[0]}
    worst = sorted(
        members, key=lambda root: (-sum(errors.get(label, 0) for label in members[root]), -len(members[root]), root)
    )
    chosen: list[int] = []
    used = 0
    for root in worst:
        if not chosen or used + len(members[root]) <= MOST_TRUE:
            chosen.append(root)
            used += len(members[root])
    shown = [label for root in sorted(chosen) for label in members[root]]
    if used > MOST_TRUE:  # a single large family: those that come first, among which are the mothers of all
        first = set(sorted(shown, key=lambda label: (lineage[label].begin, label))[:MOST_TRUE])
        shown = [label for label in shown if label in first]
    return shown, len(members)


def _inner_order(root: int, children: dict[int, list[int]]) -> list[int]:
    order: list[int] = []
    waiting = [(root, False)]
    while waiting:  # without recursion: families may be deep
        label, opened = waiting.pop()
        if opened:
            order.append(label)
            continue
        half = len(children[label]) // 2
        waiting += [(child, False) for child in reversed(children[label][half:])]
        waiting.append((label, True))
        waiting += [(child, False) for child in reversed(children[label][:half])]
    return order


def _roots(labels: list[int], lineage: Lineage) -> int:
    return sum(lineage[label].parent == 0 for label in labels)


_DPI = 100
_PAPER, _GRID, _DIM, _LINK = "#1c1c1e", "#3a3a3e", "#96969b", "#78787d"
_WIDE, _TALL, _CROWDED, _AROUND = 470, 16, 12, 100  # pixels: a tree, its rows, the rows of many, titles and legend
_THICK, _HALF, _THIN = 3.6, 1.2, 0.6  # points


class Look(NamedTuple):
    """How a track is drawn in a frame: in the colour of which track, 0 for none, and how wide, in points."""

    colour: int
    width: float


Looks = dict[int, dict[int, Look]]
"""Frame -> label -> look. Where nothing is said of a frame, a track has its own colour."""
_NO_PARTNER = Look(0, _THIN)


def lineage_picture(truth: Lineage, result: Lineage, partners: Partners) -> np.ndarray:
    """Draws `lineage_figure`: uint8 (H, W, 3)."""
    canvas = FigureCanvasAgg(lineage_figure(truth, result, partners))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def lineage_figure(truth: Lineage, result: Lineage, partners: Partners) -> Figure:
    """Draws the tracks over time, row by row: on the left those of the truth, on the right those of the result.

    A track of the result lies in the row of the true track that it follows most of the time and has its colour
    wherever it covers it, so that a change of colour is a change of identity. Lines are thinner where one cell of the
    result covers several true ones, and thinnest where a cell has no partner. Circles and crosses are divisions that
    were found, missed, or made up. If not all true families have room, those with most errors are shown.

    Args:
        truth: the true tracks, which may be none: then there is only the tree of the result.
        result: the result's tracks.
        partners: for all frames with markers.
    """
    shown = arrange(truth, result, partners)
    compared = compare_divisions(result, truth, partners)
    sides = 2 if truth else 1
    count = max(1, len(shown.rows))
    height = count * (_TALL if count <= 24 else _CROWDED) + _AROUND
    size = (sides * _WIDE / _DPI, height / _DPI)
    figure = Figure(size, dpi=_DPI, layout="constrained")
    axes = figure.subplots(1, sides, sharex=True, sharey=True, squeeze=False)[0]
    heads = f"{len(compared.found)} found, {len(compared.missed)} missed, {len(compared.false)} false"
    if truth:
        rows = {row.truth: place for place, row in enumerate(shown.rows) if row.truth}
        _draw(axes[0], truth, rows, _found(partners), f"Truth: {_number(len(truth), 'track')}")
        _mark(axes[0], truth, rows, [true for true, _ in compared.found], "matched", "o")
        _mark(axes[0], truth, rows, compared.missed, "missed", "o")
    rows = {label: place for place, row in enumerate(shown.rows) for label in row.result}
    title = f"Result: {_number(len(result), 'track')}" + (f"; divisions: {heads}" if truth else "")
    _draw(axes[-1], result, rows, _followed(shown, partners) if truth else {}, title)
    _mark(axes[-1], result, rows, [ours for _, ours in compared.found], "matched", "o")
    _mark(axes[-1], result, rows, compared.false, "spurious", "x")
    tracks = [*truth.values(), *result.values()] or [Track(0, 0, 0, 0)]
    first, last = min(track.begin for track in tracks), max(track.end for track in tracks) + 1
    axes[0].set_xlim(first - 0.07 * (last - first), last)  # room for the numbers of the tracks
    axes[0].set_ylim(count - 0.5, -0.5)
    figure.suptitle(_left_out(shown, bool(truth)), fontsize=9, x=0.01, ha="left")
    if truth:
        figure.legend(handles=_legend(), loc="outside lower left", ncols=6, fontsize=8, frameon=False, handlelength=1.5)
    return figure


def _draw(axes: Axes, lineage: Lineage, rows: dict[int, int], looks: Looks, title: str) -> None:
    """Draws the tracks that have a row, and lines from mothers to daughters."""
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_facecolor(_PAPER)
    axes.grid(axis="x", color=_GRID, linewidth=_THIN)
    axes.set_axisbelow(True)
    axes.set_yticks([])
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("frame", fontsize=8)
    links, segments, colours, widths = [], [], [], []
    for label, row in rows.items():
        track = lineage[label]
        if track.parent in rows:
            above = rows[track.parent]
            links.append([(lineage[track.parent].end + 1, above), (track.begin, above), (track.begin, row)])
        for look, start, stop in _runs(track, looks):
            segments.append([(start, row), (stop, row)])
            colours.append(tuple(track_colours(np.array(look.colour))) if look.colour else _DIM)
            widths.append(look.width)
        text = axes.annotate(
            str(label), (track.begin, row), (-2, 0), textcoords="offset points", ha="right", va="center_baseline",
            fontsize=7, color="white", path_effects=[withStroke(linewidth=2, foreground=_PAPER)],
        )  # fmt: skip
        text.set_in_layout(False)
    axes.add_collection(LineCollection(links, colors=_LINK, linewidths=_THIN))
    axes.add_collection(LineCollection(segments, colors=colours, linewidths=widths, capstyle="butt"))


def _mark(axes: Axes, lineage: Lineage, rows: dict[int, int], divisions: list[Division], kind: Kind, sign: str) -> None:
    """Marks divisions at the end of the mother."""
    places = [(lineage[one.mother].end + 1, rows[one.mother]) for one in divisions if one.mother in rows]
    if places:
        axes.plot(*zip(*places, strict=True), sign, color=KINDS[kind], markersize=6, clip_on=False, zorder=3)


def _legend() -> list[Line2D]:
    example: Colour = tuple(track_colours(np.array(2)))
    return [
        Line2D([], [], color=example, linewidth=_THICK, label="matched, colour of the true track"),
        Line2D([], [], color=example, linewidth=_HALF, label="merged"),
        Line2D([], [], color=_LINK, linewidth=_THIN, label="missed or spurious"),
        Line2D([], [], color=KINDS["matched"], marker="o", linewidth=0, label="division found"),
        Line2D([], [], color=KINDS["missed"], marker="o", linewidth=0, label="division missed"),
        Line2D([], [], color=KINDS["spurious"], marker="x", linewidth=0, label="false division"),
    ]


def _runs(track: Track, looks: Looks) -> Iterator[tuple[Look, int, int]]:
    """Stretches of a track that look the same: how, the first frame, and the one after the last."""
    own = {track.label: Look(track.label, _THICK)}
    each = ((looks.get(frame, own).get(track.label, _NO_PARTNER), frame) for frame in range(track.begin, track.end + 1))
    for look, frames in groupby(each, key=lambda entry: entry[0]):
        numbers = [frame for _, frame in frames]
        yield look, numbers[0], numbers[-1] + 1


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


def _left_out(shown: Rows, truth: bool) -> str:
    parts = []
    if shown.families_shown < shown.families:
        worst = ", those with most errors" if truth else ", the largest"
        parts.append(f"{shown.families_shown} of {_number(shown.families, 'cell')} and their descendants{worst}")
    if shown.spurious_shown < shown.spurious:
        parts.append(f"{shown.spurious_shown} of {_number(shown.spurious, 'spurious track')}")
    return "shown: " + "; ".join(parts) if parts else ""


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
