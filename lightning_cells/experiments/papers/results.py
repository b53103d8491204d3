"""Runs a table, and what its runs say: means and deviations beside the paper's values, and what becomes of claims."""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy import stats

from lightning_cells.experiments.papers.jobs import CODE, IDENTITY, Describe, RowJob, code_version, identified, jobs_of
from lightning_cells.experiments.papers.table import MEAN, Claim, ScaleName, Table
from lightning_cells.experiments.processes import ProcessPool, places
from lightning_cells.experiments.runner import RESULT, Job, Outcome, ParentRun, digest, plain_name, run_jobs
from lightning_cells.paths import output_dir

_TABLE, _SCALE, _OVERRIDES = "reproduce.table", "reproduce.scale", "reproduce.overrides"
_CALL = "reproduce.call"  # digest of these three
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
class ClaimVerdict:
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


@dataclass(frozen=True)
class Results:
    """A table that was run.

    Attributes:
        name: of the table.
        table: what it is.
        scale: how it was run.
        overrides: options from the command line.
        cells: its values.
        verdicts: on its claims.
        failed: outcomes of jobs that failed.
    """

    name: str
    table: Table
    scale: ScaleName
    overrides: dict[str, Any]
    cells: list[Cell]
    verdicts: list[ClaimVerdict]
    failed: list[Outcome]


def run_table(
    name: str,
    table: Table,
    scale: ScaleName,
    overrides: dict[str, Any],
    describe: Describe,
    workers: int,
    say: Callable[[str], None],
    write: Callable[[Results], Iterable[Any]],
) -> Results:
    """Runs what was not run before, and sums up; the parent run gets the means and what `write` returns.

    Args:
        name: of the table.
        table: the table.
        scale: how it is run.
        overrides: further options, which win; such a table is another one.
        describe: options of a verb -> its configuration, with the contents of the data.
        workers: runs at a time, each with its share of this machine.
        say: told in one line about each run that ended.
        write: writes files, and returns their paths.

    Raises:
        InputError: for options that cannot be, and data that are missing or broken.
        KeyboardInterrupt: when the table can go on.
    """
    jobs = identified(name, jobs_of(table, scale, overrides), describe)
    trainer = describe(jobs[0].fit, "fit")["trainer"]
    shares = places(workers, trainer["accelerator"], trainer["devices"])
    call = {_TABLE: name, _SCALE: scale, _OVERRIDES: json.dumps(overrides, sort_keys=True)}
    logs = output_dir() / "reproduce" / name / "logs"
    with ParentRun.open(_CALL, digest(call), call, f"reproduce {name} {scale}", logs) as parent:
        found = parent.finished(jobs)
        if found:
            say(f"{len(found)} of {len(jobs)} runs are there already, by the same code, data, options and seed")
        old = [code for job in jobs if job not in found and (code := outdated(parent, job))]
        if old:
            say(f"{len(old)} runs are made again: the code has changed since ({', '.join(sorted(set(old)))})")
        with ProcessPool(shares) as pool:
            outcomes = run_jobs(jobs, parent, pool, lambda outcome: _say(outcome, say), found)
        results = sum_up(name, table, scale, overrides, list(outcomes.values()))
        for cell in results.cells:
            if cell.values:
                key = "/".join(map(plain_name, (cell.row, cell.column, cell.measure)))
                parent.client.log_metric(parent.run_id, key, cell.mean)
        for path in write(results):
            parent.client.log_artifact(parent.run_id, str(path))
        if results.failed:
            parent.ending = "FAILED"
    return results


def outdated(parent: ParentRun, job: Job) -> str | None:
    """The newest code by which the same was run before, if it is not that of today."""
    codes = [run.data.tags.get(CODE) for run in parent.runs({IDENTITY: job.tags[IDENTITY]}) if RESULT in run.data.tags]
    return next((code for code in codes if code != code_version()), None)


def _say(outcome: Outcome, say: Callable[[str], None]) -> None:
    run = f"run {outcome.run}"
    if outcome.error:
        say(f"{outcome.job.name}: failed: {outcome.error}" + (f" ({run})" if outcome.run else ""))
    elif outcome.ending != "found":
        say(f"{outcome.job.name}: {outcome.seconds:.0f} s of CPU, {run}")


def sum_up(
    name: str, table: Table, scale: ScaleName, overrides: dict[str, Any], outcomes: Sequence[Outcome]
) -> Results:
    """Cells and verdicts from what became of a table's jobs."""
    values = measured(outcomes)
    verdicts = [judge(claim, table, values) for claim in table.claims]
    failed = [outcome for outcome in outcomes if outcome.error]
    return Results(name, table, scale, overrides, cells(table, scale, values), verdicts, failed)


def measured(outcomes: Iterable[Outcome]) -> pd.DataFrame:
    """What was measured: row, data, fold and seed of the job, column, measure, and value."""
    found = [
        (job.row, job.data, job.fold, job.seed, column, measure, value)
        for outcome in outcomes
        if isinstance(job := outcome.job, RowJob)
        for column, measures in outcome.measures.items()
        for measure, value in measures.items()
    ]
    columns = ["row", "data", "fold", "seed", "column", "measure", "value"]
    return pd.DataFrame(found, columns=columns).astype({"value": float})


def cells(table: Table, scale: ScaleName, values: pd.DataFrame) -> list[Cell]:
    """All cells of a table: for each row its columns and, if there are several, their mean."""
    groups = {key: tuple(group) for key, group in values.groupby(["row", "column", "measure"])["value"]}
    found = []
    for name, row in table.rows.items():
        for measure in table.measures:
            ours = {column: groups.get((name, column, measure), ()) for column in table.columns(scale)}
            known = {column: values[measure] for column, values in row.values.items() if measure in values}
            if known.keys() - {MEAN} - ours.keys():  # theirs is over other data
                known.pop(MEAN, None)
            if len(ours) > 1:
                ours[MEAN] = tuple(map(statistics.fmean, ours.values())) if all(ours.values()) else ()
            found += [Cell(name, column, measure, own, known.get(column)) for column, own in ours.items()]
    return found


def judge(claim: Claim, table: Table, values: pd.DataFrame) -> ClaimVerdict:
    """Compares two rows run by run: those of the same data, fold and seed are a pair.

    A run that is measured on several columns counts once, with its mean. A classical row, which has no seeds, is
    compared with the other one's means over seeds.

    The interval is that of Student's paired t test: with as few runs as can be afforded a bootstrap would be far too
    sure (two differences of one sign are never resampled to another).
    """
    rows = [claim.better, claim.worse]
    units = values[values["measure"].eq(claim.measure) & values["row"].isin(rows)]
    means = units.groupby(["data", "fold", "seed", "row"])["value"].mean()
    if any(table.rows[row].classical is True for row in rows):
        means = means.groupby(["data", "fold", "row"]).mean()
    both = means.unstack("row").reindex(columns=rows).dropna()
    pairs = both[claim.better] - both[claim.worse]
    difference = float(pairs.mean())
    low = high = math.nan
    if len(pairs) >= _LEAST:
        half = float(stats.t.ppf((1 + _LEVEL) / 2, len(pairs) - 1) * pairs.sem())
        low, high = difference - half, difference + half
    if claim.within is None:
        holds, fails = low > 0, high < 0
    else:
        holds, fails = low > -claim.within and high < claim.within, low > claim.within or high < -claim.within
    words = "reproduced" if holds else "not reproduced" if fails else "undecided"
    return ClaimVerdict(claim, len(pairs), difference, low, high, words)
