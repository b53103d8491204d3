"""The page of a test: one HTML file that shows what it found and how it came about."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from lightning_cells.callbacks.findings import CELLS, CellRow, Findings, VideoFindings
from lightning_cells.metrics.measures import MEASURES, OPERATIONS
from lightning_cells.visualization.montage import KINDS, Strip
from lightning_cells.visualization.page import data_uri, png, render, script, webp

_SHOWN_CELLS = 100
_LABELS = ("truth_label", "label")  # 0 for none
_CAPTIONS = {"truth_label": "true cell", "label": "cell", "area": "pixels", "iou": "IoU"}  # other columns have none


@dataclass
class About:
    """What is told of a test beside what it found.

    Attributes:
        title: name of the run.
        facts: method, data set and the like, in one line.
        measures: name without ``test/`` -> value.
        origin: where it comes from, by what it is: told first.
        table: further facts, alike.
        config: all options, as YAML; empty if unknown.
        command: by which the test was started; empty if unknown.
        notes: what else the reader must know of the measures.
    """

    title: str
    facts: str = ""
    measures: Mapping[str, float] = field(default_factory=dict)
    table: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    command: str = ""
    notes: list[str] = field(default_factory=list)
    origin: Mapping[str, str] = field(default_factory=dict)


def report_page(about: About, findings: Findings, worst: list[Strip]) -> str:
    """Writes the page.

    Args:
        about: the test.
        findings: what it found; all videos are complete.
        worst: the worst frames, in order.
    """
    others = [name for name in about.measures if name not in MEASURES and name not in OPERATIONS]
    values = {name: None if value != value else float(value) for name, value in about.measures.items()}
    legend_kinds = sum((strip.kinds for strip in worst), Counter[str]())
    context = {
        "title": about.title,
        "facts": about.facts,
        "measures": [(name, values[name], MEASURES.get(name, "")) for name in [*MEASURES, *others] if name in values],
        "operations": [(name, _whole(values[name]), says) for name, says in OPERATIONS.items() if name in values],
        "notes": about.notes,
        **_videos(findings.videos),
        "legend": [(kind, _css(kind), legend_kinds[kind]) for kind in KINDS],
        "unknown": legend_kinds["unknown"] > 0,
        "worst": [{"uri": data_uri(webp(strip.image), "webp"), "caption": strip.caption} for strip in worst],
        "tracked": [_tracked(video) for video in findings.videos if video.animation is not None],
        **_cells(findings),
        "origin": [(name, value) for name, value in about.origin.items() if value],
        "about": [(name, value) for name, value in about.table.items() if value],
        "script": script("report.js"),
        "config": about.config,
        "command": about.command,
    }
    return render("report.html.j2", context)


def _videos(videos: list[VideoFindings]) -> dict[str, object]:
    shown = [*videos, _total(videos)] if len(videos) > 1 else videos
    return {
        "found_columns": ["Video", "True cells", "SEG", *KINDS],
        "found": [
            (v.key, v.true_cells, v.iou / v.true_cells if v.true_cells else None, *(v.kinds[kind] for kind in KINDS))
            for v in shown
        ],
        "tracked_columns": ["Video", "Frames", "Tracks", "Divisions found", "Divisions missed", "False divisions"],
        "tracks": [(v.key, v.frames, v.tracks, *(v.divisions or (None, None, None))) for v in shown],
    }


def _total(videos: list[VideoFindings]) -> VideoFindings:
    total = VideoFindings("all")
    for video in videos:
        total.frames += video.frames
        total.true_cells += video.true_cells
        total.iou += video.iou
        total.kinds += video.kinds
        total.tracks += video.tracks
        if video.divisions is not None:
            found, missed, false = total.divisions or (0, 0, 0)
            total.divisions = (found + video.divisions[0], missed + video.divisions[1], false + video.divisions[2])
    return total


def _cells(findings: Findings) -> dict[str, object]:
    """The worst cells: errors of the largest area first, then the lowest overlap."""

    def badness(row: CellRow) -> tuple[bool, float, int]:
        return row.kind == "matched", row.iou if row.truth_label else 0.0, -row.area

    known = sorted((row for row in findings.cells if row.kind != "unknown"), key=badness)
    shown = known[:_SHOWN_CELLS]
    note = f"The {len(shown)} worst of {len(known)} cells." if len(shown) < len(known) else "The worst first."
    rows = [
        [None if name in _LABELS and not value else value for name, value in row._asdict().items()] for row in shown
    ]
    columns = [_CAPTIONS.get(name, name) for name in CellRow._fields]
    where = f" All are in the artifact {CELLS}."
    return {"cell_columns": columns, "cells": rows, "cells_note": note + where}


def _tracked(video: VideoFindings) -> dict[str, str | list[str]]:
    assert video.lineage is not None
    return {
        "name": video.key,
        "frames": [data_uri(picture, "webp") for picture in video.pictures],
        "lineage": data_uri(png(video.lineage)),
    }


def _css(kind: str) -> str:
    colour = next(colour for name, colour in KINDS.items() if name == kind)
    return "#" + "".join(f"{round(255 * value):02x}" for value in colour)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
