"""Writes simulated videos with exact truth, in Cell Tracking Challenge layout.

lightning-cells simulate data/simulated --sequences 10
lightning-cells simulate data/fibres --kind fibres --frames 8 --size 256 256
lightning-cells simulate data/volumes --depth 16 --voxel 5 1 1 --frames 10
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write: OUT/01, OUT/01_GT/SEG, OUT/01_GT/TRA")
    parser.add_argument(
        "--kind",
        choices=("nuclei", "brightfield", "fibres", "varied"),
        default="nuclei",
        help="fluorescent nuclei that move and divide; bright-field cells with nucleus and cytoplasm classes; "
        "densely packed still muscle fibres (default: %(default)s)",
    )
    parser.add_argument("--sequences", type=int, default=2, metavar="N", help="number of videos (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=24, metavar="N", help="frames per video (default: %(default)s)")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(128, 128), metavar=("H", "W"), help="pixels (default: 128 128)"
    )
    parser.add_argument(
        "--depth", type=int, metavar="Z", help="planes of each frame: volumes of nuclei (default: 2-D videos)"
    )
    parser.add_argument(
        "--voxel",
        type=float,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="size of a voxel in micrometres; a nucleus is 22 X wide (default: 5 1 1)",
    )
    parser.add_argument("--cells", type=int, metavar="N", help="cells at the start (default: as fits the area)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="same seed, same bytes (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Simulates."""
    from lightning_cells.data.simulate import simulate

    out = simulate(
        args.out,
        kind=args.kind,
        sequences=args.sequences,
        frames=args.frames,
        size=tuple(args.size),
        seed=args.seed,
        cells=args.cells,
        depth=args.depth,
        voxel=tuple(args.voxel) if args.voxel else None,
    )
    kind = "frames" if args.depth is None else f"volumes of {args.depth} planes"
    print(f"{args.sequences} simulated video(s) of {args.frames} {kind} are in {out}")
