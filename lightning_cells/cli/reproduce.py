"""Runs the papers' tables and puts what came out beside what they say.

Each table is a file of conf/reproduce: rows are ordinary configurations with options. At scale 'tiny' simulated data
(surrogates) take the place of the papers', and small networks that of theirs: all tables in an hour on two cores. Scale
'small' takes hours on two cores, on real videos where they are under $LIGHTNING_CELLS_DATA, with three seeds. At scale
'paper' it is the real data and the whole configurations. Not every table has all three.

Each row is a run in MLflow below that of its table. What ran before with the same options, data, code and seed is not
run again, and a table that was interrupted goes on. outputs/reproduce/NAME gets the table as Markdown and JSON, and a
plot. Dotted options of 'fit', such as --trainer.max_steps=2000, hold for all rows, and make it another table.

lightning-cells reproduce --list
lightning-cells reproduce gruunet-loss
lightning-cells reproduce --workers 2 --readme docs/results.md
lightning-cells reproduce unseen --scale small
lightning-cells reproduce ulstm-loss --scale paper --trainer.max_steps=2000
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_cells.experiments.papers.table import ScaleName, Table

PASSES_ON = True
"""Dotted options are for ``fit``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="table, such as ulstm-loss, or a file of your own (default: all)"
    )
    parser.add_argument("--scale", choices=("tiny", "small", "paper"), default="tiny", help="(default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="list the tables, and what they need")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="W", help="runs at a time on this machine (default: %(default)s)"
    )
    parser.add_argument("--readme", type=Path, metavar="FILE", help="also write the results into this Markdown file")


def run(args: argparse.Namespace) -> int:
    """Runs the tables and prints them; the exit status is 1 if a run failed."""
    from functools import cache

    from lightning_cells.cli.parsing import dotted
    from lightning_cells.cli.resolving import Resolver
    from lightning_cells.errors import InputError
    from lightning_cells.experiments.papers.jobs import check_data, make_surrogates
    from lightning_cells.experiments.papers.report import check_readme, markdown, section, write_report, write_section
    from lightning_cells.experiments.papers.results import run_table
    from lightning_cells.experiments.papers.table import names, read_table

    tables = {Path(name).stem: read_table(name) for name in ([args.name] if args.name else names())}
    if not args.name:
        tables = {name: table for name, table in tables.items() if args.scale in table.scales}
    if args.list:
        print("\n".join(_listed(tables, args.scale)))
        return 0
    overrides = dict(setting.split("=", 1) for setting in dotted(args.passed_on, vars(args)))
    if "seed_everything" in overrides:
        raise InputError("--seed_everything: each table has its own seeds: change them in its file")
    if args.readme is not None:
        check_readme(args.readme)
    for name, table in tables.items():
        check_data(name, table, args.scale, overrides)
    make_surrogates(tables.values(), args.scale)
    describe = cache(Resolver().describe)  # parses options and opens data, each only once
    done = []
    try:
        for name, table in tables.items():
            print(f"{name}: {table.title}", flush=True)
            results = run_table(name, table, args.scale, overrides, describe, args.workers, _say, write_report)
            print(f"\n{markdown(results)}", flush=True)
            done.append(results)
    except KeyboardInterrupt:
        again = shlex.join(["reproduce", *sys.argv[2:]])
        print(f"\nThe table can go on: lightning-cells {again}", flush=True)
        raise
    if args.readme is not None:
        write_section(args.readme, section(done))
    return 1 if any(results.failed for results in done) else 0


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


def _listed(tables: dict[str, "Table"], scale: "ScaleName") -> list[str]:
    from lightning_cells.experiments.papers.jobs import jobs_of, missing, needed

    lines = []
    for name, table in tables.items():
        setting = table.scale(scale)
        minutes = "not measured" if setting.minutes is None else f"{setting.minutes:.0f} CPU minutes"
        absent = missing(table, scale)
        lines += [
            f"{name}: {table.title}",
            f"  {table.source}",
            f"  {len(table.rows)} rows, {len(jobs_of(table, scale, {}))} runs at scale {scale}: {minutes}",
            f"  data: {', '.join(needed(table, scale))}" + (f"; missing: {'; '.join(absent)}" if absent else ""),
        ]
    return lines
