"""Measures of volumes from Python."""

from pathlib import Path

import numpy as np
import pytest

import lightning_cells as lc
from lightning_cells.errors import InputError
from lightning_cells.result import Result


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = lc.simulate(tmp_path_factory.mktemp("v") / "out", sequences=1, frames=5, size=(48, 64), depth=6)
    folder = tmp_path_factory.mktemp("result") / "01_RES"
    folder.mkdir()
    for path in (out / "01_GT/TRA").iterdir():
        name = path.name.replace("man_track.txt", "res_track.txt").replace("man_track", "mask")
        (folder / name).write_bytes(path.read_bytes())
    return out / "01_GT", Result.read(folder)


def test_results_folders_and_arrays_are_measured_alike(truth: tuple[Path, Result]) -> None:
    folder, result = truth
    assert result.labels.shape == (5, 6, 48, 64)
    worse = Result(np.where(result.labels == 2, 0, result.labels), {k: v for k, v in result.lineage.items() if k != 2})
    measures = lc.evaluate(worse, folder)
    assert lc.evaluate(result, folder)["SEG"] == 1
    assert 0 < measures["SEG"] < 1
    assert lc.evaluate(worse, result) == measures


def test_images_beside_volumes_are_told_in_one_line(truth: tuple[Path, Result]) -> None:
    folder, result = truth
    flat = Result(result.labels.max(1), result.lineage)
    for one in (folder, result):
        with pytest.raises(InputError) as error:
            lc.evaluate(flat, one)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"the result is \(5, 6, 48, 64\) from frame 0, the truth \(5, 48, 64\)"):
        lc.evaluate(result, flat)
    with pytest.raises(
        InputError, match=r"is 48 x 64 pixels but .* is a volume of 6 x 48 x 64 voxels; write all planes"
    ):
        lc.evaluate(flat, folder)
