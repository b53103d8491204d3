"""Intervals against `scipy.stats.bootstrap`, the textbook's normal interval, and a plain loop."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap, norm

from lightning_cells.metrics.bootstrap import difference, interval


@pytest.fixture
def ious() -> np.ndarray:
    generator = np.random.default_rng(3)
    return np.where(generator.random(150) < 0.2, 0, generator.beta(8, 2, 150))


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_it_is_that_of_scipy(ious: np.ndarray, level: float) -> None:
    expected = bootstrap(
        (ious,), np.mean, confidence_level=level, n_resamples=20_000, method="percentile", rng=np.random.default_rng(9)
    ).confidence_interval
    mean, low, high = interval(ious, level, resamples=20_000)
    assert mean == pytest.approx(ious.mean())
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.002)


def test_a_paired_difference_is_that_of_scipy(ious: np.ndarray) -> None:
    other = np.clip(ious + np.random.default_rng(4).normal(0.02, 0.05, len(ious)), 0, 1)
    expected = bootstrap(
        (ious, other),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        paired=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(9),
    ).confidence_interval
    mean, low, high = difference(ious, other, resamples=20_000)
    assert mean == pytest.approx(ious.mean() - other.mean())
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.001)
    assert high < 0, "small, but the same on each cell: decided"


def test_an_unpaired_difference_is_that_of_scipy(ious: np.ndarray) -> None:
    other = ious[:90] * 0.95
    expected = bootstrap(
        (ious, other),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(9),
    ).confidence_interval
    mean, low, high = difference(ious, other, paired=False, resamples=20_000)
    assert mean == pytest.approx(ious.mean() - other.mean())
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.003)
    assert low < 0 < high


def test_many_values_give_the_normal_interval() -> None:
    values = np.random.default_rng(0).random(40_000)  # drawn in many parts
    half = norm.ppf(0.975) * values.std() / math.sqrt(len(values))
    _, low, high = interval(values, resamples=2000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=half / 8)


def test_it_holds_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    intervals = [interval(generator.random(60), 0.9, resamples=500, seed=trial) for trial in range(400)]
    held = np.mean([low <= 0.5 <= high for _, low, high in intervals])
    assert held == pytest.approx(0.9, abs=0.05)


def test_the_seed_decides_the_draws(ious: np.ndarray) -> None:
    assert interval(ious, seed=5) == interval(ious, seed=5)
    assert interval(ious, seed=5) != interval(ious, seed=6)


@pytest.mark.parametrize("values", [[], [0.7]])
def test_too_few_values_have_no_interval(values: list[float]) -> None:
    mean, low, high = interval(values)
    assert mean == pytest.approx(0.7) if values else math.isnan(mean)
    assert math.isnan(low)
    assert math.isnan(high)


@pytest.mark.parametrize(
    ("values", "level", "resamples"),
    [([[0.1, 0.2]], 0.95, 10), ([0.1, math.nan], 0.95, 10), ([0.1, 0.2], 1.0, 10), ([0.1, 0.2], 0.95, 0)],
)
def test_impossible_arguments_are_refused(values: list, level: float, resamples: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        interval(values, level, resamples)


def test_values_of_other_cells_are_not_paired() -> None:
    with pytest.raises(ValueError, match="2 and 3 values"):
        difference([0.1, 0.2], [0.1, 0.2, 0.3])
