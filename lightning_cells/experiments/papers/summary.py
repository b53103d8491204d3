"""What the runs of a table say: means and deviations beside the paper's values, and what becomes of its claims."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from scipy import stats

from lightning_cells.experiments.papers.runs import Outcome
from lightning_cells.experiments.papers.table import MEAN, Claim, ScaleName, Table

_LEVEL = 0.95
_LEAST = 2  # pairs of which a difference can be judged


@dataclass(frozen=True)
class Cell:
    """A measure of one row on one column.

    Attributes:
        row: the row.
        column: the data; `MEAN` for the mean over all.
        measure: its name.
        values: of each run, over folds and seeds; of the mean, those of the columns.
        paper: the paper's value.
    """

    row: str
    column: str
    measure: str
    values: tuple[float, ...]
    paper: float | None

    @property
    def mean(self) -> float:
        """Over the runs; nan without any."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def sd(self) -> float:
        """Standard deviation over the runs, with n - 1; nan for fewer than two, and for a mean over data sets."""
        return statistics.stdev(self.values) if len(self.values) > 1 and self.column != MEAN else math.nan


@dataclass(frozen=True)
class Verdict:
    """What becomes of a claim.

    Attributes:
        claim: the claim.
        pairs: number of pairs of runs that were compared.
        difference: mean of the better row minus the worse one; nan without pairs.
        low: lower end of its 95 % interval; nan for fewer than two pairs.
        high: upper end.
        words: reproduced, not reproduced, or undecided.
    """

    claim: Claim
    pairs: int
    difference: float
    low: float
    high: float
    words: str


def cells(table: Table, scale: ScaleName, outcomes: list[Outcome]) -> list[Cell]:
    """All cells of a table: for each row its columns and, if there are several, their mean."""
    found = []
    columns = table.columns(scale)
    for name, row in table.rows.items():
        done = [outcome for outcome in outcomes if outcome.job.row == name]
        for measure in table.measures:
            means = []
            for column in columns:
                values = [o.measures[column][measure] for o in done if measure in o.measures.get(column, {})]
                found.append(Cell(name, column, measure, tuple(values), row.values.get(column, {}).get(measure)))
                means.append(found[-1].mean)
            if len(columns) > 1:
                whole = () if any(map(math.isnan, means)) else tuple(means)
                found.append(Cell(name, MEAN, measure, whole, row.values.get(MEAN, {}).get(measure)))
    return found


def judge(claim: Claim, outcomes: Iterable[Outcome]) -> Verdict:
    """Compares two rows run by run: those of the same data, fold and seed are a pair.

    A run that is measured on several columns counts once, with its mean. A classical row, which has no seeds, is
    compared with the other one's means over seeds.

    The interval is that of Student's paired t test: with as few runs as can be afforded a bootstrap would be far too
    sure (two differences of one sign are never resampled to another).
    """
    compared = [outcome for outcome in outcomes if outcome.job.row in (claim.better, claim.worse)]
    better, worse = (_units(row, claim.measure, compared) for row in (claim.better, claim.worse))
    if any(outcome.job.kind == "classical" for outcome in compared):
        better, worse = _over_seeds(better), _over_seeds(worse)
    pairs = [better[unit] - worse[unit] for unit in better if unit in worse]
    difference = statistics.fmean(pairs) if pairs else math.nan
    low = high = math.nan
    if len(pairs) >= _LEAST:
        half = float(stats.t.ppf((1 + _LEVEL) / 2, len(pairs) - 1)) * statistics.stdev(pairs) / math.sqrt(len(pairs))
        low, high = difference - half, difference + half
    words = "reproduced" if low > 0 else "not reproduced" if high < 0 else "undecided"
    return Verdict(claim, len(pairs), difference, low, high, words)


_Unit = tuple[str, int, int]


def _units(row: str, measure: str, outcomes: Iterable[Outcome]) -> dict[_Unit, float]:
    found = {}
    for outcome in outcomes:
        values = [column[measure] for column in outcome.measures.values() if measure in column]
        if outcome.job.row == row and values:
            found[outcome.job.unit] = statistics.fmean(values)
    return found


def _over_seeds(units: dict[_Unit, float]) -> dict[_Unit, float]:
    groups: dict[_Unit, list[float]] = {}
    for (data, fold, _), value in units.items():
        groups.setdefault((data, fold, 0), []).append(value)
    return {unit: statistics.fmean(values) for unit, values in groups.items()}
