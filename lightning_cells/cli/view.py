"""Opens a result in napari: frames, cells and tracks as layers.

napari is an extra: pip install 'lightning-cells[napari]'.

lightning-cells view my_RES my_frames
"""

import argparse
from pathlib import Path

from lightning_cells.cli.frame_options import add_frame_options, how_read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("result", metavar="RES", type=Path, help="folder with maskNNN.tif and res_track.txt")
    parser.add_argument("frames", metavar="FRAMES", type=Path, nargs="?", help="the video that was tracked")
    add_frame_options(parser)


def run(args: argparse.Namespace) -> None:
    """Opens."""
    from lightning_cells.exchange import view
    from lightning_cells.result import Result

    view(Result.read(args.result, args.frames, **how_read(args)), args.voxel)
