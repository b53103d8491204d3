"""The size of cells in frames of one's own, as a method sees them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skimage.measure import label

from lightning_cells.data.sequence import open_sequence, typical_diameter
from lightning_cells.methods.building import Preprocessing
from lightning_cells.methods.cell_size import estimate_size

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
    found = estimate_size(Thresholding(), PREPROCESSING, frames, TRAINED)
    assert found.diameter == pytest.approx(diameter, rel=0.12)
    assert found.scale * found.diameter == pytest.approx(TRAINED)


@pytest.mark.parametrize(
    "frame",
    [np.full((300, 300), 77, np.uint8), np.random.default_rng(1).integers(0, 255, (300, 300)).astype(np.uint8)],
    ids=["one value", "noise"],
)
def test_frames_without_cells_have_no_size(frame):
    assert estimate_size(Thresholding(), PREPROCESSING, [frame], TRAINED) is None


def test_the_typical_cell_of_a_training(simulated: Path):
    videos = [open_sequence(simulated, name, "zscore", scale) for name in ("01", "02") for scale in (1.0,)]
    areas = np.concatenate([np.bincount(frame.ravel())[1:] for video in videos for frame in video.labels])
    expected = np.sqrt(4 / np.pi * np.median(areas[areas > 0]))
    assert typical_diameter(videos) == pytest.approx(expected)
    halved = typical_diameter([open_sequence(simulated, "01", "zscore", 0.5)])
    assert halved == pytest.approx(typical_diameter(videos[:1]) / 2, rel=0.1)
    assert typical_diameter([]) is None
