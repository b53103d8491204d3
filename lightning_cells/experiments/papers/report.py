"""The results of a table as Markdown and JSON."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning_cells.data.atomic import writing
from lightning_cells.errors import InputError
from lightning_cells.experiments.papers.code import code_version
from lightning_cells.experiments.papers.runs import Outcome
from lightning_cells.experiments.papers.summary import Cell, Verdict, cells, judge
from lightning_cells.experiments.papers.table import MEAN, ScaleName, Table

BEGIN = '<!-- results: written by "lightning-cells reproduce --readme" -->'
END = "<!-- end -->"


@dataclass(frozen=True)
class Report:
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
    verdicts: list[Verdict]
    failed: list[Outcome]

    @property
    def caption(self) -> str:
        """What the values are of."""
        if self.scale == "tiny":
            ours = "surrogates: simulated data with the structure of the named ones, small networks, short trainings"
        else:
            ours = "the named data, each row by its configurations at this scale"
        if self.overrides:
            ours += ", with overrides " + " ".join(f"--{key} {value}" for key, value in self.overrides.items())
        return ours

    @property
    def metrics(self) -> dict[str, float]:
        """Means by row, column and measure, for the parent run."""
        names = {f"{cell.row}/{cell.column}/{cell.measure}": cell.mean for cell in self.cells}
        return {_plain(name): value for name, value in names.items() if not math.isnan(value)}


def make_report(
    name: str, table: Table, scale: ScaleName, overrides: dict[str, Any], outcomes: list[Outcome]
) -> Report:
    """Sums up what became of a table's jobs."""
    failed = [outcome for outcome in outcomes if outcome.error]
    verdicts = [judge(claim, outcomes) for claim in table.claims]
    return Report(name, table, scale, overrides, cells(table, scale, outcomes), verdicts, failed)


def markdown(report: Report) -> str:
    """The whole table with its caption and what becomes of its claims."""
    table = report.table
    paper = any(cell.paper is not None for cell in report.cells)
    lines = [f"## {report.name}: {table.title}", "", f"{table.source}; measured there: {table.measured}."]
    lines += [f"Ours: scale `{report.scale}`, {report.caption}; code {code_version()}."]
    lines += [f"Mean ± standard deviation over (n) runs{', beside the paper' if paper else ''}.{_remark(table.remark)}"]
    heads = [head for measure in table.measures for head in ((measure, f"{measure}, paper") if paper else (measure,))]
    rows = _rows(report, paper)
    lines += ["", *_table(["row", "data", *heads], rows), ""]
    if report.scale == "paper" and paper:
        lines += [*_reached(report), ""]
    lines += [f"* {verdict_text(verdict, report.scale)}" for verdict in report.verdicts]
    lines += [
        f"* {outcome.job.name}: **failed**: {outcome.error} (run {outcome.run or 'none'})" for outcome in report.failed
    ]
    return "\n".join(lines).rstrip() + "\n"


def verdict_text(verdict: Verdict, scale: ScaleName) -> str:
    """A claim, what became of it, and why."""
    claim = verdict.claim
    said = (
        f"{claim.better} beats {claim.worse} in {claim.measure} ({claim.paper}): **{verdict.words}** at scale `{scale}`"
    )
    if not verdict.pairs:
        return f"{said}: no runs to compare"
    opposite = "; the opposite holds" if verdict.words == "not reproduced" else ""
    span = "" if math.isnan(verdict.low) else f", 95 % interval {verdict.low:+.3f} to {verdict.high:+.3f}, paired t"
    return f"{said}: difference {verdict.difference:+.3f}{span}, {verdict.pairs} pairs of runs{opposite}"


def _rows(report: Report, paper: bool) -> list[list[str]]:
    places: dict[tuple[str, str], list[str]] = {}
    for cell in report.cells:
        line = places.setdefault((cell.row, cell.column), [cell.row, cell.column])
        line.append(_ours(cell))
        if paper:
            line.append("" if cell.paper is None else f"{cell.paper:.3f}")
    return list(places.values())


def _ours(cell: Cell) -> str:
    if not cell.values:
        return "failed"
    spread = "" if math.isnan(cell.sd) else f" ± {cell.sd:.3f}"
    return f"{cell.mean:.3f}{spread}" + ("" if cell.column == MEAN else f" ({len(cell.values)})")


def _reached(report: Report) -> list[str]:
    lines = []
    for cell in report.cells:
        if cell.paper is not None and cell.values:
            gap = cell.mean - cell.paper
            words = "reached" if abs(gap) <= report.table.tolerance else "above" if gap > 0 else "not reached"
            lines.append(
                f"* {cell.row}, {cell.column}, {cell.measure}: {words}: {gap:+.3f} from the paper's value, tolerance "
                f"{report.table.tolerance}"
            )
    return lines


def as_json(report: Report) -> str:
    """Every value with full precision."""
    tree = {
        "table": report.name,
        "scale": report.scale,
        "overrides": report.overrides,
        "code": code_version(),
        "cells": [asdict(cell) for cell in report.cells],
        "verdicts": [asdict(verdict) for verdict in report.verdicts],
        "failed": [{"job": o.job.name, "run": o.run, "error": o.error} for o in report.failed],
    }
    return json.dumps(tree, indent=1) + "\n"


def section(reports: Sequence[Report]) -> str:
    """All tables in short, for a README: a line per row by its first measure, and the claims."""
    scale = reports[0].scale
    lines = [
        f"`lightning-cells reproduce --scale {scale}`: {reports[0].caption}. Mean ± standard deviation (runs).",
        "",
    ]
    rows = []
    for report in reports:
        measure = report.table.measures[0]
        means = any(cell.column == MEAN and cell.paper is not None for cell in report.cells)
        for cell in report.cells:
            if cell.measure == measure and (cell.column == MEAN) == means:
                value = "" if cell.paper is None else f"{cell.paper:.3f}"
                rows.append([f"`{report.name}`", cell.row, cell.column, measure, _ours(cell), value])
    lines += [*_table(["table", "row", "data", "measure", f"ours, {scale}", "paper"], rows), ""]
    for report in reports:
        lines += [f"* `{report.name}`: {verdict_text(verdict, scale)}" for verdict in report.verdicts]
    return "\n".join(lines).rstrip() + "\n"


def check_readme(path: Path) -> None:
    """Raises InputError if a file has no place for the results."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise InputError(f"--readme {path}: is not a readable text file: give a Markdown file") from None
    if text.count(BEGIN) != 1 or END not in text.partition(BEGIN)[2]:
        raise InputError(f"--readme {path}: has no place for the results: write the lines {BEGIN} and {END} there")


def write_section(path: Path, text: str) -> None:
    """Replaces what stands between the two marks of a Markdown file."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    with writing(path) as temporary:
        temporary.write_text(f"{before}{begin}\n\n{text}\n{end}{after}", encoding="utf-8")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return ["| " + " | ".join(line) + " |" for line in lines]


def _remark(text: str) -> str:
    return f" {text[:1].upper()}{text[1:]}." if text else ""


def _plain(name: str) -> str:
    """A name without what MLflow's store does not take."""
    return "".join(letter if letter.isalnum() or letter in "-_./ " else "_" for letter in name)
