"""The results of a table as Markdown, JSON and a plot."""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib

from lightning_cells.data.atomic import writing
from lightning_cells.errors import InputError
from lightning_cells.experiments.papers.jobs import code_version
from lightning_cells.experiments.papers.results import Cell, ClaimVerdict, Results
from lightning_cells.experiments.papers.table import MEAN, ScaleName
from lightning_cells.paths import output_dir

BEGIN = '<!-- results: written by "lightning-cells reproduce --readme" -->'
END = "<!-- end -->"
_LINE = 0.28  # inches of a row's column in the plot


def write_report(results: Results) -> list[Path]:
    """Writes Markdown, JSON and a plot to ``outputs/reproduce/NAME``; returns their paths."""
    stem: str = results.scale
    if results.overrides:
        overrides = json.dumps(results.overrides, sort_keys=True).encode()
        stem += "-" + hashlib.blake2b(overrides, digest_size=4).hexdigest()
    paths = [output_dir() / "reproduce" / results.name / f"{stem}.{suffix}" for suffix in ("md", "json", "png")]
    for path, text in zip(paths, (markdown(results), as_json(results)), strict=False):
        with writing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    save_plot(paths[-1], results)
    return paths


def _caption(results: Results) -> str:
    """What the values are of."""
    if results.scale == "tiny":
        ours = "surrogates: simulated data with the structure of the named ones, small networks, short trainings"
    else:
        ours = "the named data, each row by its configurations at this scale"
    if results.overrides:
        ours += ", with overrides " + " ".join(f"--{key} {value}" for key, value in results.overrides.items())
    return ours


def markdown(results: Results) -> str:
    """The whole table with its caption and what becomes of its claims."""
    table = results.table
    paper = any(cell.paper is not None for cell in results.cells)
    lines = [f"## {results.name}: {table.title}", "", f"{table.source}; measured there: {table.measured}."]
    lines += [f"Ours: scale `{results.scale}`, {_caption(results)}; code {code_version()}."]
    lines += [f"Mean ± standard deviation over (n) runs{', beside the paper' if paper else ''}.{_remark(table.remark)}"]
    heads = [head for measure in table.measures for head in ((measure, f"{measure}, paper") if paper else (measure,))]
    rows = _rows(results, paper)
    lines += ["", *_table(["row", "data", *heads], rows), ""]
    if results.scale == "paper" and paper:
        lines += [*_reached(results), ""]
    lines += [f"* {verdict_text(verdict, results.scale)}" for verdict in results.verdicts]
    lines += _published(results)
    lines += [
        f"* {outcome.job.name}: **failed**: {outcome.error} (run {outcome.run or 'none'})" for outcome in results.failed
    ]
    return "\n".join(lines).rstrip() + "\n"


def verdict_text(verdict: ClaimVerdict, scale: ScaleName) -> str:
    """A claim, what became of it, and why."""
    claim = verdict.claim
    beats = "beats" if claim.within is None else f"is within {claim.within:g} of"
    said = (
        f"{claim.better} {beats} {claim.worse} in {claim.measure} ({claim.paper}): **{verdict.words}** at scale "
        f"`{scale}`"
    )
    if not verdict.pairs:
        return f"{said}: no runs to compare"
    opposite = "; the opposite holds" if verdict.words == "not reproduced" and claim.within is None else ""
    span = "" if math.isnan(verdict.low) else f", 95 % interval {verdict.low:+.3f} to {verdict.high:+.3f}, paired t"
    return f"{said}: difference {verdict.difference:+.3f}{span}, {verdict.pairs} pairs of runs{opposite}"


def _rows(results: Results, paper: bool) -> list[list[str]]:
    places: dict[tuple[str, str], list[str]] = {}
    for cell in results.cells:
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


def _reached(results: Results) -> list[str]:
    lines = []
    for cell in results.cells:
        if cell.paper is not None and cell.values:
            gap = cell.mean - cell.paper
            beaten = ("below", gap < 0) if cell.measure == "loss" else ("above", gap > 0)
            words = "reached" if abs(gap) <= results.table.tolerance else beaten[0] if beaten[1] else "not reached"
            lines.append(
                f"* {cell.row}, {cell.column}, {cell.measure}: {words}: {gap:+.3f} from the paper's value, tolerance "
                f"{results.table.tolerance}"
            )
    return lines


def _published(results: Results) -> list[str]:
    """What others reached on each of the data, and where our rows would stand among them."""
    lines = []
    for column, measures in results.table.published.items():
        for measure, others in measures.items():
            known = dict(others)
            for cell in results.cells:
                if (cell.column, cell.measure) == (column, measure):
                    if cell.paper is not None:
                        known[f"{cell.row}, paper"] = cell.paper
                    if results.scale == "paper" and cell.values:
                        known[f"**{cell.row}, ours**"] = cell.mean
            ranked = sorted(known.items(), key=lambda one: -one[1])
            said = ", ".join(f"{name} {value:.3f}" for name, value in ranked)
            lines.append(f"* published, {column}, {measure}: {said}")
    return lines


def as_json(results: Results) -> str:
    """Every value with full precision."""
    tree = {
        "table": results.name,
        "scale": results.scale,
        "overrides": results.overrides,
        "code": code_version(),
        "cells": [asdict(cell) for cell in results.cells],
        "verdicts": [{**asdict(verdict), "claim": dict(verdict.claim)} for verdict in results.verdicts],
        "failed": [{"job": o.job.name, "run": o.run, "error": o.error} for o in results.failed],
    }
    return json.dumps(tree, indent=1) + "\n"


def section(tables: Sequence[Results]) -> str:
    """All tables in short, for a README: a line per row by its first measure, and the claims."""
    scale = tables[0].scale
    lines = [
        f"`lightning-cells reproduce --scale {scale}`: {_caption(tables[0])}. Mean ± standard deviation (runs).",
        "",
    ]
    rows = []
    for results in tables:
        measure = results.table.measures[0]
        means = any(cell.column == MEAN and cell.paper is not None for cell in results.cells)
        for cell in results.cells:
            if cell.measure == measure and (cell.column == MEAN) == means:
                value = "" if cell.paper is None else f"{cell.paper:.3f}"
                rows.append([f"`{results.name}`", cell.row, cell.column, measure, _ours(cell), value])
    lines += [*_table(["table", "row", "data", "measure", f"ours, {scale}", "paper"], rows), ""]
    for results in tables:
        lines += [f"* `{results.name}`: {verdict_text(verdict, scale)}" for verdict in results.verdicts]
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


def save_plot(path: Path, results: Results) -> None:
    """Draws a panel for each measure: a line for each row and column, single runs as dots, the paper's hollow."""
    matplotlib.use("Agg", force=False)
    import matplotlib.pyplot as plt

    measures = results.table.measures
    lines = list(dict.fromkeys((cell.row, cell.column) for cell in results.cells))
    several = len({column for _, column in lines}) > 1
    names = [f"{row}, {column}" if several else row for row, column in lines]
    columns = list(dict.fromkeys(column for _, column in lines))
    size = (2.5 + 3.2 * len(measures), 1.5 + _LINE * max(4, len(lines)))
    figure, panels = plt.subplots(1, len(measures), sharey=True, figsize=size, squeeze=False)
    for axes, measure in zip(panels[0], measures, strict=True):
        for cell in (cell for cell in results.cells if cell.measure == measure):
            height = lines.index((cell.row, cell.column))
            colour = f"C{columns.index(cell.column) % 10}"
            if cell.values:
                spread = 0.0 if math.isnan(cell.sd) else cell.sd
                if cell.column != MEAN:
                    axes.plot(cell.values, [height] * len(cell.values), ".", color=colour, alpha=0.35, markersize=5)
                axes.errorbar(cell.mean, height, xerr=spread, fmt="o", color=colour, capsize=3, markersize=5)
            if cell.paper is not None:
                axes.plot(cell.paper, height, "D", color="black", fillstyle="none", markersize=6)
        axes.set_xlabel(measure)
        axes.grid(axis="x", alpha=0.3)
    panels[0][0].set_yticks(range(len(lines)), names)
    panels[0][0].set_ylim(len(lines) - 0.5, -0.5)
    handles = [
        plt.Line2D(
            [], [], marker="o", color="gray", linestyle="-", label=f"ours, {results.scale}: mean and sd of runs"
        ),
    ]
    if any(cell.paper is not None for cell in results.cells):
        handles.append(plt.Line2D([], [], marker="D", color="black", fillstyle="none", linestyle="", label="paper"))
    figure.legend(handles=handles, loc="lower center", ncols=2, frameon=False, fontsize=8)
    figure.suptitle(f"{results.name} ({results.scale})", fontsize=10)
    figure.tight_layout(rect=(0, 0.45 / size[1], 1, 1))
    with writing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)
