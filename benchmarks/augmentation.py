"""Augmenting one clip: ours beside albumentations' own flips, affine and elastic transforms.

Both change 8 frames of 256 x 256 pixels with instance labels, in memory or cut out of memory-mapped videos of
1024 x 1024 pixels (float16 frames, int32 labels). One process, one thread; the two take turns; medians.

    python benchmarks/augmentation.py [--rounds 9]
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
Call = Callable[[int], object]
DEFORM = {"rotation": 180, "scale": (0.75, 1.25), "stretch": (0.75, 1.25), "elastic": 10}
CHANGE = {**DEFORM, "intensity_scale": (0.35, 1.65), "intensity_shift": 0.65}


def pairs(folder: Path) -> dict[str, tuple[Call, Call]]:
    """Returns albumentations' and our way of doing the same, by name."""
    rng = np.random.default_rng(0)
    np.save(folder / "frames.npy", rng.standard_normal((24, SIZE, SIZE), np.float32).astype(np.float16))
    np.save(folder / "labels.npy", rng.integers(0, 500, (24, SIZE, SIZE), np.int32))
    frames = np.load(folder / "frames.npy", mmap_mode="r")
    labels = np.load(folder / "labels.npy", mmap_mode="r")
    clip = frames[:FRAMES, :CROP, :CROP].astype(np.float32)
    truth = np.ascontiguousarray(labels[:FRAMES, :CROP, :CROP])

    flips = [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), A.RandomRotate90(p=1)]
    affine = A.Affine(rotate=(-180, 180), scale={"x": (0.6, 1.5), "y": (0.6, 1.5)}, p=1)
    # As smooth and as large as 6 x 6 control points with +-10 px over 256 px: sigma 50 is also its default.
    elastic = A.ElasticTransform(alpha=1000, sigma=50, p=1)
    flip = A.Compose(flips, seed=0)
    deform = A.Compose([*flips, affine, elastic], mask_interpolation=cv2.INTER_NEAREST, seed=0)

    def cut(seed: int) -> tuple[np.ndarray, np.ndarray]:
        first, row, column = np.random.default_rng(seed).integers((17, SIZE - CROP, SIZE - CROP))
        place = slice(first, first + FRAMES), slice(row, row + CROP), slice(column, column + CROP)
        return frames[place].astype(np.float32), np.ascontiguousarray(labels[place])

    def theirs(transform: A.Compose, seed: int, *, intensity: bool = False) -> object:
        images, masks = cut(seed)
        changed = transform(images=images, masks=masks)
        if intensity:
            changed["images"] = (changed["images"] + np.float32(0.3)) * np.float32(1.2)
        return changed

    def ours(settings: dict) -> Call:
        change = ClipAugmentation(Augmentation(crop=CROP, **settings))
        return lambda seed: change(frames, labels, None, range(seed % 17, seed % 17 + FRAMES), None, seed)

    in_memory = ClipAugmentation(Augmentation(crop=CROP, **DEFORM))
    return {
        "flips, turn, rotation, scale, elastic": (
            lambda seed: deform(images=clip, masks=truth),
            lambda seed: in_memory(clip, truth, None, range(FRAMES), None, seed),
        ),
        "the same, cut out of a video": (lambda seed: theirs(deform, seed), ours(DEFORM)),
        "and intensities": (lambda seed: theirs(deform, seed, intensity=True), ours(CHANGE)),
        "flips and turn, cut out of a video": (lambda seed: theirs(flip, seed), ours({})),
    }


def timings(pair: tuple[Call, Call], rounds: int) -> tuple[list[list[float]], list[list[float]]]:
    """Returns milliseconds per call, of wall clock and of this process, for each of the two and each round."""
    wall: list[list[float]] = [[], []]
    used: list[list[float]] = [[], []]
    for block in range(rounds):
        for which, call in enumerate(pair):
            start, start_used = time.perf_counter(), time.process_time()
            for seed in range(CALLS):
                call(block * CALLS + seed)
            wall[which].append((time.perf_counter() - start) / CALLS * 1e3)
            used[which].append((time.process_time() - start_used) / CALLS * 1e3)
    return wall, used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each, at least 5")
    rounds = max(parser.parse_args().rounds, 5)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    print(
        f"8 frames of 256 x 256 with labels, one thread, medians of {rounds} rounds of {CALLS} calls each, in turn.\n"
    )
    print("| | albumentations, ms (CPU) | ours, ms (CPU) | speed-up |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        calls = pairs(Path(folder))
        for pair in calls.values():  # caches, page cache and the allocator's thresholds settle
            timings(pair, 1)
        for name, pair in calls.items():
            wall, used = timings(pair, rounds)
            cells = [
                f"{statistics.median(w):.2f} ({statistics.median(u):.2f})" for w, u in zip(wall, used, strict=True)
            ]
            print(f"| {name} | {cells[0]} | {cells[1]} | x{statistics.median(np.divide(*wall)):.1f} |")


if __name__ == "__main__":
    main()
