"""Loading a training clip: ours from the cache beside reading TIFF files for each clip, and what a training step needs.

A clip is 8 frames of 256 x 256 pixels with instance labels, cut out of a simulated video of 1024 x 1024 pixels and
augmented as in conf/method/rshn/paper.yaml. The others read 8 zlib-compressed frames and masks, stretch grey values
between percentiles, cut, and deform by albumentations or SimpleITK. One process, one thread; all take turns; medians.

    python benchmarks/loading.py [--rounds 5]
"""

import argparse
import os
import tempfile
from pathlib import Path

from harness import Target, print_targets, ratio, table, take_turns

# isort: split
import cv2
import numpy as np
import SimpleITK as sitk
import tifffile
import torch
import yaml
from augmentation import albumentations, simple_itk

from lightning_cells.data.augment import Augmentation, ClipAugmentation
from lightning_cells.data.clips import ClipDataset
from lightning_cells.data.neighbours import CosineTarget
from lightning_cells.data.sampling import ClipSampler
from lightning_cells.data.sequence import open_sequence
from lightning_cells.data.simulate import simulate

PRESET = Path(__file__).parents[1] / "conf/method/rshn/paper.yaml"
FRAMES, CROP, CALLS = 8, 256, 20
STEP = 50.0  # milliseconds of a training step on a GPU, as far as one can be fed at all


def read_clip(root: Path, rng: np.random.Generator, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads files, normalises whole frames and cuts: (T,H,W) float32 and int32."""
    first = int(rng.integers(frames - FRAMES + 1))
    images, masks = [], []
    for number in range(first, first + FRAMES):
        image = tifffile.imread(root / "01" / f"t{number:03d}.tif").astype(np.float32)
        low, high = np.percentile(image, (0.1, 99.9))
        images.append((image - low) * (2 / (high - low)) - 1)
        masks.append(tifffile.imread(root / "01_GT/SEG" / f"man_seg{number:03d}.tif").astype(np.int32))
    row, column = (int(rng.integers(side - CROP)) for side in images[0].shape)
    place = slice(None), slice(row, row + CROP), slice(column, column + CROP)
    return np.ascontiguousarray(np.stack(images)[place], np.float32), np.ascontiguousarray(np.stack(masks)[place])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    settings = yaml.safe_load(PRESET.read_text())["data"]["augmentation"]
    ranges = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["LIGHTNING_CELLS_HOME"] = str(Path(temporary) / "home")
        root = simulate(Path(temporary) / "data", sequences=1, frames=16, size=(1024, 1024), cells=300)
        for path in [*(root / "01").glob("*.tif"), *(root / "01_GT/SEG").glob("*.tif")]:
            tifffile.imwrite(path, tifffile.imread(path), compression="zlib")
        video = open_sequence(root, "01", "percentile")
        augmentation = ClipAugmentation(Augmentation(**ranges))
        requests = iter(ClipSampler([video.annotated], FRAMES, 1, 10**6))
        plain, whole = (ClipDataset([video], augmentation, target=target) for target in (None, CosineTarget(50)))
        deform, rng = albumentations(), np.random.default_rng(0)

        def theirs() -> None:
            images, masks = read_clip(root, rng, 16)
            deform(images=images, masks=masks)

        quick = take_turns(
            {"ours": lambda: plain[next(requests)], "target": lambda: whole[next(requests)]}, args.rounds, CALLS
        )
        slow = take_turns(
            {
                "files": lambda: read_clip(root, rng, 16),
                "albumentations": theirs,
                "SimpleITK": lambda: simple_itk(*read_clip(root, rng, 16), int(rng.integers(2**31)), False),
            },
            args.rounds,
        )
    ours = quick["ours"]
    named = {
        "ours: from the cache, augmented": ours,
        "ours, and the loss's neighbours": quick["target"],
        "files read, normalised and cut": slow["files"],
        "files, and albumentations": slow["albumentations"],
        "files, and SimpleITK per frame": slow["SimpleITK"],
    }
    print(f"medians of {args.rounds} rounds, one thread; workers that a step of {STEP:.0f} ms needs\n")
    rows = [
        [
            name,
            f"{used.cpu_ms:.2f}",
            f"{used.wall_ms:.2f}",
            f"{1e3 / used.cpu_ms:.1f}",
            f"x{ratio(used, ours):.1f}",
            f"{used.cpu_ms / STEP:.2f}",
        ]
        for name, used in named.items()
    ]
    table(["clip", "CPU ms", "wall ms", "clips per CPU second", "of ours", "workers"], rows)
    print_targets([Target("clip of 8 frames ready from the cache", 4, ours.cpu_ms, "ms", at_least=False)])


if __name__ == "__main__":
    main()
