"""The classical pipeline finds discs, bright or dark, and its tuning finds which they are."""

from pathlib import Path

import numpy as np
import pytest

from lightning_cells.data.image_files import write_image
from lightning_cells.data.sequence import Sequence
from lightning_cells.data.stills import open_images
from lightning_cells.errors import InputError
from lightning_cells.experiments.baselines import measure, tune
from lightning_cells.instances.classical import ThresholdWatershed

CENTRES = ((12, 12), (12, 27), (34, 20))  # the first two touch
RADIUS = 8


def discs() -> np.ndarray:
    """Labels of three discs."""
    labels = np.zeros((48, 48), np.uint16)
    rows, columns = np.mgrid[:48, :48]
    for number, (row, column) in enumerate(CENTRES, 1):
        labels[np.hypot(rows - row, columns - column) < RADIUS] = number
    return labels


def frame(dark: bool, seed: int = 0) -> np.ndarray:
    """An image of them, with noise."""
    shade = np.where(discs() > 0, 60, 160) if dark else np.where(discs() > 0, 160, 60)
    return (shade + np.random.default_rng(seed).normal(0, 4, shade.shape)).astype(np.uint8)


@pytest.mark.parametrize("dark", [False, True])
def test_touching_discs_are_told_apart(dark: bool) -> None:
    labels = ThresholdWatershed(dark=dark)(frame(dark))
    assert labels.dtype == np.int32
    found = [labels[centre] for centre in CENTRES]
    assert sorted(found) == [1, 2, 3]
    for number, label in enumerate(found, 1):
        true, ours = discs() == number, labels == label
        assert (true & ours).sum() / (true | ours).sum() > 0.85


def test_small_parts_are_dropped_and_a_constant_frame_has_none() -> None:
    assert ThresholdWatershed(min_size=1000)(frame(False)).max() == 0
    assert ThresholdWatershed()(np.full((8, 8), 3, np.uint16)).max() == 0


@pytest.fixture
def sequences(tmp_path: Path) -> list[Sequence]:
    """Two images of dark discs."""
    for number in range(2):
        write_image(tmp_path / f"images/{number}.tif", frame(True, number))
        write_image(tmp_path / f"labels/{number}.tif", discs())
    return open_images(tmp_path, "zscore", 1.0, "instances")


def test_tuning_finds_that_discs_are_dark(sequences: list[Sequence]) -> None:
    pipeline = tune(sequences[:1])
    assert pipeline.dark
    assert measure(pipeline, sequences[1:])["SEG"] > 0.9
    assert measure(ThresholdWatershed(), sequences[1:])["SEG"] < 0.1


def test_nothing_to_tune_by(sequences: list[Sequence], tmp_path: Path) -> None:
    for path in (tmp_path / "labels").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="no frame has segmentation truth"):
        tune([])
