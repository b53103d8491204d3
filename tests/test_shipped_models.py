"""The model that comes with the package: on videos of kinds that it was not trained on, of any size of cells."""

from pathlib import Path

import cv2
import numpy as np
import pytest

import lightning_cells as lc
from lightning_cells.cli import main
from lightning_cells.data.simulation.nuclei import nuclei
from lightning_cells.methods.pretrained import DEFAULT, FOLDER, pretrained_checkpoint, pretrained_names
from lightning_cells.result import Result


def video(seed: int, frames: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Frames and true labels."""
    made = list(nuclei(np.random.default_rng(seed), frames, (128, 144), None))
    return np.stack([one.image for one in made]), np.stack([one.labels for one in made])


def found(labels: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Share of the true cells, and of those found, that a cell of the other has a Jaccard index above .5 with."""
    matched = cells = results = 0
    for one, true in zip(labels, truth, strict=True):
        common = np.zeros((true.max() + 1, one.max() + 1))
        np.add.at(common, (true.ravel(), one.ravel()), 1)
        union = common.sum(1, keepdims=True) + common.sum(0, keepdims=True) - common
        matched += int((common[1:, 1:] > 0.5 * np.maximum(union[1:, 1:], 1)).sum())
        cells += len(np.unique(true)) - 1
        results += len(np.unique(one)) - 1
    return matched / cells, matched / max(results, 1)


@pytest.mark.parametrize("factor", [1, 4])
def test_cells_of_any_size_are_found(factor: int) -> None:
    frames, truth = video(seed=5)
    size = (factor * frames.shape[2], factor * frames.shape[1])
    large = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in frames])
    result = lc.load("nuclei", device="cpu").track(large, progress=False)
    recall, precision = found(result.labels[:, factor // 2 :: factor, factor // 2 :: factor], truth)
    assert recall > 0.8
    assert precision > 0.8


def test_noise_alone_has_no_cells() -> None:
    frames = np.random.default_rng(1).poisson(300, (3, 200, 200)).astype(np.uint16)
    assert not lc.load("nuclei", device="cpu").track(frames, progress=False).labels.any()


def test_each_shipped_model_is_small_and_has_a_card() -> None:
    assert DEFAULT in pretrained_names()
    for name in pretrained_names():
        assert pretrained_checkpoint(name).stat().st_size < 8_000_000
        card = Path(FOLDER, f"{name}.md").read_text(encoding="utf-8")
        for part in ("trained on", "## How it was scored", "## Where it fails"):
            assert part in card


def test_nuclei_is_what_is_taken_without_a_name(tmp_path: Path) -> None:
    frames, _ = video(seed=6, frames=2)
    (tmp_path / "frames").mkdir()
    for index, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"frames/t{index:03d}.tif"), frame)
    assert main(["track", str(tmp_path / "frames"), "--out", str(tmp_path / "RES"), "--device", "cpu"]) == 0
    written = Result.read(tmp_path / "RES")
    named = lc.load("nuclei", device="cpu").track(tmp_path / "frames", progress=False)
    np.testing.assert_array_equal(written.labels, named.labels)
