"""The package from Python: arrays and folders in, labels and tables out, the same as the command line gives."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from skimage.measure import regionprops_table

import lightning_cells as lc
from lightning_cells.cli import main
from lightning_cells.data.tracks import Track
from lightning_cells.errors import InputError
from lightning_cells.methods.loading import SETTINGS
from lightning_cells.methods.ulstm import ULSTM


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was not trained, and finds something all the same."""
    torch.manual_seed(1)
    method = ULSTM(channels=(4, 8), lstm_kernel=3)
    path = tmp_path_factory.mktemp("model") / "best.ckpt"
    settings = {
        "method": "lightning_cells.methods.ulstm.ULSTM",
        "data": {"normalisation": "zscore", "scale": 1.0},
    }
    torch.save({"state_dict": method.state_dict(), "hyper_parameters": dict(method.hparams), SETTINGS: settings}, path)
    return path


@pytest.fixture(scope="module")
def result(checkpoint: Path, simulated: Path) -> lc.Result:
    return lc.load(checkpoint).track(simulated / "01")


def test_folder_array_and_command_line_agree(
    result: lc.Result, checkpoint: Path, simulated: Path, tmp_path: Path
) -> None:
    paths = sorted((simulated / "01").glob("t*.tif"))
    array = np.stack([tifffile.imread(path) for path in paths])
    assert main(["track", str(simulated / "01"), "--checkpoint", str(checkpoint), "--out", str(tmp_path / "RES")]) == 0
    written = np.stack([tifffile.imread(path) for path in sorted((tmp_path / "RES").glob("mask*.tif"))])
    assert written.any()
    np.testing.assert_array_equal(result.labels, written)
    tracker = lc.load(str(checkpoint), chunk=5)
    for given in (array, array.astype(np.float64), str(simulated / "01")):
        again = tracker.track(given)
        np.testing.assert_array_equal(again.labels, written)
        assert again.lineage == result.lineage
    saved = result.save(tmp_path / "saved")
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "RES").iterdir()
    }
    read = lc.Result.read(saved, simulated / "01")
    np.testing.assert_array_equal(read.labels, written)
    pd.testing.assert_frame_equal(read.cells, result.cells)


def test_tables(result: lc.Result, simulated: Path) -> None:
    assert list(result.tracks) == ["track", "first", "last", "parent"]
    assert [Track(*row) for row in result.tracks.itertuples(index=False)] == sorted(result.lineage.values())
    tables = []
    for number, labels in enumerate(result.labels):
        frame = tifffile.imread(simulated / "01" / f"t{number:03d}.tif")
        measured = regionprops_table(labels, frame, properties=("label", "centroid", "area", "intensity_mean"))
        tables.append(pd.DataFrame(measured).assign(frame=number))
    expected = pd.concat(tables, ignore_index=True).rename(
        columns={"label": "track", "centroid-0": "y", "centroid-1": "x", "intensity_mean": "mean_intensity"}
    )
    pd.testing.assert_frame_equal(result.cells, expected[list(result.cells)], check_dtype=False)


def test_evaluate_agrees_with_the_verb(
    result: lc.Result, simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = simulated / "01_GT"
    assert main(["evaluate", str(result.save(tmp_path / "RES")), str(truth), "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    true = np.stack([tifffile.imread(path) for path in sorted((truth / "TRA").glob("*.tif"))]).astype(np.int32)
    rows = np.loadtxt(truth / "TRA/man_track.txt", dtype=int)
    as_result = lc.Result(true, {int(row[0]): Track(*map(int, row)) for row in rows})
    for given in (result, tmp_path / "RES"):
        for against in (truth, as_result):
            assert lc.evaluate(given, against) == expected
    assert lc.evaluate(as_result, truth)["TRA"] == 1
    assert lc.evaluate(as_result, as_result)["SEG"] == 1
    with pytest.raises(InputError, match="give the same frames of one video"):
        lc.evaluate(result, lc.Result(true[1:], {}))


def test_a_result_shows_itself(result: lc.Result) -> None:
    assert result.picture().ndim == 3
    assert result._repr_jpeg_().startswith(b"\xff\xd8\xff")
    assert repr(result) == f"Result(12 frames of 64 x 64, {len(result.lineage)} tracks)"
    without = lc.Result(result.labels, result.lineage)
    assert without.cells["mean_intensity"].isna().all()
    assert without.picture().shape == result.picture().shape


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (np.zeros((4, 4)), "4 x 4 of float64"),
        (np.zeros((0, 4, 4)), "empty"),
        (np.zeros((64, 64, 3), np.uint8), "channels"),
        (np.full((1, 8, 8), np.nan), "not finite"),
        (np.full((1, 8, 8), 0.5), "hold 0.5"),
        (np.full((1, 8, 8), -1), "hold -1"),
        (np.full((1, 8, 8), "a"), "give numbers"),
        ("nowhere", "no such folder or file"),
    ],
)
def test_bad_frames(checkpoint: Path, frames: np.ndarray | str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        lc.load(checkpoint).track(frames)


def test_bad_models_and_options(checkpoint: Path, result: lc.Result, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        lc.load(tmp_path / "none.ckpt")
    with pytest.raises(InputError, match="Model with name=none not found"):
        lc.load("models:/none/1")
    with pytest.raises(InputError, match="must be a positive number"):
        lc.load(checkpoint, scale=0)
    with pytest.raises(InputError, match="give the video that was tracked"):
        _ = lc.Result(result.labels[1:], result.lineage, frames=result.frames).cells


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, lightning_cells; assert not {'torch', 'numpy', 'mlflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(hasattr(lc, name) for name in lc.__all__)
