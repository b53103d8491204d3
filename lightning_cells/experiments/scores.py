"""Tracked videos against their truth, whatever tracked them."""

import math
import time
from collections.abc import Callable, Iterable

import numpy as np

from lightning_cells.data.sequence import Sequence
from lightning_cells.data.tracks import clip_lineage
from lightning_cells.metrics.matcher import CTCMatcher
from lightning_cells.metrics.measures import video_measures
from lightning_cells.result import Result
from lightning_cells.tracking import Tracker

SECONDS, MINUTES = "s/frame", "CPU minutes"
"""Measures beside those of the cells: what tracking a frame takes of the processor, and what the training took."""

Track = Callable[[Sequence], Result]
"""Tracks the cells of a video; the numbers of its frames are those of the video."""


def measure(track: Track, sequences: Iterable[Sequence]) -> dict[str, float]:
    """Tracks videos and returns their measures, pooled, and `SECONDS`; those that can be computed.

    Where there are no markers, as with still images, the segmented cells are all there are, and take their place.
    """
    measures, seconds, frames = video_measures(), 0.0, 0
    for sequence in sequences:
        start = time.process_time()
        result = track(sequence)
        seconds += time.process_time() - start
        frames += len(sequence)
        matcher, marked = CTCMatcher(), bool(sequence.files.tra)
        for index, (number, labels) in enumerate(zip(sequence.numbers, result.labels, strict=True)):
            seg, tra = sequence.truth(index)
            if not marked and isinstance(seg, np.ndarray):
                tra = seg
            matcher.update(number, labels, seg, tra)
        truth = clip_lineage(sequence.lineage, sequence.numbers[0], sequence.numbers[-1] + 1)
        counts = matcher.compute(result.lineage, truth if marked else None)
        measures.update(counts=counts, detections=matcher.detections, result=result.lineage, truth=truth)
    values = {name: float(value) for name, value in measures.compute().items()} | {SECONDS: seconds / max(frames, 1)}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def tracked_by(tracker: Tracker) -> Track:
    """Tracks each video as anyone's: what is known of it are its frames."""

    def track(sequence: Sequence) -> Result:
        frames = np.stack([sequence.frame(index) for index in range(len(sequence))])
        first = sequence.numbers[0]
        result = tracker.track(frames, progress=False)
        lineage = {
            label: row._replace(begin=row.begin + first, end=row.end + first) for label, row in result.lineage.items()
        }
        return Result(result.labels, lineage, first)

    return track
