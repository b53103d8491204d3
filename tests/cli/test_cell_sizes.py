"""Cells of another size than a model knows, in trainings and tests that begin with it."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
import yaml
from cli_cases import QUIET, fit, say

from lightning_cells.data.cell_sizes import diameter_on_disk
from lightning_cells.data.simulate import simulate

SHORT = [*QUIET, "--trainer.max_epochs", "1", "--data.batches_per_epoch", "1", "--data.val", "['02']"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("small") / "data", sequences=4, frames=6, size=(64, 64), seed=4)


@pytest.fixture(scope="module")
def large(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same videos, each pixel three by three."""
    root = tmp_path_factory.mktemp("large") / "data"
    for path in small.rglob("*"):
        target = root / path.relative_to(small)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".tif":
            tifffile.imwrite(target, np.kron(tifffile.imread(path), np.ones((3, 3), np.uint16)).astype(np.uint16))
        elif path.is_file():
            target.write_bytes(path.read_bytes())
    return root


def test_the_size_on_disk_is_that_of_discs_of_the_median_area(tmp_path: Path) -> None:
    labels = np.zeros((60, 60), np.uint16)
    for number, radius in enumerate((4, 6, 11), 1):
        cv2.circle(labels, (15 * number, 15 * number), radius, number, -1)
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    tifffile.imwrite(tmp_path / "labels/a.tif", labels)
    expected = 2 * np.sqrt((labels == 2).sum() / np.pi)
    assert diameter_on_disk(tmp_path, "images") == pytest.approx(expected)
    (tmp_path / "01").mkdir()
    tifffile.imwrite(tmp_path / "01/t000.tif", labels)
    assert diameter_on_disk(tmp_path, "ctc") is None


@pytest.mark.slow
def test_a_training_from_a_model_sees_cells_as_large_as_it_knows_them(
    small: Path, large: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint = fit(small, home)
    words = ["fit", "--init", checkpoint, "--data.root", large, *SHORT]
    said = say(capfd, *words, "--checkpoint.folder", home / "tuned")
    assert said.status == 0, said.err
    scale = float(re.search(r"frames are scaled by (\S+); --data.scale X if that is wrong", said.out)[1])
    tuned = torch.load(home / "tuned/last.ckpt", weights_only=True)["lightning_cells"]
    before = torch.load(checkpoint, weights_only=True)["lightning_cells"]
    assert tuned["data"]["scale"] == scale == pytest.approx(1 / 3, rel=0.15)  # other videos have other cells
    assert tuned["diameter"] == pytest.approx(before["diameter"], rel=0.15)
    sizes = [torch.load(path, weights_only=True)["hyper_parameters"] for path in (home / "tuned/last.ckpt", checkpoint)]
    tuned_size, size = (each["decoder"]["init_args"]["min_size"] for each in sizes)
    assert tuned_size == pytest.approx(size / scale**2, abs=1), "of pixels of the frames"
    for path in home.glob("runs/*/config.yaml"):
        config = yaml.safe_load(path.read_text())
        if config.get("init"):
            assert config["data"]["scale"] == scale
            assert config["model"]["init_args"]["decoder"]["init_args"]["min_size"] == tuned_size
    said = say(capfd, *words, "--data.scale", "0.5", "--checkpoint.folder", home / "chosen")
    assert "frames are scaled" not in said.out


@pytest.mark.slow
def test_a_test_on_cells_of_another_size_is_doubted(
    small: Path, large: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint = fit(small, home)
    words = ["test", "--ckpt_path", checkpoint, *QUIET, "--data.test", "['03']", "--data.root"]
    assert re.search(r"px across, where .* give --data.scale 0.3\d?, or track", say(capfd, *words, large).err)
    assert "px across" not in say(capfd, *words, small).err
