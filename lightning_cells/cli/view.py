"""Opens a result in napari: frames, cells and tracks as layers.

napari is an extra: pip install 'lightning-cells[napari]'.

lightning-cells view my_RES my_frames
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("result", metavar="RES", type=Path, help="folder with maskNNN.tif and res_track.txt")
    parser.add_argument("frames", metavar="FRAMES", type=Path, nargs="?", help="the video that was tracked")
    parser.add_argument(
        "--voxel",
        type=float,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="sides of a voxel of volumes in micrometres (default: what the frames say)",
    )


def run(args: argparse.Namespace) -> None:
    """Opens."""
    from lightning_cells.exchange import view
    from lightning_cells.result import Result

    view(Result.read(args.result, args.frames), args.voxel)
