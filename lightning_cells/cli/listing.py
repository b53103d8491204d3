"""Lists what there is to name: methods, presets, data sets, models, sweeps, tables and runs, one line each.

Of runs the newest are listed, with their best measure; data sets are those that are public, and what the data folder
has.

lightning-cells list
lightning-cells list runs --most 50
lightning-cells list data --json
"""

import argparse
import json

from lightning_cells.cli.inventory import SECTIONS
from lightning_cells.cli.words import readable
from lightning_cells.paths import output_dir


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("what", nargs="?", choices=[*SECTIONS], help="one of the lists (default: all)")
    parser.add_argument("--most", type=int, default=10, metavar="N", help="of runs (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, a list for each of the lists")


def run(args: argparse.Namespace) -> None:
    """Prints."""
    found = {name: SECTIONS[name](args.most) for name in SECTIONS if args.what in (None, name)}
    if args.json:
        lists = {name: [{"name": i.name, "says": i.says, **i.more} for i in items] for name, items in found.items()}
        print(json.dumps(lists, indent=1))
        return
    blocks = []
    for name, items in found.items():
        width = max((len(item.name) for item in items), default=0)
        lines = [f"  {item.name:<{width}}  {item.says}" for item in items] or ["  none yet"]
        if name == "runs" and items:
            lines.append(f"  weights: {readable(output_dir() / 'checkpoints')}/ID/best.ckpt")
        blocks.append("\n".join([name, *lines]))
    print("\n\n".join(blocks))
