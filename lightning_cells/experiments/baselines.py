"""Classical pipelines, to be shown beside what networks reach: as they are, or tuned on the training videos."""

import math
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import Any

import numpy as np

from lightning_cells.data.image_files import read_frame
from lightning_cells.data.sequence import Sequence
from lightning_cells.data.tracks import clip_lineage
from lightning_cells.errors import InputError
from lightning_cells.instances.classical import ThresholdWatershed
from lightning_cells.instances.linking import OverlapLinker
from lightning_cells.metrics.counts import CTCCounts
from lightning_cells.metrics.ctc_measures import CTCMatcher

_CHOICES: dict[str, tuple[Any, ...]] = {
    "dark": (False, True),
    "level": (0.4, 0.6, 0.8, 1.0, 1.2, 1.4),
    "depth": (0.5, 1.0, 2.0, 4.0),
    "blur": (0.5, 1.0, 2.0),
    "min_size": (10, 20, 50, 100, 300),
}
_ROUNDS = 2  # of one parameter after another
_MOST_FRAMES = 12  # evenly spaced annotated frames that are looked at


def tune(sequences: Seq[Sequence]) -> ThresholdWatershed:
    """Returns the pipeline with the best SEG on training videos.

    One parameter is chosen after another, twice. What is tried is in pixels of the frames on disk.

    Raises:
        InputError: if none of the frames has segmentation truth.
    """
    places = [(sequence, index) for sequence in sequences for index in np.flatnonzero(sequence.annotated)]
    places = [place for place in places if place[0].truth(int(place[1]))[0] is not None]
    if not places:
        raise InputError("data.train: no frame has segmentation truth to tune a classical pipeline by")
    chosen = [places[i] for i in np.linspace(0, len(places) - 1, min(_MOST_FRAMES, len(places))).astype(int)]
    samples = [(_frame(sequence, int(index)), sequence.truth(int(index))[0]) for sequence, index in chosen]

    def score(pipeline: ThresholdWatershed) -> float:
        matcher = CTCMatcher()
        for number, (frame, seg) in enumerate(samples):
            matcher.update(number, pipeline(frame), seg, None)
        return matcher.compute(None, None).SEG

    best = ThresholdWatershed()
    for _ in range(_ROUNDS):
        for name, values in _CHOICES.items():
            best = max((replace(best, **{name: value}) for value in values), key=score)
    return best


def measure(pipeline: Callable[[np.ndarray], np.ndarray], sequences: Seq[Sequence]) -> dict[str, float]:
    """Segments videos, links by overlap, and returns the challenge's measures, pooled; those that can be computed.

    Args:
        pipeline: a frame, (H, W) of any number type -> int32 labels.
        sequences: the videos.
    """
    counts = CTCCounts()
    for sequence in sequences:
        matcher, linker = CTCMatcher(), OverlapLinker(first_frame=sequence.numbers[0])
        for index, number in enumerate(sequence.numbers):
            (tracks,) = linker.push(pipeline(_frame(sequence, index)))
            matcher.update(number, tracks, *sequence.truth(index))
        truth = clip_lineage(sequence.lineage, sequence.numbers[0], sequence.numbers[-1] + 1)
        counts += matcher.compute(linker.lineage, truth)
    return {name: value for name, value in counts.values().items() if math.isfinite(value)}


def _frame(sequence: Sequence, index: int) -> np.ndarray:
    return read_frame(sequence.files.frames[sequence.numbers[index]])
