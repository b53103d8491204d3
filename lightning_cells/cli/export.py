"""Writes a result for other programs: a table, or the formats of napari, TrackMate and GEFF; or a network as ONNX.

csv is a row for each cell in each frame. geff is the graph exchange format, read by napari (napari-geff), Mastodon and
others. trackmate is an XML for Fiji. napari is a folder of labels, tracks and their mothers. ome-zarr holds the labels,
and the frames if they are given.

lightning-cells export my_RES --to csv
lightning-cells export my_RES --to geff --out my_cells.geff
lightning-cells export my_RES --to trackmate --frames my_frames
lightning-cells export outputs/checkpoints/RUN/best.ckpt --to onnx
"""

import argparse
from pathlib import Path

from lightning_cells.cli.frame_options import add_frame_options, how_read

_FORMATS = ("csv", "geff", "trackmate", "napari", "ome-zarr", "onnx")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument(
        "result", metavar="RES", type=Path, help="folder with maskNNN.tif and res_track.txt; for onnx a checkpoint"
    )
    parser.add_argument("--to", choices=_FORMATS, required=True, help="format")
    parser.add_argument("--frames", type=Path, metavar="FRAMES", help="the video that was tracked, for intensities")
    parser.add_argument("--out", type=Path, metavar="PATH", help="file or folder to write (default: beside RES)")
    add_frame_options(parser)


def run(args: argparse.Namespace) -> None:
    """Exports."""
    if args.to == "onnx":
        print(_network(args))
        return
    from lightning_cells.exchange import FORMATS, export
    from lightning_cells.result import Result

    ending = FORMATS[args.to][1]
    out = args.out or args.result.with_name(f"{args.result.resolve().name}{ending}")
    print(export(Result.read(args.result, args.frames, **how_read(args)), args.to, out, args.voxel))


def _network(args: argparse.Namespace) -> Path:
    from lightning_cells.errors import InputError
    from lightning_cells.methods.building import load_method
    from lightning_cells.methods.onnx_file import write_onnx

    for name in ("frames", "pattern", "channel", "axes", "voxel"):
        if getattr(args, name) is not None:
            raise InputError(f"--{name}: is for results, not for a network: leave it out")
    out = args.out or args.result.with_suffix(".onnx")
    return write_onnx(*load_method(args.result), out)
