"""Augmenting one clip: ours beside albumentations' own flips, affine and elastic transforms, and beside SimpleITK.

All change 8 frames of 256 x 256 pixels with instance labels, in memory or cut out of memory-mapped videos of
1024 x 1024 pixels (float16 frames, int32 labels). SimpleITK composes flips, affine transform and a cubic B-spline, as
the RSHN's published code does, and resamples each frame by it, or makes a field of displacements once for the clip.
One process, one thread; the three take turns; medians.

    python benchmarks/augmentation.py [--rounds 9]
"""

import argparse
import tempfile
from pathlib import Path

from harness import Call, Target, print_targets, ratio, table, take_turns

# isort: split
import cv2
import numpy as np
import SimpleITK as sitk
import torch

from lightning_cells.data.augment import Augmentation, ClipAugmentation

import albumentations as A  # isort: skip  # after ours, which keeps it from asking the network for updates

FRAMES, CROP, SIZE = 8, 256, 1024
CALLS = 10  # per variant and round
DEFORM = {"rotation": 180, "scale": (0.75, 1.25), "stretch": (0.75, 1.25), "elastic": 10}
CHANGE = {**DEFORM, "intensity_scale": (0.35, 1.65), "intensity_shift": 0.65}


def albumentations(turn_only: bool = False) -> A.Compose:
    """Flips and turns, and unless `turn_only` an affine and an elastic transform, the same for all frames."""
    flips = [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), A.RandomRotate90(p=1)]
    affine = A.Affine(rotate=(-180, 180), scale={"x": (0.6, 1.5), "y": (0.6, 1.5)}, p=1)
    # As smooth and as large as 6 x 6 control points with +-10 px over 256 px: sigma 50 is also its default.
    elastic = A.ElasticTransform(alpha=1000, sigma=50, p=1)
    return A.Compose(flips if turn_only else [*flips, affine, elastic], mask_interpolation=cv2.INTER_NEAREST, seed=0)


def simple_itk(clip: np.ndarray, labels: np.ndarray, seed: int, field_once: bool) -> tuple[np.ndarray, np.ndarray]:
    """Flips, rotation, scale and a cubic B-spline of 6 x 6 control points, (T,H,W) each."""
    rng = np.random.default_rng(seed)
    reference = sitk.GetImageFromArray(clip[0])
    affine = sitk.AffineTransform(2)
    affine.SetCenter(((CROP - 1) / 2, (CROP - 1) / 2))
    affine.Rotate(0, 1, rng.uniform(-np.pi, np.pi))
    affine.Scale((rng.uniform(0.75, 1.25) * rng.choice((-1, 1)), rng.uniform(0.75, 1.25)))
    bend = sitk.BSplineTransformInitializer(reference, (3, 3), 3)  # 3 segments: 6 control points
    bend.SetParameters(rng.uniform(-10, 10, len(bend.GetParameters())))
    transform: sitk.Transform = sitk.CompositeTransform([affine, bend])
    if field_once:
        kind = sitk.sitkVectorFloat64
        size, spacing = reference.GetSize(), reference.GetSpacing()
        field = sitk.TransformToDisplacementField(transform, kind, size, reference.GetOrigin(), spacing)
        transform = sitk.DisplacementFieldTransform(field)

    def resample(frames: np.ndarray, interpolation: int) -> np.ndarray:
        images = map(sitk.GetImageFromArray, frames)
        return np.stack(
            [sitk.GetArrayFromImage(sitk.Resample(image, reference, transform, interpolation, 0.0)) for image in images]
        )

    return resample(clip, sitk.sitkLinear), resample(labels, sitk.sitkNearestNeighbor)


def cases(folder: Path) -> dict[str, dict[str, Call]]:
    """Returns ways of doing the same, by what is done."""
    rng = np.random.default_rng(0)
    np.save(folder / "frames.npy", rng.standard_normal((24, SIZE, SIZE), np.float32).astype(np.float16))
    np.save(folder / "labels.npy", rng.integers(0, 500, (24, SIZE, SIZE), np.int32))
    frames = np.load(folder / "frames.npy", mmap_mode="r")
    labels = np.load(folder / "labels.npy", mmap_mode="r")
    clip = frames[:FRAMES, :CROP, :CROP].astype(np.float32)
    truth = np.ascontiguousarray(labels[:FRAMES, :CROP, :CROP])
    deform, turn = albumentations(), albumentations(turn_only=True)
    draws = np.random.default_rng(1)

    def cut() -> tuple[np.ndarray, np.ndarray]:
        first, row, column = draws.integers((17, SIZE - CROP, SIZE - CROP))
        place = slice(first, first + FRAMES), slice(row, row + CROP), slice(column, column + CROP)
        return frames[place].astype(np.float32), np.ascontiguousarray(labels[place])

    def theirs(transform: A.Compose, intensity: bool = False) -> dict[str, np.ndarray]:
        images, masks = cut()
        changed = transform(images=images, masks=masks)
        if intensity:
            changed["images"] = (changed["images"] + np.float32(0.3)) * np.float32(1.2)
        return changed

    def seed() -> int:
        return int(draws.integers(2**31))

    def ours(settings: dict) -> Call:
        change = ClipAugmentation(Augmentation(crop=CROP, **settings))

        def call() -> object:
            first = int(draws.integers(17))
            return change(frames, labels, None, range(first, first + FRAMES), None, seed())

        return call

    in_memory = ClipAugmentation(Augmentation(crop=CROP, **DEFORM))
    return {
        "flips, turn, rotation, scale, elastic": {
            "ours": lambda: in_memory(clip, truth, None, range(FRAMES), None, seed()),
            "albumentations": lambda: deform(images=clip, masks=truth),
            "SimpleITK": lambda: simple_itk(clip, truth, seed(), False),
            "SimpleITK, one field": lambda: simple_itk(clip, truth, seed(), True),
        },
        "the same, cut out of a video": {
            "ours": ours(DEFORM),
            "albumentations": lambda: theirs(deform),
            "SimpleITK": lambda: simple_itk(*cut(), seed(), False),
        },
        "and intensities": {"ours": ours(CHANGE), "albumentations": lambda: theirs(deform, True)},
        "flips and turn, cut out of a video": {"ours": ours({}), "albumentations": lambda: theirs(turn)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each, at least 5")
    rounds = max(parser.parse_args().rounds, 5)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    print(f"8 frames of 256 x 256 with labels, one thread, medians of {rounds} rounds of {CALLS} calls each, in turn\n")
    rows, first = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for what, variants in cases(Path(folder)).items():
            times = take_turns(variants, rounds, CALLS)
            first = first or times
            for name, used in times.items():
                speed = "" if name == "ours" else f"x{ratio(used, times['ours']):.1f}"
                rows.append(
                    [what, name, f"{used.cpu_ms:.2f}", f"{used.wall_ms:.2f}", f"{1e3 / used.cpu_ms:.0f}", speed]
                )
    table(["", "by", "CPU ms", "wall ms", "clips per CPU second", "ours is faster by"], rows)
    ours = first["ours"]
    print_targets(
        [
            Target("augmentation over albumentations", 12, ratio(first["albumentations"], ours)),
            Target("augmentation over SimpleITK per frame", 100, ratio(first["SimpleITK"], ours)),
        ]
    )


if __name__ == "__main__":
    main()
