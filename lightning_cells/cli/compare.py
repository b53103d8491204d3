"""Puts runs side by side on one page: their options, curves, measures with confidence intervals, and frames.

Runs are given by id or name, in any experiment of the project's store. Of a training, the latest test of one of its
checkpoints is shown with it; of a test, the training. The page is one file that needs no network.

  lightning-cells compare ulstm-0abf gruunet-51e9
  lightning-cells compare 0abfc311920549cf8aa2eefbbf6fc117 51e90d... --out comparison.html
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="id or name of a run, two or more")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="page to write (default: comparisons/<ids>.html in the output folder)"
    )


def run(args: argparse.Namespace) -> None:
    """Writes the page."""
    from lightning_cells.data.atomic import writing
    from lightning_cells.errors import InputError
    from lightning_cells.experiments.comparison.page import comparison_page
    from lightning_cells.experiments.comparison.runs import select
    from lightning_cells.loggers.store import open_store, tracking_uri
    from lightning_cells.paths import output_dir
    from lightning_cells.visualization.page import file_name

    if args.out is not None and (args.out.is_dir() or args.out.suffix.lower() not in (".html", ".htm")):
        raise InputError(f"--out {args.out}: is no HTML file: give a name such as comparison.html")
    client = open_store(tracking_uri())
    runs = select(client, args.runs)
    name = file_name("-".join(chosen.run.info.run_id[:8] for chosen in runs))
    out = args.out or output_dir() / "comparisons" / f"{name}.html"
    page = comparison_page(client, runs)
    with writing(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"Open {out.absolute().as_uri()}")
