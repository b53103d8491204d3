"""The size of cells in frames of one's own, as a method sees them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skimage.measure import label

from lightning_cells.data.cell_sizes import typical_diameter
from lightning_cells.data.sequence import open_sequence
from lightning_cells.methods.building import Preprocessing
from lightning_cells.methods.cell_size import estimate_diameter

TRAINED = 13.0
PREPROCESSING = Preprocessing("zscore", 1.0, TRAINED)


class Thresholding:
    """Finds what is bright; of cells larger than twice those of its training only pieces, as networks do."""

    device = torch.device("cpu")

    def open_video(self, size: tuple[int, int]) -> SimpleNamespace:
        return SimpleNamespace(instances=lambda frames: [self.cells(frame[0].numpy()) for frame in frames])

    def cells(self, frame: np.ndarray) -> np.ndarray:
        bright = frame > 1.5
        areas = np.bincount(label(bright).ravel())[1:]
        if len(areas) and np.sqrt(np.median(areas)) > 2 * TRAINED:
            bright[:: int(TRAINED // 2)] = False
        return label(bright).astype(np.int32)


def discs(diameter: float, count: int = 12, size: int = 400) -> np.ndarray:
    """Bright discs on a dim, noisy background, with specks between them."""
    rng = np.random.default_rng(0)
    frame = rng.normal(100, 5, (size, size))
    rows, columns = np.indices(frame.shape)
    side = int(np.ceil(np.sqrt(count)))
    for k in range(count):
        y, x = (np.array(divmod(k, side)) + 0.5) * size / side
        frame[(rows - y) ** 2 + (columns - x) ** 2 <= (diameter / 2) ** 2] = 250
    frame[rng.integers(0, size, 30), rng.integers(0, size, 30)] = 250
    return frame.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("diameter", [9, 16, 30, 55, 80])
def test_discs_of_any_size(diameter):
    frames = [discs(diameter), discs(diameter, 8)]
    assert estimate_diameter(Thresholding(), PREPROCESSING, frames, TRAINED) == pytest.approx(diameter, rel=0.12)
    twice = PREPROCESSING._replace(scale=2.0)  # of a training whose frames were enlarged
    assert estimate_diameter(Thresholding(), twice, frames, TRAINED) == pytest.approx(diameter, rel=0.12)


@pytest.mark.parametrize(
    "frame",
    [np.full((300, 300), 77, np.uint8), np.random.default_rng(1).integers(0, 255, (300, 300)).astype(np.uint8)],
    ids=["one value", "noise"],
)
def test_frames_without_cells_have_no_size(frame):
    assert estimate_diameter(Thresholding(), PREPROCESSING, [frame], TRAINED) is None


def test_pieces_of_the_right_size_are_not_taken_for_cells():
    """At every scale the method finds pieces as large as the training's cells, whose size in the frames so changes."""
    pieces = Thresholding()
    pieces.cells = lambda frame: label(np.kron(np.indices((30, 30)).sum(0) % 2, np.ones((12, 12)))).astype(np.int32)
    assert estimate_diameter(pieces, PREPROCESSING, [discs(60)], TRAINED) is None


def test_no_other_scale_is_looked_at_where_the_trainings_fits():
    seen = []
    method = Thresholding()
    method.open_video = lambda size: seen.append(size) or Thresholding.open_video(method, size)
    estimate_diameter(method, PREPROCESSING, [discs(13, 40)], TRAINED)
    assert len(seen) == 3
    estimate_diameter(method, PREPROCESSING, [discs(50)], TRAINED)
    assert len(seen) > 3 + 6
    assert max(max(size) for size in seen) <= 16 * TRAINED


def test_the_typical_cell_of_a_training(simulated: Path):
    videos = [open_sequence(simulated, name, "zscore", scale) for name in ("01", "02") for scale in (1.0,)]
    areas = np.concatenate([np.bincount(frame.ravel())[1:] for video in videos for frame in video.labels])
    expected = np.sqrt(4 / np.pi * np.median(areas[areas > 0]))
    assert typical_diameter(videos) == pytest.approx(expected)
    halved = typical_diameter([open_sequence(simulated, "01", "zscore", 0.5)])
    assert halved == pytest.approx(typical_diameter(videos[:1]) / 2, rel=0.1)
    assert typical_diameter([]) is None
