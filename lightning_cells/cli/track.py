"""Tracks the cells of your own frames with a trained method, and writes a result folder.

FRAMES is a folder of grey 8- or 16-bit TIFFs of one size, in the order of the numbers in their names, or one
multi-page TIFF; with the extra bioio also an OME-Zarr, ND2, CZI or LIF. Frames may be volumes: files of several pages
in a folder, or a file whose metadata, or --axes, say so. A model remembers its method and how frames are to be
prepared. DIR gets maskNNN.tif, in which each cell has the number of its track, and res_track.txt with one row
"track first last parent" each. After a crash the same command goes on where it was. --decoder.NAME VALUE changes a
setting of the model's decoder, as --model.decoder.NAME does in a training; sizes in pixels are for cells of the
training's size.

Of many videos DIR gets NAME_RES for each, and a table; those that are done are skipped, also after a crash.

lightning-cells track my_frames --out my_RES
lightning-cells track my_frames --checkpoint outputs/checkpoints/RUN/best.ckpt --out my_RES --preview
lightning-cells track movie.tif --checkpoint best.ckpt --out movie_RES --device cuda --scale 0.5
lightning-cells track movie.tif --model models:/nuclei/1 --out movie_RES --diameter 60
lightning-cells track plate/*/ --out results
lightning-cells track my_frames --pattern 'img_{t}_c0.tif' --out my_RES
lightning-cells track two_colours.ome.tif --channel 1 --out my_RES
lightning-cells track volumes --voxel 5 1 1 --decoder.volumes.cells watershed --out my_RES
"""

import argparse
from pathlib import Path

from lightning_cells.cli.frame_options import add_frame_options, how_read
from lightning_cells.cli.parsing import dotted, explain
from lightning_cells.errors import InputError
from lightning_cells.trust import ALLOW_HELP, allow

PASSES_ON = True
_WHERE = ("frames", "out", "share", "output_dir", "checkpoint", "device", "allow")
"""Options on which results do not depend; the model counts by its contents."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument(
        "frames", metavar="FRAMES", type=Path, nargs="+", help="folder of TIFFs, or a multi-page TIFF; or many of them"
    )
    add_frame_options(parser)
    parser.add_argument(
        "--sequence",
        choices=("time", "z"),
        help="what a recurrent network goes through in volumes: each plane over time, or each volume from plane to "
        "plane; default: as in training",
    )
    trained = parser.add_mutually_exclusive_group()
    trained.add_argument("--checkpoint", type=Path, metavar="F", help="best.ckpt or last.ckpt of a run")
    trained.add_argument(
        "--model",
        metavar="NAME",
        help="a model that comes with lightning-cells, a registered one (models:/NAME/VERSION, models:/NAME/latest, "
        "models:/NAME@ALIAS), or a file; default, if no checkpoint is given: nuclei",
    )
    parser.add_argument("--allow", metavar="PACKAGES", help=ALLOW_HELP)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="result folder; of many, the folder of all"
    )
    parser.add_argument(
        "--share", type=_share, metavar="I/N", help="of many videos every N-th, from the I-th on: 0/4, 1/4, 2/4 and 3/4"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="where the network runs; auto takes a GPU if there is one (default: %(default)s)",
    )
    parser.add_argument(
        "--chunk", type=int, default=8, metavar="N", help="frames in memory at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--scale",
        type=float,
        metavar="S",
        help="size of the frames that the network sees, relative to yours: 0.5 for cells twice as large as in its "
        "training; default: it follows from --diameter",
    )
    parser.add_argument(
        "--diameter",
        type=_pixels,
        default="auto",
        metavar="PX",
        help="diameter of a typical cell in your frames, in pixels, from which the scale follows; auto estimates it "
        "from some of the frames, training takes them for as large as those of the training (default: %(default)s)",
    )
    parser.add_argument(
        "--min-size",
        type=float,
        metavar="SHARE",
        help="drop pieces smaller than this share of a typical cell's area, such as 0.1; 0 keeps all; default: what "
        "the decoder has, for cells of the training's size",
    )
    parser.add_argument(
        "--flips",
        action="store_true",
        help="also look at frames mirrored, and average: somewhat better outlines in four times the time",
    )
    parser.add_argument(
        "--linker",
        choices=("overlap", "laptrack"),
        help="what links the cells of methods that only find them: overlap with the frame before, or an assignment "
        "over the whole video that also bridges gaps (pip install laptrack); default: as in training",
    )
    parser.add_argument(
        "--preview", action="store_true", help="also write DIR_preview.gif: outlined and numbered cells, small"
    )


def _pixels(word: str) -> float | str:
    return word if word in ("auto", "training") else float(word)


def _share(word: str) -> tuple[int, int]:
    place, _, count = word.partition("/")
    if not (place.isdecimal() and count.isdecimal() and int(place) < int(count)):
        raise argparse.ArgumentTypeError(f"'{word}' is no share: give it as 0/4 to 3/4")
    return int(place), int(count)


def run(args: argparse.Namespace) -> int:
    """Tracks; the exit status is 1 if one of many videos could not be tracked."""
    from lightning_cells.cli.many_videos import track_many
    from lightning_cells.loggers.models import trained_model
    from lightning_cells.methods.pretrained import DEFAULT
    from lightning_cells.tracking import Tracker, preview_path

    allow(args.allow)
    with trained_model(args.checkpoint or args.model or DEFAULT) as checkpoint:
        tracker = Tracker(
            checkpoint,
            args.device,
            args.linker,
            args.scale,
            args.chunk,
            args.diameter,
            args.min_size,
            _decoder(args),
            args.flips,
            args.sequence,
        )

    def track(source: Path, out: Path) -> tuple[int, int]:
        return tracker.track_to(source, out, args.preview, **how_read(args), voxel=args.voxel)

    if len(args.frames) > 1 or args.share is not None:
        options = {name: value for name, value in vars(args).items() if name not in _WHERE}
        options["model"] = tracker.digest
        return track_many(args.frames, args.out, options, track, args.share or (0, 1))
    frames, tracks = track(args.frames[0], args.out)
    print(f"{tracks} track(s) in {frames} frame(s): {args.out}")
    if args.preview:
        print(f"preview: {preview_path(args.out.resolve())}")
    return 0


def _decoder(args: argparse.Namespace) -> dict[str, str]:
    """The settings of the decoder that were given, by their names.

    Raises:
        InputError: for options that are none.
    """
    chosen = {}
    for setting in dotted(args.passed_on, vars(args)):
        option, _, value = setting.partition("=")
        if not option.startswith("decoder."):
            raise InputError(explain(f"unrecognized arguments: --{option}", vars(args)))
        chosen[option.removeprefix("decoder.")] = value
    return chosen
