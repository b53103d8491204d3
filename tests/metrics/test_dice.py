"""Dice's coefficient in all readings, against plain loops over pixels."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from lightning_cells.errors import InputError
from lightning_cells.metrics.dice import Dice

NAMES = ("background", "nucleus", "cytoplasm")
RNG = np.random.default_rng(0)


def pair(size: tuple[int, int], classes: Sequence[int] = (0, 1, 2), unknown: float = 0.2) -> tuple[np.ndarray, ...]:
    truth, prediction = RNG.choice(classes, size), RNG.choice(classes, size)
    prediction = np.where(RNG.random(size) < 0.5, truth, prediction)
    return prediction, np.where(RNG.random(size) < unknown, -1, truth)


IMAGES = [pair((5, 7)), pair((4, 4), classes=(0, 2)), pair((6, 3), classes=(0,)), pair((3, 3), unknown=1.0)]


def measured(images: Sequence[tuple[np.ndarray, ...]]) -> dict[str, float]:
    metric = Dice(NAMES)
    for prediction, truth in images:
        metric.update(torch.from_numpy(prediction), torch.from_numpy(truth))
    return {name: float(value) for name, value in metric.compute().items()}


def counted(images: Sequence[tuple[np.ndarray, ...]], classes: Sequence[int]) -> list[tuple[int, int]]:
    """2 TP and P + T of each class, pixel by pixel."""
    counts = []
    for c in classes:
        twice = both = 0
        for prediction, truth in images:
            for p, t in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
                if t == -1:
                    continue
                twice += 2 * (p == c and t == c)
                both += (p == c) + (t == c)
        counts.append((twice, both))
    return counts


def macro(images: Sequence[tuple[np.ndarray, ...]], classes: Sequence[int]) -> float:
    values = [twice / both for twice, both in counted(images, classes) if both]
    return sum(values) / len(values) if values else math.nan


def expected(images: Sequence[tuple[np.ndarray, ...]]) -> dict[str, float]:
    found = {}
    for ending, classes in (("", (0, 1, 2)), ("_cells", (1, 2))):
        found[f"Dice{ending}"] = macro(images, classes)
        counts = counted(images, classes)
        found[f"Dice_micro{ending}"] = sum(c[0] for c in counts) / sum(c[1] for c in counts)
        each = [macro([image], classes) for image in images]
        each = [value for value in each if not math.isnan(value)]
        found[f"Dice_images{ending}"] = sum(each) / len(each)
    for c, name in enumerate(NAMES):
        found[f"Dice_{name}"] = macro(images, [c])
    return found


def test_all_readings() -> None:
    result = measured(IMAGES)
    assert result == pytest.approx(expected(IMAGES), abs=1e-6)
    assert len({round(value, 4) for value in result.values()}) == len(result) == 9, "they are different things"


def test_by_hand() -> None:
    prediction, truth = np.array([[0, 1, 1, 2]]), np.array([[0, 0, 1, -1]])
    result = measured([(prediction, truth)])
    assert result["Dice_background"] == pytest.approx(2 / 3)
    assert result["Dice_nucleus"] == pytest.approx(2 / 3)
    assert math.isnan(result["Dice_cytoplasm"]), "where it is predicted nobody knows"
    assert result["Dice"] == pytest.approx(2 / 3)
    assert result["Dice_micro"] == pytest.approx(2 / 3), "two of three pixels"
    assert result["Dice_micro_cells"] == pytest.approx(2 / 3)


def test_perfect_and_all_wrong() -> None:
    truth = np.array([[0, 1, 2]])
    assert set(measured([(truth, truth)]).values()) == {1.0}
    assert set(measured([(np.roll(truth, 1), truth)]).values()) == {0.0}


def test_nothing_known() -> None:
    nothing = np.full((2, 2), -1)
    assert all(math.isnan(value) for value in measured([(np.zeros((2, 2), int), nothing)]).values())


def test_pooled_over_processes_in_any_order() -> None:
    """What torchmetrics does between processes: states are summed."""
    whole = measured(IMAGES)
    parts = []
    for images in (IMAGES[2:], IMAGES[:2]):
        part = Dice(NAMES)
        for prediction, truth in images:
            part.update(torch.from_numpy(prediction), torch.from_numpy(truth))
        parts.append(part)
    joint = Dice(NAMES)
    joint.update(torch.zeros(0, 0), torch.zeros(0, 0))
    for name in joint.metric_state:
        assert joint._reductions[name] is parts[0]._reductions[name] is not None
        setattr(joint, name, joint._reductions[name](torch.stack([getattr(part, name) for part in parts])))
    assert {name: float(value) for name, value in joint.compute().items()} == whole


def test_reset_forgets() -> None:
    metric = Dice(NAMES)
    metric.update(torch.zeros(2, 2), torch.ones(2, 2))
    metric.reset()
    metric.update(torch.zeros(2, 2), torch.zeros(2, 2))
    assert float(metric.compute()["Dice"]) == 1


def test_what_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="one size"):
        Dice(NAMES).update(torch.zeros(2, 2), torch.zeros(2, 3))
    for prediction, truth in ((0, 3), (3, 0)):
        with pytest.raises(InputError, match="above 2"):
            Dice(NAMES).update(torch.full((1, 1), prediction), torch.full((1, 1), truth))
