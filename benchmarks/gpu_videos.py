"""Videos on a device: how many frames per second `track` takes, and what some minutes of training come to."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import track_parts
from gpu_presets import data_of, method_of, settings
from gpu_steps import Note
from lightning.pytorch import Trainer

from lightning_cells import tracking
from lightning_cells.data.simulate import simulate
from lightning_cells.errors import InputError
from lightning_cells.methods.base import CellMethod
from lightning_cells.methods.building import Preprocessing
from lightning_cells.paths import find_data

REAL = "Fluo-N2DH-SIM+"
SCORES = ("SEG", "DET", "TRA")


def draw(folder: Path, cuda: bool) -> None:
    """Simulated videos to learn from, and a large one to track; on the CPU, while the GPU is busy with other parts."""
    simulate(folder / "data", sequences=6, frames=24)
    side, number, frames = (1024, 500, 16) if cuda else (128, 8, 6)
    simulate(folder / "video", sequences=1, frames=frames, size=(side, side), cells=number)
    (folder / "drawn").touch()


def drawn(folder: Path, patience: float = 240) -> None:
    """Waits for what another process draws.

    Raises:
        TimeoutError: it has not come.
    """
    end = time.monotonic() + patience
    while not (folder / "drawn").exists():
        if time.monotonic() > end:
            raise TimeoutError("no simulated videos")
        time.sleep(0.2)


def trainer(folder: Path, cuda: bool, **options: Any) -> Trainer:
    """As `conf/trainer/gpu.yaml` has it, or cpu.yaml, without anything beside the training."""
    return Trainer(
        accelerator="gpu" if cuda else "cpu",
        devices=1,
        precision="bf16-mixed" if cuda else "32-true",
        benchmark=cuda,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        **options,
    )


def track(note: Note, folder: Path, cuda: bool) -> None:
    """Frames per second of `track`, from a call without the start of the command; then the same in parts."""
    drawn(folder)
    video, device = folder / "video/01", "cuda" if cuda else "cpu"
    frames = len(list(video.glob("*.tif")))
    watch = track_parts.Stopwatch()
    trained = {name: _few_steps(folder, name, cuda) for name in ("ulstm", "rshn")}
    for name, (method, seen) in trained.items():
        call = _tracker(method, seen, folder, video, device)
        call()  # warms up
        began = time.perf_counter()
        found = call()
        took = time.perf_counter() - began
        note(method=name, tracks=found, frames_per_second=round(frames / took, 2))
    watch.attach()
    for name, (method, seen) in trained.items():
        watch.spent.clear()
        _tracker(method, seen, folder, video, device)()
        note(method=name, ms={part: round(watch.spent[part] / frames * 1e3, 1) for part in track_parts.PARTS})


def _few_steps(folder: Path, name: str, cuda: bool) -> tuple[CellMethod, Preprocessing]:
    """A method of the tiny preset that finds cells, and how it takes frames."""
    said = settings(f"method/{name}/tiny")
    data = said["data"]
    method, module = method_of(said), data_of(said, folder / "data")
    module.val = None
    trainer(folder, cuda, max_steps=200 if cuda else 30, limit_val_batches=0).fit(method, module)
    return method.eval(), Preprocessing(data["normalisation"], data.get("scale", 1.0))


def _tracker(
    method: CellMethod, preprocessing: Preprocessing, folder: Path, video: Path, device: str
) -> Callable[[], int]:
    """Tracks the video from the beginning, and returns how many tracks there are."""
    checkpoint = folder / "any.ckpt"
    checkpoint.touch()

    def call() -> int:
        with mock.patch.object(tracking, "load_method", return_value=(method, preprocessing)):
            return tracking.Tracker(checkpoint, device).track_to(video, folder / "out")[1]  # type: ignore[arg-type]

    return call


def train(note: Note, folder: Path, cuda: bool, seconds: float) -> None:
    """RSHN for some time, on real data where they are at hand, and its scores on frames that it has not seen."""
    torch.set_float32_matmul_precision("high")
    try:
        root, real = find_data(REAL), True
    except InputError:
        drawn(folder)
        root, real = folder / "data", False
    data: dict[str, Any] = {"batches_per_epoch": 400 if cuda else 40, "num_workers": 8 if cuda else 0}
    model: dict[str, Any] = {"optimization": {"lr": 5e-4, "schedule": "constant", "warm_up": 0.0}, "balance": "pixel"}
    if real:
        files = ["method/rshn/paper", "data/fluo-n2dh-sim+", "method/rshn/data/fluo-n2dh-sim+"]
        data |= {"scale": 0.5, "batch_size": 2, "augmentation": {"crop": 192}}
        data |= {"test": ["01[45:53]"] if cuda else ["01[45:47]"]}
        model |= {"neighbour_radius": 34.0, "decoder": {"min_size": 40}}
    else:
        files = ["method/rshn/tiny"]
        data |= {"batch_size": 4 if cuda else 1, "train": ["0[1-4]"], "val": ["05"], "test": ["06"]}
    if not cuda:
        data |= {"batch_size": 1, "augmentation": {"crop": 64}}
    model |= {"features": 64 if cuda else 8, "levels": 7 if cuda else 4, "tile_batch": 16}
    said = settings(*files, model={"init_args": model}, data=data)
    method, module = method_of(said), data_of(said, root)
    began = time.perf_counter()
    runs = trainer(folder, cuda, max_time={"seconds": seconds}, max_epochs=-1, limit_val_batches=0)
    runs.fit(method, module)
    if cuda:
        peak = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    took = time.perf_counter() - began
    waited = round(runs.train_dataloader.waited, 1)  # type: ignore[union-attr]
    what = f"{Path(root).name}, {model['features']} features, batch {data['batch_size']}"
    steps = runs.global_step
    note(training=what, steps=steps, seconds=round(took, 1), waited_s=waited, peak_gb=peak if cuda else None)
    began = time.perf_counter()
    (scores,) = runs.test(method, module, verbose=False)
    found = {name: round(scores[f"test/{name}"], 3) for name in SCORES}
    note(training="scores of frames it has not seen", seconds=round(time.perf_counter() - began, 1), **found)
