"""The options of the verbs that read anyone's frames: which files, channel and axes, and how large voxels are."""

import argparse
from typing import Any

from lightning_cells.errors import InputError


def add_frame_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--pattern",
        metavar="NAME",
        help="which files of the folder are frames: their name with {t} in place of the number or time, and * for "
        "anything, such as 'img_{t}_c0.tif'; default: all, if their names differ in one number alone",
    )
    parser.add_argument(
        "--channel", type=int, metavar="N", help="which of several channels or colours of FRAMES to track, from 0"
    )
    parser.add_argument(
        "--axes",
        metavar="AXES",
        help="what the images of FRAMES are, whatever the metadata say: TYX points in time, ZYX the planes of a "
        "volume, TZYX volumes at points in time",
    )
    parser.add_argument(
        "--voxel",
        type=float,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="sides of a voxel of volumes: for other programs in micrometres, else only the ratios count; default: "
        "what the files say, else 1 1 1",
    )


def how_read(args: argparse.Namespace) -> dict[str, Any]:
    """What `open_frames` is to be told of the frames.

    Raises:
        InputError: if there is something to tell, and no frames.
    """
    told = {name: getattr(args, name) for name in ("pattern", "channel", "axes")}
    for name, value in told.items():
        if value is not None and args.frames is None:
            raise InputError(f"--{name} {value}: says how frames are read: give FRAMES, too, or leave it out")
    return told
