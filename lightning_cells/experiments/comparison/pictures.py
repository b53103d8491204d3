"""Curves of trainings, intervals of measures, and the same frames of several tests beside each other."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from mlflow import MlflowClient
from mlflow.entities import Run
from numpy.typing import NDArray
from PIL import Image

from lightning_cells.callbacks.findings import FRAMES
from lightning_cells.experiments.comparison.runs import read_files
from lightning_cells.experiments.comparison.statistics import Cells, Measure
from lightning_cells.metrics.measures import FIRST
from lightning_cells.visualization.montage import GAP, PANELS
from lightning_cells.visualization.page import data_uri, webp

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Of the runs, after Okabe and Ito; with more runs they come again."""
_SHOWN = tuple(f"val/{name}" for name in (*FIRST, "LNK", "F"))
_MOST_POINTS = 1000  # of a curve
_COLUMNS = 3
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lightning_cells",  # names within the picture would be random
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}

Curve = NDArray[np.float64]
"""(N, 2): steps of the optimiser, ascending, and values."""


def read_curves(client: MlflowClient, run: Run) -> dict[str, Curve]:
    """Returns the curves of a training by name: the measures of its validation, and its losses."""
    names = [name for name in run.data.metrics if name in _SHOWN or "loss" in name]
    # Lightning logs a loss by step and by epoch: the second is the smoother one
    names = [name for name in names if f"{name.removesuffix('_step')}_epoch" not in names or not name.endswith("_step")]
    order = {name: place for place, name in enumerate(_SHOWN)}
    return {
        name: _curve(client, run.info.run_id, name)
        for name in sorted(names, key=lambda name: (order.get(name, len(order)), name))
    }


def draw_curves(runs: Sequence[Mapping[str, Curve]]) -> str | None:
    """Draws each curve that any of the runs has, the runs in `COLOURS` over each other.

    Returns:
        An address that holds the picture, or None if there is nothing to draw.
    """
    names = list(dict.fromkeys(name for curves in runs for name in curves))
    if not names:
        return None
    rows = -(-len(names) // _COLUMNS)
    with rc_context(_STYLE):
        figure = Figure(figsize=(12, 2.9 * rows), layout="constrained")
        for place, name in enumerate(names):
            axes = figure.add_subplot(rows, _COLUMNS, place + 1)
            axes.set_title(name, loc="left", parse_math=False)
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.grid(color="#e6e8eb")
            for number, curves in enumerate(runs):
                if name in curves:
                    _draw(axes, curves[name], number)
        return _svg(figure)


def draw_intervals(measure: str, runs: Sequence[Mapping[str, Measure]]) -> str | None:
    """Draws a measure of each run with its interval, the first run on top.

    Returns:
        An address that holds the picture, or None if no run has an interval.
    """
    if not any(measure in run and run[measure].interval for run in runs):
        return None
    with rc_context(_STYLE):
        figure = Figure(figsize=(7, 0.7 + 0.32 * len(runs)), layout="constrained")
        axes = figure.add_subplot()
        for number, run in enumerate(runs):
            shown = run.get(measure)
            if shown is None:
                continue
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(shown.value, number, "o", color=colour)
            if shown.interval is not None:
                axes.plot([shown.interval.low, shown.interval.high], [number, number], color=colour, linewidth=2)
        axes.set_ylim(len(runs) - 0.5, -0.5)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(measure)
        axes.grid(axis="x", color="#e6e8eb")
        return _svg(figure)


def _curve(client: MlflowClient, run_id: str, name: str) -> Curve:
    history = sorted(client.get_metric_history(run_id, name), key=lambda metric: metric.timestamp)
    last = {metric.step: metric.value for metric in history}  # a training that went on has logged some steps twice
    points = np.array(sorted(last.items()), np.float64).reshape(-1, 2)
    points = points[np.isfinite(points[:, 1])]
    if len(points) <= _MOST_POINTS:
        return points
    return points[np.linspace(0, len(points) - 1, _MOST_POINTS).astype(int)]


def _draw(axes: Axes, curve: Curve, number: int) -> None:
    marker = "o" if len(curve) < 30 else ""
    dashes = "-" if number < len(COLOURS) else "--"
    colour = COLOURS[number % len(COLOURS)]
    axes.plot(curve[:, 0], curve[:, 1], dashes, color=colour, marker=marker, markersize=3, linewidth=1.5)


def _svg(figure: Figure) -> str:
    """The picture as an address; a page shows it as an image, in which nothing runs."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"


_NAME = re.compile(r"(?P<video>[^/]+)/(?P<number>\d+)\.png")
_MOST = 8  # frames on a page

Place = tuple[str, int]
"""Video, and number of a frame."""
Strips = Mapping[Place, bytes]
"""The pictures of a test's frames: frame, truth, prediction and errors in a row, PNG."""


class Shown(NamedTuple):
    """What one run made of a frame.

    Attributes:
        number: of the run, from 0.
        picture: address that holds prediction and errors.
        note: SEG of this frame, where that is known.
    """

    number: int
    picture: str
    note: str


class Frame(NamedTuple):
    """A frame with all results.

    Attributes:
        video: its name, as it is safe for a file.
        number: of the frame.
        truth: address that holds the frame and its truth.
        runs: one for each run that has a picture of it.
    """

    video: str
    number: int
    truth: str
    runs: list[Shown]


def read_strips(client: MlflowClient, run: Run) -> dict[Place, bytes]:
    """Returns the pictures that a test has left."""
    found = {_NAME.fullmatch(path): content for path, content in read_files(client, run, FRAMES).items()}
    return {(name["video"], int(name["number"])): content for name, content in found.items() if name}


def side_by_side(runs: Mapping[int, tuple[Strips, Cells | None]]) -> tuple[list[Frame], int]:
    """Puts the results of runs that were tested on the same data beside each other.

    Args:
        runs: by number of the run.

    Returns:
        Frames that all of the runs have, or any of them if there is no such frame; and how many others there are.
    """
    every = {place for strips, _ in runs.values() for place in strips}
    shared = [place for place in sorted(every) if all(place in strips for strips, _ in runs.values())]
    frames = []
    for place in _spread(shared or sorted(every)):
        halves = {number: _halves(strips[place]) for number, (strips, _) in runs.items() if place in strips}
        known = {number: half for number, half in halves.items() if half is not None}
        if known:
            shown = [Shown(number, half[1], _note(runs[number][1], place)) for number, half in known.items()]
            frames.append(Frame(*place, next(iter(known.values()))[0], shown))
    return frames, len(every) - len(frames)


def _spread(places: Sequence[Place]) -> list[Place]:
    """At most so many places as fit on a page, from all videos, and from beginning to end of each."""
    chosen = np.linspace(0, len(places) - 1, min(_MOST, len(places)))
    return [places[int(place)] for place in chosen.round()]


def _halves(strip: bytes) -> tuple[str, str] | None:
    """Frame with truth, and prediction with errors; None for what is no such picture."""
    try:
        image = Image.open(io.BytesIO(strip)).convert("RGB")
    except (OSError, ValueError):
        return None
    panel = (image.width - (len(PANELS) - 1) * GAP) // len(PANELS)
    middle = 2 * (panel + GAP)
    left, right = (0, 0, middle - GAP, image.height), (middle, 0, image.width, image.height)
    return _packed(image.crop(left)), _packed(image.crop(right))


def _packed(image: Image.Image) -> str:
    return data_uri(webp(np.asarray(image)), "webp")


def _note(cells: Cells | None, place: Place) -> str:
    iou = np.zeros(0) if cells is None else cells.of_frame(*place)
    return f"SEG {iou.mean():.3f} of {len(iou)} cells" if len(iou) else ""
