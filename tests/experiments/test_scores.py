"""Tracked videos against their truth: the numbers are those of the challenge's evaluation of a folder."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lightning_cells.data.image_files import write_image
from lightning_cells.data.sequence import Sequence, open_sequence
from lightning_cells.data.stills import open_images
from lightning_cells.data.tracks import Track
from lightning_cells.experiments.scores import SECONDS, measure, tracked_by
from lightning_cells.metrics.evaluate import evaluate
from lightning_cells.result import Result

FIRST, STOP = 3, 9


def tracker(labels: Callable[[np.ndarray], np.ndarray]) -> SimpleNamespace:
    """Finds one cell in each frame of (T, H, W), the labels as a function of them; frames are numbered from 0."""

    def track(frames: np.ndarray, progress: bool) -> Result:
        found = labels(frames)
        return Result(found, {1: Track(1, 0, len(frames) - 1, 0)} if found.any() else {})

    return SimpleNamespace(track=track)


def blob(frames: np.ndarray) -> np.ndarray:
    """One cell, over the middle of each frame."""
    labels = np.zeros(frames.shape, np.int32)
    labels[:, 16:48, 16:48] = 1
    return labels


@pytest.fixture
def video(simulated: Path) -> Sequence:
    """Some frames in the middle of a video, at another scale than on disk."""
    return open_sequence(simulated, "01", "zscore", 0.5).select(FIRST, STOP)


def test_the_measures_are_those_of_result_folders(video: Sequence, simulated: Path, tmp_path: Path) -> None:
    values = measure(tracked_by(tracker(blob)), [video])
    row = Track(1, FIRST, STOP - 1, 0)
    folder = Result(blob(np.zeros((STOP - FIRST, 64, 64))), {1: row}, FIRST).save(tmp_path / "01_RES")
    expected = evaluate(folder, simulated / "01_GT", (FIRST, STOP)).values()
    for name in ("SEG", "DET", "TRA", "FN", "FP", "EA"):
        assert values[name] == pytest.approx(expected[name], abs=1e-6)
    assert values["FN"] > 0


def test_the_tracker_sees_the_frames_as_they_are_on_disk(video: Sequence) -> None:
    seen = []

    def track(frames: np.ndarray, progress: bool) -> Result:
        seen.append(frames)
        return Result(np.zeros(frames.shape, np.int32), {})

    tracked_by(SimpleNamespace(track=track))(video)
    (frames,) = seen
    assert (frames.dtype, frames.shape) == (np.uint16, (STOP - FIRST, 64, 64))


def test_stills_are_tracked_each_by_itself_and_pooled(tmp_path: Path) -> None:
    """One cell of the first image is found as it is, of the two of the second one by half and one not at all."""
    truth = np.zeros((2, 20, 30), np.uint16)
    truth[:, 2:8, 2:12] = 1
    truth[1, 12:18, 2:12] = 2
    for number, labels in enumerate(truth):
        write_image(tmp_path / f"images/{number}.tif", (labels > 0).astype(np.uint8) * 100 + number)
        write_image(tmp_path / f"labels/{number}.tif", labels)

    def find(frames: np.ndarray) -> np.ndarray:
        labels = np.zeros(frames.shape, np.int32)
        labels[:, 2:8, 2 : 12 - 4 * int(frames.min())] = 1
        return labels

    values = measure(tracked_by(tracker(find)), open_images(tmp_path, "zscore"))
    assert values["SEG"] == pytest.approx((1 + 0.6 + 0) / 3)
    assert values["DET"] == pytest.approx(1 - 1 / 3)
    assert (values["P"], values["R"]) == (1.0, pytest.approx(2 / 3))
    assert values[SECONDS] >= 0
