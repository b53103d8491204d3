"""Simulated volumes: their layout, their truth, and what the microscope does to them."""

import hashlib
import itertools
import os
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from ctc_metrics import validate_sequence
from scipy import ndimage

from lightning_cells.data.simulate import simulate
from lightning_cells.data.simulation import volumes as module
from lightning_cells.data.simulation.ellipsoids import Ellipsoids
from lightning_cells.data.simulation.shapes import RIM
from lightning_cells.data.simulation.volumes import NUCLEI, volumes
from lightning_cells.errors import InputError

START = np.array([0.5, -RIM, -RIM])  # the middle of the first voxel of a canvas
DEPTH, SIZE, VOXEL, FRAMES = 10, (72, 80), (4.0, 1.0, 0.8), 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(
        tmp_path_factory.mktemp("volumes") / "out", sequences=2, frames=FRAMES, size=SIZE, depth=DEPTH, voxel=VOXEL
    )


def stack(folder: Path) -> np.ndarray:
    return np.stack([tifffile.imread(path) for path in sorted(folder.glob("*.tif"))])


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows_of(out: Path, name: str = "01") -> np.ndarray:
    return np.loadtxt(out / f"{name}_GT/TRA/man_track.txt", int, ndmin=2)


def test_layout_and_voxels(made: Path) -> None:
    frames, seg, tra = (stack(made / name) for name in ("01", "01_GT/SEG", "01_GT/TRA"))
    assert frames.shape == seg.shape == tra.shape == (FRAMES, DEPTH, *SIZE)
    assert frames.dtype == seg.dtype == np.uint16
    assert np.array_equal(seg, tra)
    with tifffile.TiffFile(made / "01/t003.tif") as file:
        assert (file.series[0].axes, len(file.pages)) == ("ZYX", DEPTH)
        assert file.imagej_metadata is not None
        assert (file.imagej_metadata["spacing"], file.imagej_metadata["unit"]) == (4.0, "um")
        across, down = (file.pages.first.tags[name].value for name in ("XResolution", "YResolution"))
    assert across[0] / across[1] == pytest.approx(1 / 0.8)
    assert down[0] / down[1] == pytest.approx(1.0)


def test_the_truth_is_whole_cells_and_a_valid_result(made: Path, tmp_path: Path) -> None:
    labels, rows = stack(made / "01_GT/TRA"), rows_of(made)
    seen = {(t, int(label)) for t in range(FRAMES) for label in np.unique(labels[t]) if label}
    assert seen == {(t, label) for label, begin, end, _ in rows for t in range(begin, end + 1)}
    for t, label in seen:
        assert ndimage.label(labels[t] == label)[1] == 1, "one piece"
        assert (labels[t] == label).sum() >= module.SMALLEST
    result = tmp_path / "01_RES"
    result.mkdir()
    for path in (made / "01_GT/TRA").glob("*"):
        os.link(path, result / path.name.replace("man_track.txt", "res_track.txt").replace("man_track", "mask"))
    assert validate_sequence(str(result))["Valid"] == 1


def test_cells_divide_into_two_beside_the_mother(made: Path) -> None:
    divisions = 0
    for name in ("01", "02"):
        labels, rows = stack(made / f"{name}_GT/TRA"), rows_of(made, name)
        for mother in np.unique(rows[rows[:, 3] > 0, 3]):
            daughters = rows[rows[:, 3] == mother]
            assert len(daughters) <= 2
            divisions += len(daughters) == 2
            for label, begin, _, _ in daughters:
                before = ndimage.binary_dilation(labels[begin - 1] == mother, iterations=6)
                assert (before & (labels[begin] == label)).any()
        touching = (labels[:, :, 0] > 0).any(1).any(1) | (labels[:, :, -1] > 0).any(1).any(1)
        assert touching.any(), "cells come and go over the sides"
    assert divisions >= 4


def test_cells_move_smoothly(made: Path) -> None:
    labels = stack(made / "02_GT/TRA")
    shared = [
        ((a == label) & (b == label)).sum() / max((a == label).sum(), (b == label).sum())
        for a, b in itertools.pairwise(labels)
        for label in np.intersect1d(a, b)[1:]
    ]
    assert np.median(shared) > 0.7


def test_voxels_are_those_of_ellipsoids_of_the_right_volume() -> None:
    population = Ellipsoids(np.random.default_rng(3), (60.0, 64.0, 64.0), 9, NUCLEI)
    step, canvas = 3.0, (20, 64 + 2 * RIM, 64 + 2 * RIM)
    found = population.covered(canvas, (step, 1.0, 1.0))
    where = np.stack(np.unravel_index(found.place, canvas), 1)
    inward = population.inward()
    for row, position in enumerate(population.cells["position"]):
        mine = where[found.cell == row]
        offset = (mine + START) * (step, 1, 1) - position
        assert (np.linalg.norm(offset @ inward[row].T, axis=1) < 1).all()
        volume = 4 / 3 * np.pi / abs(np.linalg.det(inward[row]))
        assert volume == pytest.approx(4 / 3 * np.pi * population.radius()[row] ** 3, rel=0.03), "it keeps its volume"
        if (position[1:] > 15).all() and (position[1:] < 49).all():
            assert len(mine) * step == pytest.approx(volume, rel=0.15), "little is lost to neighbours"
    # and no voxel is left out: a plain loop over all voxels of the canvas
    every = (np.stack(np.indices(canvas), -1) + START) * (step, 1, 1)
    inside = [
        np.linalg.norm((every - p) @ m.T, axis=-1) < 1
        for p, m in zip(population.cells["position"], inward, strict=True)
    ]
    assert np.array_equal(np.flatnonzero(np.any(inside, axis=0)), found.place)


def test_a_point_is_blurred_most_along_the_optical_axis() -> None:
    point = np.zeros((31, 64 + 2 * RIM, 64 + 2 * RIM))
    point[15, 32 + RIM, 32 + RIM] = 1
    seen = module._seen(point, 1.0, 1.0)
    core = seen[5:26, 27:38, 27:38]

    def width(profile: np.ndarray) -> float:
        at = np.arange(len(profile)) - len(profile) // 2
        return float(np.sqrt((at**2 * profile).sum() / profile.sum()))

    assert width(core[10 - 3 : 10 + 4, 5, 5]) > 1.5 * width(core[10, 2:9, 5])
    assert width(seen[:, 32, 32]) == pytest.approx(3.0, rel=0.25)
    # planes five pixels apart see little of each other
    apart = module._seen(point, 5.0, 1.0)
    assert apart[13, 32, 32] < 0.05 * apart[15, 32, 32]


def test_nuclei_shine_and_deep_planes_are_darker() -> None:
    frames = list(volumes(np.random.default_rng(1), 3, 12, (96, 96), (5.0, 1.0, 1.0), 14))
    image, labels = (np.stack([getattr(frame, name) for frame in frames]) for name in ("image", "labels"))
    shining = [image[labels == label].mean() for label in np.unique(labels)[1:]]
    assert np.mean(np.array(shining) > image[labels == 0].mean() + 2 * image[labels == 0].std()) > 0.9
    assert image[labels == 0].mean() < 400


def test_same_seed_same_bytes_and_more_of_them(tmp_path: Path) -> None:
    options = {"size": (48, 40), "depth": 5, "voxel": (5, 1, 1), "seed": 4}
    first = digests(simulate(tmp_path / "a", sequences=1, frames=2, **options))
    more = digests(simulate(tmp_path / "b", sequences=2, frames=3, **options))
    first.pop("01_GT/TRA/man_track.txt")  # ends later in the longer video
    assert first.items() <= more.items()
    assert more["01/t000.tif"] != more["02/t000.tif"]
    other = simulate(tmp_path / "c", sequences=1, frames=1, **options | {"voxel": (4, 1, 1)})
    assert digests(other)["01/t000.tif"] != first["01/t000.tif"]


def test_number_of_cells() -> None:
    def start(depth: int, size: tuple[int, int], cells: int | None = None) -> int:
        return len(np.unique(next(volumes(np.random.default_rng(2), 1, depth, size, (5, 1, 1), cells)).labels)) - 1

    assert 10 <= start(16, (128, 128)) <= 18
    assert 20 <= start(32, (128, 128)) <= 36
    assert 1 <= start(2, (32, 32)) <= 2
    assert 28 <= start(16, (128, 128), 30) <= 36


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depth": 1}, "2 or more planes"),
        ({"voxel": (5, 1, 1)}, "voxel without a depth"),
        ({"depth": 8, "kind": "fibres"}, "volumes show nuclei"),
        ({"depth": 8, "voxel": (5, 0, 1)}, "--voxel 5 0 1: give three positive"),
        ({"depth": 8, "voxel": (5, 1)}, "--voxel 5 1: give three"),
        ({"depth": 8, "voxel": (float("nan"), 1, 1)}, "--voxel nan 1 1"),
        ({"depth": 8, "voxel": (51, 1, 1)}, "50 times"),
        ({"depth": 8, "cells": 400}, "8 x 128 x 128 voxels have room for 1 to 54"),
    ],
)
def test_what_cannot_be_simulated(tmp_path: Path, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)) as error:
        simulate(tmp_path / "out", frames=1, **options)
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == []
