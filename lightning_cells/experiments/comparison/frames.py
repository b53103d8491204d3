"""The same frames of several tests beside each other."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from lightning_cells.callbacks.findings import FRAMES
from lightning_cells.experiments.comparison.artifacts import read_files
from lightning_cells.experiments.comparison.cells import Cells
from lightning_cells.visualization.montage import GAP, PANELS
from lightning_cells.visualization.page import data_uri, webp

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
