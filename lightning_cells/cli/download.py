"""Fetches a named public data set of the Cell Tracking Challenge, checks it and unpacks it.

  lightning-cells download Fluo-N2DH-SIM+
  lightning-cells download DIC-C2DH-HeLa --root /data/challenge

A download that broke off goes on where it stopped. The data are the challenge's: see its terms of use.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    from lightning_cells.data.public_sets import describe

    parser.add_argument("name", metavar="NAME", help="data set, see below")
    parser.add_argument("--root", type=Path, metavar="DIR", help="(default: $LIGHTNING_CELLS_DATA, else data)")
    parser.add_argument("--url", help="fetch from here instead of the challenge's server; checked all the same")
    parser.add_argument(
        "--accept", action="store_true", help="take an archive that differs from the known one and record it as known"
    )
    parser.epilog = describe()


def run(args: argparse.Namespace) -> None:
    """Downloads."""
    from lightning_cells.data.download import download

    print(f"{args.name} is in {download(args.name, args.root, args.url, args.accept)}")
