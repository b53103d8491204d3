"""What the tests of the registry share: a run with an untrained checkpoint, a payload, and what a tracking gives."""

import os
from pathlib import Path

import numpy as np
import seeing
import tifffile
import torch
from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag

from lightning_cells.loggers.store import open_experiment, open_store
from lightning_cells.methods import CellMethod

STEPS = 20  # of the training, which was best then


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.target),)


def store(home: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home / 'mlflow.db'}")


def add_run(home: Path, name: str, method: CellMethod | None = None, **changed: object) -> str:
    """A run with a best checkpoint, whose validations were logged after 10, 20 and 30 steps; returns its id."""
    client = open_store(f"sqlite:///{home / 'mlflow.db'}")
    experiment = open_experiment(client, "lightning_cells")
    run = client.create_run(experiment.experiment_id, run_name=name).info.run_id
    method = method or seeing.methods()["ulstm"]
    tags = {"method": type(method).__name__, "data.root": "simulated", "data.train": "01 02"}
    points = [Metric("val/SEG", step / 100, 0, step - 1) for step in (10, STEPS, 30)]
    client.log_batch(
        run, [*points, Metric("train/loss", 1.0, 0, STEPS - 1)], [], [RunTag(*tag) for tag in tags.items()]
    )
    client.set_terminated(run)
    folder = home / "checkpoints" / run
    folder.mkdir(parents=True)
    loops = {"fit_loop": {"epoch_loop.state_dict": {"_batches_that_stepped": STEPS}}}
    seeing.save(method, folder / "best.ckpt", loops=loops, **changed)
    return run


def poison(checkpoint: Path, target: Path) -> None:
    """Puts a payload beside the weights."""
    torch.save(torch.load(checkpoint, weights_only=True) | {"extra": Payload(target)}, checkpoint)


def frames(count: int = 11) -> np.ndarray:
    """uint16 (T, 40, 48): bright discs that move over noise."""
    random = np.random.default_rng(3)
    pixels = random.normal(100, 4, (count, 40, 48))
    rows, columns = np.mgrid[:40, :48]
    for time in range(count):
        for row, column in ((10, 8 + time), (28, 38 - time)):
            pixels[time][np.hypot(rows - row, columns - column) < 5] += 200
    return pixels.round().astype(np.uint16)


def write(folder: Path, pixels: np.ndarray) -> Path:
    folder.mkdir()
    for number, frame in enumerate(pixels):
        tifffile.imwrite(folder / f"t{number:03d}.tif", frame)
    return folder


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Masks and rows of a result folder."""
    masks = np.stack([tifffile.imread(path) for path in sorted(folder.glob("mask*.tif"))])
    return masks, np.loadtxt(folder / "res_track.txt", dtype=int, ndmin=2).reshape(-1, 4)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
