"""Class maps from two channels, made of simulated classes."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from cli_cases import complaint, say

from lightning_cells.data.simulation.brightfield import brightfield
from lightning_cells.errors import InputError
from lightning_cells.instances.class_maps import class_map


def channels(classes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What a microscope sees of the classes with a nuclear stain, and with one of the whole cell."""
    stained = 900.0 * (classes == 1), 500.0 * (classes > 0) + 150.0 * (classes == 1)
    blurred = [cv2.GaussianBlur(light, (0, 0), 0.8) for light in stained]
    return tuple(rng.poisson(light + 100).astype(np.uint16) for light in blurred)


@pytest.fixture(scope="module")
def pairs() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The classes of three frames, and their channels."""
    rng = np.random.default_rng(3)
    truths = [frame.classes for frame in brightfield(np.random.default_rng(1), 3, (128, 144), None)]
    return [(truth, *channels(truth, rng)) for truth in truths]


def test_the_classes_come_back(pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    for truth, nuclei, cytoplasm in pairs:
        found = class_map(nuclei, cytoplasm)
        assert found.dtype == np.uint8
        for value in (0, 1, 2):
            ours, theirs = found == value, truth == value
            assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.9


def test_a_nucleus_counts_where_the_cytoplasm_is_dark() -> None:
    nuclei, cytoplasm = np.zeros((2, 8, 8), np.uint16)
    nuclei[2:4, 2:4], cytoplasm[2:4, 3:7] = 9, 5
    expected = np.zeros((8, 8), np.uint8)
    expected[2:4, 3:7], expected[2:4, 2:4] = 2, 1
    np.testing.assert_array_equal(class_map(nuclei, cytoplasm, smoothing=0), expected)
    assert not class_map(np.full((8, 8), 7), np.full((8, 8), 7)).any()
    with pytest.raises(InputError, match="two grey frames of one size"):
        class_map(nuclei, cytoplasm[1:])


def test_the_command(pairs: list[tuple[np.ndarray, ...]], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for number, (_, nuclei, cytoplasm) in enumerate(pairs):
        for name, channel in (("dapi", nuclei), ("cytoplasm", cytoplasm)):
            (tmp_path / name).mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / name / f"t{number:03d}.tif", channel)
    words = ["class-maps", tmp_path / "dapi", tmp_path / "cytoplasm", "--out"]
    assert "3 maps, " in say(capfd, *words, tmp_path / "SEM").out
    assert say(capfd, *words, tmp_path / "labels", "--stills").status == 0
    for number, (_, nuclei, cytoplasm) in enumerate(pairs):
        for path in (tmp_path / f"SEM/man_sem{number:03d}.tif", tmp_path / f"labels/t{number:03d}.tif"):
            np.testing.assert_array_equal(tifffile.imread(path), class_map(nuclei, cytoplasm))
    assert "holds a channel" in complaint(capfd, *words, tmp_path / "dapi")
    (tmp_path / "cytoplasm/t002.tif").unlink()
    assert "give the same frames of both channels" in complaint(capfd, *words, tmp_path / "other")
    assert not (tmp_path / "other").exists()
