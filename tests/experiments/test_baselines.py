"""The classical pipeline finds discs, bright or dark, and its tuning finds which they are, and in which light."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from skimage.filters import threshold_local

from lightning_cells.data.image_files import write_image
from lightning_cells.data.sequence import Sequence
from lightning_cells.data.stills import open_images
from lightning_cells.errors import InputError
from lightning_cells.experiments.baselines import tracked, tracked_at_size, tune
from lightning_cells.experiments.scores import SECONDS, measure
from lightning_cells.instances.classical import ThresholdWatershed, local_mean

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
    assert ThresholdWatershed(min_size=1.5)(frame(False)).max() == 0
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
    assert pipeline.diameter == pytest.approx(2 * RADIUS, abs=0.5)
    values = measure(partial(tracked, pipeline), sequences[1:])
    assert values["SEG"] > 0.9
    assert values["DET"] > 0.9, "where there are no markers, the cells are"
    assert values[SECONDS] > 0
    assert measure(partial(tracked, ThresholdWatershed()), sequences[1:])["SEG"] < 0.1


def test_tuning_finds_that_the_light_is_uneven(tmp_path: Path) -> None:
    """On a slope of light as high as four cells no threshold serves the whole frame."""
    slope = frame(False).astype(np.uint16) + np.linspace(0, 400, 48).astype(np.uint16)
    write_image(tmp_path / "images/0.tif", slope)
    write_image(tmp_path / "labels/0.tif", discs())
    videos = open_images(tmp_path, "zscore", 1.0, "instances")
    pipeline = tune(videos)
    assert pipeline.window
    assert measure(partial(tracked, pipeline), videos)["SEG"] > 0.8
    assert measure(partial(tracked, replace(pipeline, window=0.0, level=1.0)), videos)["SEG"] < 0.5


@pytest.mark.parametrize("side", [3, 8, 15])
def test_the_local_threshold_is_that_of_scikit_image(side: int) -> None:
    image = np.random.default_rng(side).normal(size=(40, 57))
    expected = threshold_local(image, 2 * (side // 2) + 1, method="mean", mode="reflect")
    np.testing.assert_allclose(local_mean(image, side), expected, atol=1e-12)


def test_a_window_beyond_the_frame_is_cut() -> None:
    assert local_mean(np.eye(9), 1000.0).shape == (9, 9)


def test_cells_of_three_times_the_size_are_the_same_to_the_pipeline(sequences: list[Sequence], tmp_path: Path) -> None:
    """The depth and the least size are such that, in pixels, they would do on one of the two scales alone."""
    for kind, image in (("images", frame(True, 1)), ("labels", discs())):
        write_image(tmp_path / f"large/{kind}/0.tif", np.kron(image, np.ones((3, 3), image.dtype)))
    large = open_images(tmp_path / "large", "zscore", 0.5, "instances")
    pipeline = ThresholdWatershed(dark=True, diameter=2 * RADIUS, min_size=0.6, depth=0.12, blur=0.1)
    small = tracked_at_size(pipeline, sequences[1])
    found = tracked_at_size(pipeline, large[0])
    assert small.labels.max() == found.labels.max() == 3
    apart = (np.kron(small.labels > 0, np.ones((3, 3), bool)) ^ (found.labels > 0)).sum()
    assert apart < 0.05 * (found.labels > 0).sum()
    assert tracked(replace(pipeline, min_size=0.6 * 9), sequences[1]).labels.max() == 0


def test_nothing_to_tune_by(sequences: list[Sequence], tmp_path: Path) -> None:
    for path in (tmp_path / "labels").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="no frame has segmentation truth"):
        tune([])
