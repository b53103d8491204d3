"""The verbs that faults are tried on: a command of each that takes seconds, and what it leaves behind."""

import http.server
import json
import shutil
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mlflow import MlflowClient

from lightning_cells.data.simulate import simulate

BATCHES, EPOCHS = 12, 3
TRAINING = [
    "-c",
    "conf/method/ulstm/tiny.yaml",
    "-c",
    "conf/trainer/cpu.yaml",
    "--trainer.enable_progress_bar",
    "false",
]
TRAINING += ["--trainer.enable_model_summary", "false", "--data.clip_length", "2", "--data.augmentation.crop", "32"]
TRAINING += ["--data.batches_per_epoch", str(BATCHES), "--data.val", "['03']", "--trainer.log_every_n_steps", "1"]
TRAINING += ["--checkpoint.every_n_batches", "1", "--trainer.max_epochs", str(EPOCHS)]
TABLE = """
title: "two trainings"
source: "none"
measured: "nothing"
measures: [SEG, DET]
tolerance: 0.05
rows: {three classes: {set: {model.loss: three_class}}, two classes: {set: {model.loss: two_class}}}
tiny:
  configs: [conf/method/ulstm/tiny.yaml, conf/trainer/cpu.yaml]
  set:
    trainer.max_epochs: 1
    data.batches_per_epoch: 4
    data.augmentation.crop: 32
    data.train: ["01"]
    data.val: ["02"]
    data.test: ["02"]
  data: {nuclei: {surrogate: {kind: nuclei, sequences: 2, frames: 4, size: [64, 64], seed: 1}}}
"""
SWEEP = """
study: faults
configs: [conf/method/ulstm/tiny.yaml, conf/trainer/cpu.yaml]
set:
  trainer.max_epochs: 1
  trainer.enable_progress_bar: false
  data.batches_per_epoch: 4
  data.augmentation.crop: 32
  data.val: ["03"]
objective: {val/SEG: maximize}
sampler: {class_path: optuna.samplers.RandomSampler, init_args: {seed: 1}}
trials: 3
space: {model.loss: {choices: [three_class, two_class]}}
"""


@dataclass(frozen=True)
class Verb:
    """A command, and what it is to leave behind.

    Attributes:
        name: of the verb.
        words: the command, in a home.
        result: what it left in a home; equal for equal results.
        again: the command after a kill; None for the same.
        base: a home that it begins with; None for an empty one.
    """

    name: str
    words: Callable[[Path], list[str]]
    result: Callable[[Path], Any]
    again: Callable[[Path], list[str]] | None = None
    base: Path | None = None


def start(home: Path, *words: str) -> list[str]:
    """A command line of this package."""
    return [sys.executable, "-m", "lightning_cells", *words]


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder; hidden ones, too, which nothing should leave behind."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def weights(home: Path) -> Any:
    """What a training left: its weights, its files, and the state of its run."""
    (last,) = home.glob("checkpoints/*/last.ckpt")
    (run,) = runs(home)
    state = {name: value.numpy().tobytes() for name, value in torch.load(last, weights_only=True)["state_dict"].items()}
    return state, sorted(path.name for path in last.parent.iterdir()), run.info.status


def runs(home: Path) -> list[Any]:
    """All runs of a home's store."""
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    return list(client.search_runs([e.experiment_id for e in client.search_experiments()]))


def resumed(home: Path) -> list[str]:
    """The same training again, from its last checkpoint if it has one."""
    last = next(home.glob("checkpoints/*/last.ckpt"), None)
    return ["fit", "--resume", last.parent.name] if last else []


def registered(home: Path) -> Any:
    """Whether each version of a model can be loaded, and which checkpoint it holds; a second one is no fault."""
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    found = set()
    for version in client.search_model_versions("name = 'cells'"):
        with tempfile.TemporaryDirectory() as folder:
            import mlflow

            mlflow.set_tracking_uri(f"sqlite:///{home / 'mlflow.db'}")
            place = mlflow.artifacts.download_artifacts(f"models:/cells/{version.version}", dst_path=folder)
            (checkpoint,) = Path(place).rglob("*.ckpt")
            found.add((version.status, hash(checkpoint.read_bytes())))
    return found


def table(home: Path) -> Any:
    """The values of a table, and whether a run is left behind as if it went on."""
    (path,) = home.glob("reproduce/*/tiny.json")
    return json.loads(path.read_text())["cells"], {run.info.status for run in runs(home)} & {"RUNNING", "SCHEDULED"}


def trials(home: Path) -> Any:
    """States of a study's trials that are no failures."""
    import optuna

    (database,) = home.glob("optuna.db")
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{database}")
    states = [trial.state.name for trial in study.trials]
    return sum(state in ("COMPLETE", "PRUNED") for state in states), {"RUNNING", "WAITING"} & set(states)


def serve(folder: Path) -> str:
    """Serves a folder on this machine; returns its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"


def archive(source: Path, path: Path, name: str) -> None:
    """Packs a data set as the challenge does."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(source.rglob("*")):
            if file.is_file():
                packed.write(file, Path(name) / file.relative_to(source))


def verbs(folder: Path, trained: Path) -> dict[str, Verb]:
    """All verbs that write.

    Args:
        folder: for data and files that they share.
        trained: a home with one finished training.
    """
    data = folder / "data"
    (checkpoint,) = trained.glob("checkpoints/*/best.ckpt")
    run = checkpoint.parent.name
    (folder / "two.yaml").write_text(TABLE)
    (folder / "faults.yaml").write_text(SWEEP)
    name = "Fluo-N2DH-SIM+"
    large = simulate(folder / "large", sequences=2, frames=60, size=(256, 256), seed=6)
    (folder / "web").mkdir(exist_ok=True)
    archive(large, folder / "web/set.zip", name)
    shutil.rmtree(large)
    url = f"{serve(folder / 'web')}/set.zip"
    simulated = ["--sequences", "2", "--frames", "80", "--size", "192", "192"]
    every = [
        Verb(
            "track",
            lambda home: ["track", f"{data}/01", "--out", f"{home}/RES", "--chunk", "1", "--diameter", "training"],
            lambda home: contents(home / "RES"),
        ),
        Verb("fit", lambda home: ["fit", *TRAINING, "--data.root", str(data)], weights, resumed),
        Verb(
            "predict",
            lambda home: [
                "predict",
                "--data.root",
                str(data),
                "--ckpt_path",
                str(checkpoint),
                "--results.folder",
                f"{home}/P",
            ],
            lambda home: contents(home / "P"),
        ),
        Verb("simulate", lambda home: ["simulate", f"{home}/S", *simulated], lambda home: contents(home / "S")),
        Verb(
            "download",
            lambda home: ["download", name, "--root", f"{home}/D", "--url", url, "--accept"],
            lambda home: contents(home / "D" / name),
        ),
        Verb("reproduce", lambda home: ["reproduce", str(folder / "two.yaml")], table),
        Verb("register", lambda home: ["register", run, "cells"], registered, base=trained),
        Verb(
            "sweep",
            lambda home: ["sweep", str(folder / "faults.yaml"), "--data.root", str(data)],
            trials,
            lambda home: ["sweep", str(folder / "faults.yaml"), "--data.root", str(data), "--resume"],
        ),
    ]
    return {verb.name: verb for verb in every}
