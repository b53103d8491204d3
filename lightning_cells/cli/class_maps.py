"""Makes maps of semantic classes, 0 background, 1 nucleus, 2 cytoplasm, from two fluorescence channels.

They are what a bright-field network learns from: take bright field and both stains of the same cells, and give the maps
as the truth of the bright-field frames. Each channel has its own threshold (Otsu's), found anew in each frame.

lightning-cells class-maps dapi/ cytoplasm/ --out data/mine/01_GT/SEM
lightning-cells class-maps dapi/ cytoplasm/ --out data/mine/labels --stills
"""

import argparse
from pathlib import Path

_CLASSES = ("background", "nucleus", "cytoplasm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("nuclei", metavar="NUCLEI", type=Path, help="frames of the nuclear stain: a folder or a stack")
    parser.add_argument("cytoplasm", metavar="CYTOPLASM", type=Path, help="the same frames of the cytoplasm's stain")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the maps, man_semNNN.tif")
    parser.add_argument(
        "--stills", action="store_true", help="call each map as its nuclear image, for --data.layout images"
    )
    parser.add_argument(
        "--smoothing", type=float, default=1.0, metavar="PX", help="before the thresholds (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Makes the maps."""
    import numpy as np

    from lightning_cells.data.frames import open_frames
    from lightning_cells.data.image_files import write_image
    from lightning_cells.errors import InputError
    from lightning_cells.instances.class_maps import class_map
    from lightning_cells.progress import Progress

    counts = np.zeros(3, np.int64)
    with open_frames(args.nuclei) as nuclei, open_frames(args.cytoplasm) as cytoplasm:
        if nuclei.numbers != cytoplasm.numbers:
            raise InputError(
                f"{args.cytoplasm}: has {len(cytoplasm)} frames from {cytoplasm.numbers[0]} on, {args.nuclei} has "
                f"{len(nuclei)} from {nuclei.numbers[0]} on: give the same frames of both channels"
            )
        if args.stills and len(nuclei.files) != len(nuclei):
            raise InputError(f"--stills: {args.nuclei} is one file: give a folder of images, or leave it out")
        names = [f"man_sem{number:0{nuclei.digits}d}" for number in nuclei.numbers]
        if args.stills:
            names = [path.stem for path in nuclei.files]
        if args.out.resolve() in (args.nuclei.resolve(), args.cytoplasm.resolve()):
            raise InputError(f"--out {args.out}: holds a channel: give another folder")
        with Progress("classifying", len(names)) as bar:
            for index, name in enumerate(names):
                classes = class_map(nuclei.read(index), cytoplasm.read(index), args.smoothing)
                write_image(args.out / f"{name}.tif", classes)
                counts += np.bincount(classes.ravel(), minlength=3)
                bar.update()
    shares = [f"{100 * share:.0f} % {name}" for share, name in zip(counts / counts.sum(), _CLASSES, strict=True)]
    print(f"{len(names)} maps, {', '.join(shares)}: {args.out}")
