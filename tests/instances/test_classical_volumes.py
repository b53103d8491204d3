"""The classical baselines on volumes."""

from functools import partial

import numpy as np
import pytest

from lightning_cells.data.sequence import Sequence, open_sequence
from lightning_cells.data.simulate import simulate
from lightning_cells.errors import InputError
from lightning_cells.experiments.baselines import pixel_forest, tracked, tracked_at_size, tune
from lightning_cells.experiments.scores import measure
from lightning_cells.instances.classical import ThresholdWatershed, filled, local_mean, otsu

VOXEL = (3.0, 1.0, 1.0)
CENTRES = ((18, 16, 16), (18, 16, 33), (12, 44, 24), (36, 16, 24))  # pixels; the first two touch
RADIUS = 9


def balls() -> np.ndarray:
    """Labels of four balls, in planes three pixels apart."""
    z, y, x = np.ogrid[:16, :60, :50]
    labels = np.zeros((16, 60, 50), np.uint16)
    for number, centre in enumerate(CENTRES, 1):
        labels[(3 * z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < RADIUS**2] = number
    return labels


def frame(dark: bool = False, seed: int = 0) -> np.ndarray:
    shade = np.where(balls() > 0, 60, 160) if dark else np.where(balls() > 0, 160, 60)
    return (shade + np.random.default_rng(seed).normal(0, 4, shade.shape)).astype(np.uint8)


def told_apart(labels: np.ndarray) -> None:
    truth = balls()
    found = [int(np.bincount(labels[truth == number]).argmax()) for number in range(1, 5)]
    assert sorted(found) == [1, 2, 3, 4]
    for number, label in enumerate(found, 1):
        true, ours = truth == number, labels == label
        assert (true & ours).sum() / (true | ours).sum() > 0.8


def test_otsu_joins_what_touches_and_the_watershed_cuts_it() -> None:
    joined = otsu(frame(), voxel=VOXEL)
    assert joined.max() == 3
    assert joined.dtype == np.int32
    told_apart(otsu(frame(), "watershed", voxel=VOXEL))
    assert otsu(np.full((3, 8, 8), 5, np.uint16)).max() == 0


@pytest.mark.parametrize("dark", [False, True])
def test_the_pipeline_takes_volumes(dark: bool) -> None:
    told_apart(ThresholdWatershed(diameter=18, dark=dark, voxel=VOXEL)(frame(dark)))


def test_small_parts_are_measured_as_balls() -> None:
    volume = 4 / 3 * np.pi * RADIUS**3 / 3
    assert (balls() == 4).sum() == pytest.approx(volume, rel=0.1)
    pipeline = partial(ThresholdWatershed, diameter=2 * RADIUS, voxel=VOXEL)
    assert pipeline(min_size=0.7)(frame()).max() == 4
    assert pipeline(min_size=1.3)(frame()).max() == 0


def test_planes_are_filled_and_averaged_one_by_one() -> None:
    ring = np.zeros((2, 9, 9), bool)
    ring[0, 2:7, 2:7] = True
    ring[0, 4, 4] = False
    assert filled(ring)[0, 4, 4]
    assert not filled(ring)[1].any()
    image = np.random.default_rng(0).random((3, 20, 24))
    for plane, mean in zip(image, local_mean(image, 5), strict=True):
        np.testing.assert_array_equal(mean, local_mean(plane, 5))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Sequence]:
    out = simulate(
        tmp_path_factory.mktemp("volumes") / "out", sequences=2, frames=4, size=(64, 64), depth=8, voxel=(5, 1, 1)
    )
    cache = tmp_path_factory.mktemp("cache")
    return [open_sequence(out, name, "zscore", cache=cache) for name in ("01", "02")]


@pytest.mark.slow
def test_a_tuned_pipeline_beats_what_it_began_with(videos: list[Sequence]) -> None:
    pipeline = tune(videos[:1])
    assert pipeline.voxel == (5.0, 1.0, 1.0)
    assert 14 < pipeline.diameter < 24
    plain = partial(otsu, split="watershed", voxel=(5.0, 1.0, 1.0))
    for video in videos:  # the second is held out
        tuned, untuned = (measure(partial(tracked, one), [video]) for one in (pipeline, plain))
        assert tuned["SEG"] > untuned["SEG"] + 0.1
        assert tuned["TRA"] >= untuned["TRA"]
    assert tracked_at_size(pipeline, videos[1]).labels.shape == (4, 8, 64, 64)


def test_the_forest_takes_images(videos: list[Sequence]) -> None:
    with pytest.raises(InputError, match="01: is a video of volumes"):
        pixel_forest(videos, 0)
