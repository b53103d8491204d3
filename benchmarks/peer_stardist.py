"""StarDist beside the table `unseen`: trained from scratch for some CPU minutes on some videos, run on another.

It needs an environment of its own, and none of this package; its result folder is measured with ours:

    python -m venv stardist
    stardist/bin/pip install stardist tensorflow-cpu tf-keras opencv-python-headless
    stardist/bin/python benchmarks/peer_stardist.py DATA/Fluo-N2DH-SIM+/01 --on DATA/Fluo-N2DH-GOWT1/01 --out RES
    lightning-cells evaluate RES DATA/Fluo-N2DH-GOWT1/01_GT

One configuration: StarDist's own, on a grid of 2, in patches of 128 pixels, and frames of such a scale that cells are
26 pixels across, about what its published models see. Its own normalisation (percentiles 1 and 99.8), and
the flips, turns and changes of intensity of its example. As the classical pipeline of the table, it is told the true
median diameter of the cells it is run on.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TF_USE_LEGACY_KERAS"] = "1"  # of which StarDist's callbacks are

import cv2
import numpy as np
import tensorflow as tf
import tifffile
from csbdeep.utils import normalize
from stardist.models import Config2D, StarDist2D

DIAMETER = 26.0  # pixels of a typical cell as the network sees it
STEPS = 25  # of an epoch
HELD_OUT = 10  # every tenth frame chooses weights and thresholds


class Clock(tf.keras.callbacks.Callback):
    """Ends the training when the process has had its time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.end = time.process_time() + seconds
        self.steps = 0

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Looks at the clock."""
        self.steps += 1
        if time.process_time() > self.end:
            self.model.stop_training = True


def truths(video: Path) -> Iterator[tuple[Path, np.ndarray]]:
    """Frames of a video that have segmented cells, with these."""
    for path in sorted((video.parent / f"{video.name}_GT" / "SEG").glob("man_seg*.tif")):
        yield video / f"t{path.stem.removeprefix('man_seg')}.tif", tifffile.imread(path)


def diameter(video: Path) -> float:
    """The median diameter of segmented cells in pixels."""
    areas = np.concatenate([np.bincount(labels[labels > 0]) for _, labels in truths(video)])
    return float(2 * np.sqrt(np.median(areas[areas > 0]) / np.pi))


def prepared(frame: Path, scale: float) -> np.ndarray:
    """A frame, normalised and resampled."""
    image = tifffile.imread(frame).astype(np.float32)
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return normalize(small, 1, 99.8)


def augmented(rng: np.random.Generator, image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flips and turns, another contrast and brightness, noise."""
    turns, flip = rng.integers(4), rng.integers(2)
    image, labels = (np.rot90(part, turns)[:: 1 - 2 * flip] for part in (image, labels))
    image = image * rng.uniform(0.6, 2) + rng.uniform(-0.2, 0.2)
    return image + 0.02 * rng.uniform() * rng.normal(size=image.shape), labels


def train(videos: list[Path], minutes: float, seed: int, folder: str) -> StarDist2D:
    """Trains, and chooses weights and thresholds by frames of the same videos."""
    images, labels = [], []
    for video in videos:
        scale = DIAMETER / diameter(video)
        for frame, truth in truths(video):
            images.append(prepared(frame, scale))
            labels.append(cv2.resize(truth, images[-1].shape[::-1], interpolation=cv2.INTER_NEAREST))
    own = {"train_patch_size": (128, 128), "train_n_val_patches": 8, "train_tensorboard": False}
    config = Config2D(n_rays=32, grid=(2, 2), train_batch_size=4, train_steps_per_epoch=STEPS, **own)
    model = StarDist2D(config, name="model", basedir=folder)
    chosen = np.arange(len(images)) % HELD_OUT == 0
    parts = [
        [[part[index] for index in np.flatnonzero(kept)] for part in (images, labels)] for kept in (~chosen, chosen)
    ]
    model.prepare_for_training()
    augment = partial(augmented, np.random.default_rng(seed))
    clock = Clock(60 * minutes)
    model.callbacks.append(clock)
    began = time.process_time()
    model.train(*parts[0], validation_data=tuple(parts[1]), augmenter=augment, epochs=10_000)
    print(f"{clock.steps} steps in {(time.process_time() - began) / 60:.1f} CPU minutes")
    model.optimize_thresholds(*parts[1])
    print(f"with thresholds {(time.process_time() - began) / 60:.1f} CPU minutes")
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", nargs="+", type=Path, help="videos such as DATA/01, beside DATA/01_GT")
    parser.add_argument("--on", type=Path, required=True, help="video to run on")
    parser.add_argument("--out", type=Path, required=True, help="result folder: masks without tracks")
    parser.add_argument("--minutes", type=float, default=5.0, help="of CPU for the training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.keras.utils.set_random_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        model = train(args.train, args.minutes, args.seed, folder)
        scale = DIAMETER / diameter(args.on)
        frames = sorted(args.on.glob("t*.tif"))
        began = time.process_time()
        for frame in frames:
            found, _ = model.predict_instances(prepared(frame, scale))
            size = tifffile.TiffFile(frame).pages[0].shape[::-1]
            mask = cv2.resize(found.astype(np.uint16), size, interpolation=cv2.INTER_NEAREST)
            tifffile.imwrite(args.out / frame.name.replace("t", "mask", 1), mask, compression="zlib")
        print(f"{(time.process_time() - began) / len(frames):.2f} CPU seconds per frame")


if __name__ == "__main__":
    main()
