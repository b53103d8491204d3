"""Classical pipelines, to be shown beside what networks reach: as they are, or tuned on the training videos."""

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from lightning_cells.data.cell_sizes import cell_areas, diameter_of, typical_diameter
from lightning_cells.data.ctc import merge_identities
from lightning_cells.data.sequence import Sequence
from lightning_cells.data.voxels import Voxel
from lightning_cells.errors import InputError
from lightning_cells.instances.classical import ThresholdWatershed
from lightning_cells.instances.linking import OverlapLinker
from lightning_cells.instances.pixel_forest import PixelForest
from lightning_cells.instances.volumes import ball
from lightning_cells.metrics.ctc_measures import CTCMatcher
from lightning_cells.result import Result

Pipeline = Callable[[np.ndarray], np.ndarray]
"""A frame, (H, W) of any number type -> int32 labels, 0 background."""

_WINDOWS = (1.5, 3.0, 6.0)  # diameters
_LEVELS = (0.4, 0.6, 0.8, 1.0, 1.2, 1.4)  # of Otsu's threshold
_LOCAL_LEVELS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)  # standard deviations
_CHOICES: dict[str, tuple[Any, ...]] = {  # lengths in diameters of a typical cell
    "dark": (False, True),
    "level": _LEVELS,
    "depth": (0.03, 0.06, 0.12, 0.25),
    "blur": (0.03, 0.06, 0.12),
    "min_size": (0.05, 0.1, 0.25, 0.5),
}
_ROUNDS = 2  # of one parameter after another
_MOST_FRAMES, _MOST_VOLUMES = 12, 4  # evenly spaced annotated frames that are looked at


def tune(sequences: Seq[Sequence]) -> ThresholdWatershed:
    """Returns the pipeline with the best SEG on training videos, by a threshold for the whole frame or a local one.

    One parameter is chosen after another, twice, for each of the two. Lengths go with the median diameter of the cells
    on disk; of volumes, with that of balls of their size, or of discs where single planes are known.

    Raises:
        InputError: if none of the frames has segmentation truth.
    """
    places = [(sequence, index) for sequence in sequences for index in np.flatnonzero(sequence.annotated)]
    places = [place for place in places if place[0].truth(int(place[1]))[0] is not None]
    if not places:
        raise InputError("data.train: no frame has segmentation truth to tune a classical pipeline by")
    most = min(_MOST_FRAMES if len(places[0][0].size) == 2 else _MOST_VOLUMES, len(places))
    chosen = [places[i] for i in np.linspace(0, len(places) - 1, most).astype(int)]
    samples = [(sequence.frame(int(index)), sequence.truth(int(index))[0]) for sequence, index in chosen]

    @cache
    def score(pipeline: ThresholdWatershed) -> float:
        matcher = CTCMatcher()
        for number, (frame, seg) in enumerate(samples):
            matcher.update(number, pipeline(frame), seg, None)
        return matcher.compute(None, None).SEG

    def best(start: ThresholdWatershed, choices: dict[str, tuple[Any, ...]]) -> ThresholdWatershed:
        for _ in range(_ROUNDS):
            for name, values in choices.items():
                start = max((replace(start, **{name: value}) for value in values), key=score)
        return start

    voxel = chosen[0][0].voxel
    whole = best(ThresholdWatershed(diameter=_diameter([seg for _, seg in samples], voxel), voxel=voxel), _CHOICES)
    local = replace(whole, window=_WINDOWS[0], level=_LOCAL_LEVELS[0])
    return max(whole, best(local, {"window": _WINDOWS, **_CHOICES, "level": _LOCAL_LEVELS}), key=score)


def _diameter(truth: list[np.ndarray | dict[int, np.ndarray]], voxel: Voxel) -> float:
    """The median diameter of cells in pixels."""
    areas = [cell_areas(plane) for seg in truth for plane in (seg.values() if isinstance(seg, dict) else [seg])]
    median = float(np.median(np.concatenate(areas)))
    solid = any(isinstance(seg, np.ndarray) and seg.ndim == 3 for seg in truth)
    return (median / ball(1.0, voxel)) ** (1 / 3) * diameter_of(1.0) if solid else diameter_of(median)


def pixel_forest(sequences: Seq[Sequence], seed: int) -> PixelForest:
    """Returns a classifier of pixels, trained on all annotated frames of videos at their size on disk.

    Raises:
        InputError: if none of the frames has segmentation truth, or they are volumes.
    """
    frames, labels = [], []
    for sequence in sequences:
        if len(sequence.size) == 3:
            raise InputError(f"{sequence.name}: is a video of volumes, and the forest takes images: 'classical: true'")
        for index in np.flatnonzero(sequence.annotated):
            seg, tra = sequence.truth(int(index))
            if isinstance(seg, np.ndarray):
                frames.append(sequence.frame(int(index)))
                labels.append(merge_identities(tra, seg))
    return PixelForest(frames, labels, seed)


def tracked(pipeline: Pipeline, sequence: Sequence) -> Result:
    """Segments the frames of a video, and links the cells by their overlap."""
    linker = OverlapLinker(first_frame=sequence.numbers[0])
    labels = [tracks for index in range(len(sequence)) for tracks in linker.push(pipeline(sequence.frame(index)))]
    return Result(np.stack(labels), linker.lineage, sequence.numbers[0])


def tracked_at_size(pipeline: ThresholdWatershed, sequence: Sequence) -> Result:
    """The same by the pipeline for cells of the true median diameter of the video, where its truth shows any.

    That is more than a trained method is told of a video that it has not seen.
    """
    diameter = typical_diameter([sequence])
    scale = sequence.frames.shape[-2] / sequence.size[-2]
    return tracked(pipeline if diameter is None else replace(pipeline, diameter=diameter / scale), sequence)
