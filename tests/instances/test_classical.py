"""The classical baselines."""

import numpy as np
import pytest

from lightning_cells.data.simulation.nuclei import nuclei
from lightning_cells.errors import InputError
from lightning_cells.instances.classical import otsu


def discs(*cells: tuple[float, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A noisy frame and its truth; each cell is (row, column, radius, light)."""
    rows, cols = np.mgrid[:64, :80]
    light, truth = np.zeros((64, 80)), np.zeros((64, 80), int)
    for number, (row, col, radius, level) in enumerate(cells, 1):
        inside = (rows - row) ** 2 + (cols - col) ** 2 < radius**2
        light[inside], truth[inside] = level, number
    noise = np.random.default_rng(0).normal(0, 3, light.shape)
    return np.clip(100 + light + noise, 0, 65535).astype(np.uint16), truth


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def seg(truth: np.ndarray, result: np.ndarray) -> list[float]:
    """SEG of each true cell: its Jaccard index with the object that covers more than half of it, else 0."""
    scores = []
    for cell in np.unique(truth[truth > 0]):
        mask = truth == cell
        best = np.bincount(result[mask]).argmax()
        covers = best > 0 and 2 * (mask & (result == best)).sum() > mask.sum()
        scores.append(jaccard(mask, result == best) if covers else 0.0)
    return scores


@pytest.mark.parametrize("split", ["components", "watershed"])
@pytest.mark.parametrize("log", [True, False])
def test_separate_cells(split: str, log: bool) -> None:
    frame, truth = discs((40, 15, 8, 200), (15, 55, 9, 200), (45, 60, 7, 200))
    labels = otsu(frame, split, log)
    assert labels.dtype == np.int32
    assert labels.shape == frame.shape
    assert sorted(np.unique(labels)) == [0, 1, 2, 3]
    for label, cell in ((1, 2), (2, 1), (3, 3)):  # numbered from the top of the frame
        assert jaccard(labels == label, truth == cell) > 0.85


def test_watershed_cuts_touching_cells_apart() -> None:
    frame, truth = discs((32, 25, 9, 200), (32, 41, 9, 200))
    assert otsu(frame, "components").max() == 1
    labels = otsu(frame, "watershed")
    assert labels.max() == 2
    assert min(seg(truth, labels)) > 0.85


def test_logarithm_finds_dim_cells_beside_bright_ones() -> None:
    frame, truth = discs((20, 20, 8, 4000), (40, 60, 8, 200))
    assert otsu(frame, log=False).max() == 1
    labels = otsu(frame, log=True)
    assert labels.max() == 2
    assert min(seg(truth, labels)) > 0.6


@pytest.mark.parametrize("log", [True, False])
def test_units_do_not_matter(log: bool) -> None:
    frame, _ = discs((20, 20, 8, 300), (40, 60, 8, 200))
    labels = otsu(frame, "watershed", log)
    assert np.array_equal(otsu(frame / 4096.0 - 3, "watershed", log), labels)
    assert np.array_equal(otsu(frame.astype(np.float32) * 8, "watershed", log), labels)


def test_small_parts_are_dropped_and_holes_filled() -> None:
    frame, truth = discs((20, 20, 10, 200), (40, 60, 2.2, 200))
    frame[18:22, 18:22] = 100
    assert otsu(frame, min_size=5).max() == 2
    labels = otsu(frame, min_size=40)
    assert labels.max() == 1
    assert jaccard(labels == 1, truth == 1) > 0.85


@pytest.mark.parametrize("frame", [np.zeros((32, 40), np.uint8), np.full((32, 40), 7.5, np.float32)])
@pytest.mark.parametrize("split", ["components", "watershed"])
def test_constant_frames_hold_no_cells(frame: np.ndarray, split: str) -> None:
    assert np.array_equal(otsu(frame, split), np.zeros((32, 40)))


def test_eight_bit_frames_with_an_even_background() -> None:
    frame = np.zeros((40, 40), np.uint8)
    frame[10:20, 10:20] = 255
    assert jaccard(otsu(frame) == 1, frame > 0) == 1.0


def test_wrong_arguments() -> None:
    with pytest.raises(InputError, match=r"\(1, 2, 32, 32\)"):
        otsu(np.zeros((1, 2, 32, 32)))
    with pytest.raises(InputError, match="components"):
        otsu(np.zeros((32, 32)), "voronoi")


def test_simulated_nuclei_are_hard_for_both_but_not_hopeless() -> None:
    scores: dict[str, list[float]] = {"components": [], "watershed": []}
    for sequence in range(4):
        for frame in list(nuclei(np.random.default_rng(sequence), 17, (128, 128), None))[::8]:
            for split, values in scores.items():
                values += seg(frame.labels, otsu(frame.image, split))
    assert 0.2 < np.mean(scores["components"]) < 0.6
    assert np.mean(scores["components"]) < np.mean(scores["watershed"]) < 0.78
    assert np.mean(scores["watershed"]) > 0.4
