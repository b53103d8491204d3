"""How sure a mean over cells is: bootstrap confidence intervals, and those of the difference of two methods."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_AT_ONCE = 4_000_000  # drawn values in memory


class Interval(NamedTuple):
    """A mean and its confidence interval.

    Attributes:
        mean: of the values as they are; nan without any.
        low: lower end; nan for fewer than two values, of which nothing can be said.
        high: upper end, likewise.
    """

    mean: float
    low: float
    high: float


def interval(values: ArrayLike, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Returns the mean of `values` with its percentile bootstrap interval (Efron & Tibshirani 1993, ch. 13).

    The values are drawn anew with replacement, and the interval holds the middle of the means that come out. They are
    taken as independent: cells of one video are alike, so an interval over cells says how sure a measure is on
    videos like these, and is too narrow for videos of another experiment.

    Args:
        values: (n,) finite numbers, such as the Jaccard index of each true cell.
        level: share of the means that the interval holds, between 0 and 1.
        resamples: how often is drawn.
        seed: of the draws; the same seed gives the same interval.

    Raises:
        ValueError: if the values are no (n,) finite numbers, or another argument is out of its range.
    """
    known = _checked(values, level, resamples)
    return _percentiles(_mean(known), _means(known, resamples, np.random.default_rng(seed)), level)


def difference(
    a: ArrayLike,
    b: ArrayLike,
    paired: bool = True,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Returns the mean of `a` minus the mean of `b` with its percentile bootstrap interval.

    An interval above 0 says that `a` beats `b`, one below 0 the other way round, and one that holds 0 is undecided.

    Args:
        a: (n,) finite numbers.
        b: (m,) finite numbers.
        paired: the same places in `a` and `b` belong to the same cell, and are drawn together, so that cells which
            are hard for both do not blur the difference; m must be n. Otherwise each is drawn for itself.
        level: see `interval`.
        resamples: see `interval`.
        seed: see `interval`.

    Raises:
        ValueError: as for `interval`, or if paired values differ in number.
    """
    first, second = _checked(a, level, resamples), _checked(b, level, resamples)
    if paired:
        if first.shape != second.shape:
            raise ValueError(f"{len(first)} and {len(second)} values cannot be paired")
        return interval(first - second, level, resamples, seed)
    generator = np.random.default_rng(seed)
    drawn = _means(first, resamples, generator) - _means(second, resamples, generator)
    return _percentiles(_mean(first) - _mean(second), drawn, level)


def _checked(values: ArrayLike, level: float, resamples: int) -> NDArray[np.float64]:
    known = np.asarray(values, np.float64)
    if known.ndim != 1 or not np.isfinite(known).all():
        raise ValueError("values must be finite numbers in one dimension")
    if not 0 < level < 1:
        raise ValueError(f"level={level}: must be between 0 and 1")
    if resamples < 1:
        raise ValueError(f"resamples={resamples}: must be at least 1")
    return known


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else math.nan


def _means(values: NDArray[np.float64], resamples: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Means of `resamples` draws with replacement; nan for fewer than two values."""
    if len(values) < 2:
        return np.full(resamples, np.nan)
    return np.concatenate(
        [values[generator.integers(len(values), size=size)].mean(axis=1) for size in _parts(len(values), resamples)]
    )


def _parts(values: int, resamples: int) -> Iterator[tuple[int, int]]:
    """Shapes of the draws that are made at once, so that many cells do not fill the memory."""
    step = max(1, _AT_ONCE // values)
    for start in range(0, resamples, step):
        yield min(step, resamples - start), values


def _percentiles(mean: float, drawn: NDArray[np.float64], level: float) -> Interval:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))
