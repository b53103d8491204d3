"""A table from beginning to end."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_cells.data.atomic import writing
from lightning_cells.errors import InputError
from lightning_cells.experiments.papers.plan import Describe, Job, identity, plan
from lightning_cells.experiments.papers.plot import save_plot
from lightning_cells.experiments.papers.report import Report, as_json, make_report, markdown
from lightning_cells.experiments.papers.runs import TableRuns
from lightning_cells.experiments.papers.table import ScaleName, Table
from lightning_cells.experiments.papers.work import Work
from lightning_cells.experiments.tuning.places import places
from lightning_cells.paths import output_dir


def reproduce(
    name: str,
    table: Table,
    scale: ScaleName,
    overrides: dict[str, Any],
    describe: Describe,
    workers: int,
    say: Callable[[str], None],
) -> Report:
    """Runs what was not run before, and writes table and plot to ``outputs/reproduce/NAME`` and to the parent run.

    Args:
        name: of the table.
        table: the table.
        scale: how it is run.
        overrides: further options, which win; such a table is another one.
        describe: options of a verb -> its configuration, with the contents of the data.
        workers: runs at a time, each with its share of this machine.
        say: told in one line about each run that ended.

    Raises:
        InputError: for options that cannot be, and data that are missing or broken.
        KeyboardInterrupt: when the table can go on.
    """
    jobs = _known(name, plan(table, scale, overrides), describe)
    trainer = describe(next(iter(jobs)).words, "fit")["trainer"]
    shares = places(workers, trainer["accelerator"], trainer["devices"])
    folder = output_dir() / "reproduce" / name
    runs = TableRuns(name, scale, overrides)
    try:
        outcomes = Work(jobs, runs, shares, folder / "logs", say).work()
        report = make_report(name, table, scale, overrides, outcomes)
        files = _write(folder, report)
    except BaseException:
        runs.broken_off()
        raise
    runs.end(len(report.failed), report.metrics, files)
    return report


def _known(name: str, jobs: list[Job], describe: Describe) -> dict[Job, str]:
    """The jobs with what tells them from others; raises InputError, naming the job, for one that cannot be run."""
    found = {}
    for job in jobs:
        try:
            found[job] = identity(job, describe)
        except InputError as error:
            raise InputError(f"table {name}, {job.name}: {error}") from error
    return found


def _write(folder: Path, report: Report) -> list[Path]:
    stem: str = report.scale
    if report.overrides:
        stem += "-" + hashlib.blake2b(json.dumps(report.overrides, sort_keys=True).encode(), digest_size=4).hexdigest()
    paths = [folder / f"{stem}.{suffix}" for suffix in ("md", "json", "png")]
    for path, text in zip(paths, (markdown(report), as_json(report)), strict=False):
        with writing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    save_plot(paths[-1], report)
    return paths
