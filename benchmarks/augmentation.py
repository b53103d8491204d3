"""Augmenting one clip: ours beside albumentations' own flips, affine and elastic transforms.

Both change 8 frames of 256 x 256 pixels with instance labels. "Ours, from disk" also cuts the clip out of a
memory-mapped video of 1024 x 1024 pixels, converts it from float16 and rescales its intensities; albumentations is
given a clip in memory. One thread, one process, the variants take turns, medians.

    python benchmarks/augmentation.py [--rounds 30]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
import torch

from lightning_cells.data.augment import Augmentation, ClipAugmentation

import albumentations as A  # isort: skip  # after ours, which keeps it from asking the network for updates

FRAMES, CROP, SIZE = 8, 256, 1024
CALLS = 10  # per variant and round
SPATIAL = Augmentation(
    crop=CROP, rotation=180, scale=(0.75, 1.25), stretch=(0.75, 1.25), elastic=10, intensity_scale=(1, 1)
)
FULL = Augmentation(
    crop=CROP,
    rotation=180,
    scale=(0.75, 1.25),
    stretch=(0.75, 1.25),
    elastic=10,
    intensity_scale=(0.35, 1.65),
    intensity_shift=0.65,
    frame_jitter=0.1,
)
CHEAP = Augmentation(crop=CROP)


def variants(folder: Path) -> dict[str, Callable[[int], object]]:
    rng = np.random.default_rng(0)
    np.save(folder / "frames.npy", rng.standard_normal((24, SIZE, SIZE), np.float32).astype(np.float16))
    np.save(folder / "labels.npy", rng.integers(0, 500, (24, SIZE, SIZE), np.int32))
    frames = np.load(folder / "frames.npy", mmap_mode="r")
    labels = np.load(folder / "labels.npy", mmap_mode="r")
    clip = frames[:FRAMES, :CROP, :CROP].astype(np.float32)
    truth = np.ascontiguousarray(labels[:FRAMES, :CROP, :CROP])
    spatial, full, cheap = ClipAugmentation(SPATIAL), ClipAugmentation(FULL), ClipAugmentation(CHEAP)
    flips = [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), A.RandomRotate90(p=1)]
    affine = A.Affine(rotate=(-180, 180), scale={"x": (0.6, 1.5), "y": (0.6, 1.5)}, p=1)
    # As smooth and as large as 6 x 6 control points with +-10 px over 256 px: sigma 50 is also its default.
    elastic = A.ElasticTransform(alpha=1000, sigma=50, p=1)
    theirs = A.Compose([*flips, affine, elastic], mask_interpolation=cv2.INTER_NEAREST, seed=0)
    their_flips = A.Compose(flips, seed=0)
    indices = range(FRAMES)
    return {
        "albumentations, flips + affine + elastic": lambda seed: theirs(images=clip, masks=truth),
        "ours, the same, in memory": lambda seed: spatial(clip, truth, None, indices, None, seed),
        "ours, from disk, with intensities": lambda seed: full(frames, labels, None, indices, None, seed),
        "albumentations, flips only": lambda seed: their_flips(images=clip, masks=truth),
        "ours, crop + flips, from disk": lambda seed: cheap(frames, labels, None, indices, None, seed),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="repetitions of each variant, at least 5")
    rounds = max(parser.parse_args().rounds, 5)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        calls = variants(Path(folder))
        wall: dict[str, list[float]] = {name: [] for name in calls}
        used: dict[str, list[float]] = {name: [] for name in calls}
        for block in range(rounds + 1):
            for name, call in calls.items():
                start, start_used = time.perf_counter(), time.process_time()
                for seed in range(CALLS):
                    call(block * CALLS + seed)
                if block:  # the first warms up
                    wall[name].append((time.perf_counter() - start) / CALLS)
                    used[name].append((time.process_time() - start_used) / CALLS)
    first = next(iter(calls))
    print(f"8 frames of 256 x 256 with labels; one thread, medians of {rounds} rounds of {CALLS} calls each, in turn\n")
    print("| variant | wall ms | CPU ms | speed-up (CPU) |\n|---|---|---|---|")
    for name in calls:
        ratio = statistics.median(a / b for a, b in zip(used[first], used[name], strict=True))
        wall_ms, used_ms = statistics.median(wall[name]) * 1e3, statistics.median(used[name]) * 1e3
        print(f"| {name} | {wall_ms:.2f} | {used_ms:.2f} | x{ratio:.1f} |")


if __name__ == "__main__":
    main()
