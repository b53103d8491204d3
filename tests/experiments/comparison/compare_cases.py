"""What the tests of the comparison share: a store with runs as a training and a test leave them."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from mlflow import MlflowClient

from lightning_cells.loggers.store import open_experiment, open_store, tracking_uri
from lightning_cells.paths import output_dir

COLUMNS = ["video", "frame", "truth_label", "label", "area", "iou", "kind"]
HOSTILE = "../../<script>alert('x')</script>$\\frac{\"&"


def store() -> MlflowClient:
    """The store in the home of the test. A fresh one is a copy: setting up its tables takes seconds."""
    database = output_dir() / "mlflow.db"
    if not database.exists():
        database.write_bytes(_fresh())
    return open_store(tracking_uri())


@cache
def _fresh() -> bytes:
    with TemporaryDirectory() as folder:
        database = Path(folder) / "mlflow.db"
        open_store(f"sqlite:///{database}")
        return database.read_bytes()


def training(client: MlflowClient, name: str, experiment: str = "lightning_cells", **options: Any) -> str:
    """Makes a training with curves, and returns its id.

    Args:
        options: replace those of the configuration's model.
    """
    run = _run(client, name, experiment, "fit")
    for step, value in ((10, 0.5), (20, 0.6), (30, 0.7)):
        client.log_metric(run, "val/SEG", value, step=step)
        client.log_metric(run, "train/loss_epoch", 1 - value, step=step)
    _configure(client, run, None, options)
    client.set_terminated(run)
    return run


def a_test(
    client: MlflowClient,
    name: str,
    trained: str,
    ious: Sequence[float],
    video: str = "01",
    grey: int | None = 90,
    seg: float | None = None,
    **options: Any,
) -> str:
    """Makes a test with a table of cells and the pictures of one frame, and returns its id.

    Args:
        trained: id of the training whose checkpoint was tested.
        ious: of the true cells, all in frame 3 of `video`; their labels and areas are the same in each test.
        grey: of the pictures; None leaves none.
        seg: logged as SEG; None logs the mean of the cells.
        options: replace those of the configuration's model.
    """
    run = _run(client, name, "lightning_cells", "test")
    client.set_tag(run, "data.fingerprint", "f00d")
    client.log_metric(run, "test/SEG", float(np.mean(ious)) if seg is None else seg)
    client.log_metric(run, "test/DET", 0.97)
    _configure(client, run, f"/somewhere/checkpoints/{trained}/best.ckpt", options)
    rows = [
        [video, 3, label, 100 + label if iou else 0, 40 + label, iou, "matched" if iou else "missed"]
        for label, iou in enumerate(ious, start=1)
    ]
    client.log_text(run, json.dumps({"columns": COLUMNS, "data": rows}), "test/cells.json")
    if grey is not None:
        client.log_image(run, strip(grey), artifact_file=f"test/frames/{video}/3.png")
    client.set_terminated(run)
    return run


def strip(grey: int) -> np.ndarray:
    """Four panels of 20 x 30 pixels, of `grey` and a little brighter each."""
    panels = [np.full((20, 30, 3), grey + 10 * place, np.uint8) for place in range(4)]
    gap = np.full((20, 8, 3), 255, np.uint8)
    return np.concatenate([panels[0], gap, panels[1], gap, panels[2], gap, panels[3]], axis=1)


def _run(client: MlflowClient, name: str, experiment: str, stage: str) -> str:
    place = open_experiment(client, experiment).experiment_id
    run = client.create_run(place, run_name=name, tags={"stage": stage, "method": "ULSTM"})
    return run.info.run_id


def _configure(client: MlflowClient, run: str, checkpoint: str | None, options: dict[str, Any]) -> None:
    config = {
        "trainer": {"max_epochs": 2, "logger": {"init_args": {"run_name": run}}},
        "model": {"class_path": "lightning_cells.methods.ULSTM", "init_args": {"lr": 0.003, **options}},
        "ckpt_path": checkpoint,
    }
    client.log_text(run, yaml.safe_dump(config), "config.yaml")
