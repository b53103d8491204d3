"""Compares a result folder with the truth by the measures of the Cell Tracking Challenge.

lightning-cells evaluate outputs/predictions/simulated/09_RES data/simulated/09_GT
lightning-cells evaluate 01_RES 01_GT --frames 45 65 --json
"""

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("result", metavar="RES", type=Path, help="folder with maskNNN.tif and res_track.txt")
    parser.add_argument("truth", metavar="GT", type=Path, help="folder with SEG and TRA")
    parser.add_argument(
        "--frames",
        type=int,
        nargs=2,
        metavar=("START", "STOP"),
        help="only frames START <= number < STOP; tracks are clipped to them",
    )
    parser.add_argument(
        "--planes",
        action="store_true",
        help="of volumes SEG alone, each plane by itself: for results that are not joined from plane to plane",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> None:
    """Evaluates."""
    from lightning_cells.metrics.evaluate import evaluate

    frames = tuple(args.frames) if args.frames else None
    counts = evaluate(args.result, args.truth, frames, progress=not args.json, each_plane=args.planes)
    measures = counts.as_dict()
    if args.json:
        print(json.dumps(measures))
        return
    for name, value in measures.items():
        shown = "not computable" if value is None else f"{value:.6f}" if isinstance(value, float) else value
        print(f"{name:<10} {shown}")
