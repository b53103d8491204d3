"""Every method on two real processes: they end alike, and as one process measures them; what hangs is killed."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from run_cases import PRESETS, assert_same, client, words

from lightning_cells.cli import main
from lightning_cells.cli.training import TrainingCLI
from lightning_cells.data.simulate import simulate
from lightning_cells.loggers.mlflow import EXPERIMENT

LIMIT = 900  # seconds until both are killed; busy machines are slow
PLACE = ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
TWO = ["--trainer.devices", "2"]
NAMES = [path.parent.name for path in PRESETS]

# Runs several commands, one after the other, as one of two processes, and notes how each ended.
DRIVER = """
import json, os, shutil, sys
from pathlib import Path

import torch
from lightning.pytorch import Callback

from lightning_cells.cli.training import TrainingCLI

torch.set_num_threads(1)

class Note(Callback):
    def __init__(self, name):
        self.path = Path(sys.argv[2]) / f"{name}-{os.environ['LOCAL_RANK']}.json"
        self.name = name

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        last = Path(trainer.checkpoint_callback.dirpath) / "last.ckpt"
        if trainer.is_global_zero and trainer.fit_loop.total_batch_idx == 2 and last.exists():
            shutil.copy(last, Path(sys.argv[2]) / f"{self.name}-2.ckpt")

    def on_fit_end(self, trainer, pl_module):
        self.note(trainer, pl_module)

    def on_validation_end(self, trainer, pl_module):
        if trainer.state.fn == "validate":
            self.note(trainer, pl_module)

    def note(self, trainer, pl_module):
        parameters = [parameter.detach().double() for parameter in pl_module.parameters()]
        measures = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
        noted = {
            "world": trainer.world_size,
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "sums": [float(p.sum()) for p in parameters] + [float(p.abs().sum()) for p in parameters],
            "folder": trainer.checkpoint_callback.dirpath,
            "measures": measures,
            "callbacks": [type(callback).__name__ for callback in trainer.callbacks],
        }
        self.path.write_text(json.dumps(noted))

make = TrainingCLI._instantiate_trainer
for name, line in json.loads(Path(sys.argv[1]).read_text()).items():
    def instantiate(cli, config, own, name=name):
        return make(cli, config, [Note(name), *own])
    TrainingCLI._instantiate_trainer = instantiate
    TrainingCLI(line)
"""


class Pair:
    """Two processes that run the same commands, and what they noted.

    Args:
        folder: for their notes.
        home: for their outputs.
    """

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.home = home

    def run(self, commands: dict[str, list[str]]) -> None:
        """Starts both as torchrun does, and kills them when the time is up."""
        (self.folder / "driver.py").write_text(DRIVER)
        (self.folder / "commands.json").write_text(json.dumps(commands))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        common = {name: value for name, value in os.environ.items() if name not in PLACE}
        common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
        common["LIGHTNING_CELLS_HOME"] = str(self.home)
        driver = [sys.executable, str(self.folder / "driver.py"), str(self.folder / "commands.json"), str(self.folder)]
        logs = [self.folder / f"{rank}.log" for rank in (0, 1)]
        processes = []
        for rank, log in enumerate(logs):
            environment = {**common, "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
            with log.open("w") as file:
                processes.append(subprocess.Popen(driver, env=environment, stdout=file, stderr=subprocess.STDOUT))
        killer = threading.Timer(LIMIT, lambda: [process.kill() for process in processes])
        killer.start()
        ends = [process.wait() for process in processes]
        killer.cancel()
        assert ends == [0, 0], "\n\n".join(log.read_text()[-3000:] for log in logs)

    def noted(self, name: str) -> dict[str, Any]:
        """What both noted, which must be the same."""
        first, second = (json.loads((self.folder / f"{name}-{rank}.json").read_text()) for rank in (0, 1))
        assert first["sums"] == second["sums"], "bit by bit"
        assert first["measures"] == pytest.approx(second["measures"], abs=1e-9, nan_ok=True)
        for key in ("world", "epoch", "step", "folder", "callbacks"):
            assert first[key] == second[key]
        return first


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos that have truth of all kinds: an uneven number for two processes."""
    folder = tmp_path_factory.mktemp("classes") / "classes"
    return simulate(folder, "brightfield", sequences=3, frames=8, size=(64, 64), cells=3)


def line(root: Path, name: str, *more: str) -> list[str]:
    preset = ["-c", str(PRESETS[NAMES.index(name)])]
    short = ["--data.val", "['01', '02', '03']", "--data.batches_per_epoch", "3", "--checkpoint.every_n_batches", "1"]
    return words(root, *short, *more, method=preset)


@pytest.fixture(scope="module")
def pair(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """All methods, one after the other."""
    folder, home = tmp_path_factory.mktemp("notes"), tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTNING_CELLS_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        pair = Pair(folder, home)
        pair.run({name: line(classes, name, *TWO) for name in NAMES})
        yield pair


def run_ids(home: Path) -> list[str]:
    store = client(home)
    runs = store.search_runs([store.get_experiment_by_name(EXPERIMENT).experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    return [run.info.run_id for run in runs]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_processes_train_as_one(name: str, pair: Pair) -> None:
    noted = pair.noted(name)
    assert (noted["world"], noted["epoch"]) == (2, 2)
    assert noted["step"] == 6
    folder = Path(noted["folder"])
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    run = client(pair.home).get_run(folder.name)
    assert run.data.tags["method"].lower() == name
    for measure, value in noted["measures"].items():
        if value == value:
            assert run.data.metrics[measure] == pytest.approx(value), "of both processes together"


@pytest.mark.slow
def test_one_run_for_each_training(pair: Pair) -> None:
    assert len(run_ids(pair.home)) == len(NAMES)
    assert len(list(pair.home.glob("artifacts/*"))) == len(NAMES)
    assert len(list(pair.home.glob("runs/*"))) == len(NAMES)


@pytest.mark.slow
def test_measures_are_those_of_one_process_and_training_goes_on(
    pair: Pair, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two processes again, exactly; on one after two; on two after one."""
    monkeypatch.setenv("LIGHTNING_CELLS_HOME", str(pair.home))
    folders = {name: Path(pair.noted(name)["folder"]) for name in NAMES}
    quiet = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.logger", "false"]
    commands, alone = {}, {}
    for name in NAMES:
        given = ["--ckpt_path", str(folders[name] / "best.ckpt"), "--data.root", str(classes), "--data.chunk", "8"]
        validate = ["validate", *given, *quiet, "--data.val", "['01', '02', '03']"]
        commands[f"validate {name}"] = [*validate, *TWO]
        cli = TrainingCLI([*validate, "--trainer.devices", "1"])
        alone[name] = {k: float(v) for k, v in cli.trainer.callback_metrics.items() if k.startswith("val/")}

    again = ["--trainer.logger", "false", "--checkpoint.folder", str(tmp_path / "again")]
    middle = str(pair.folder / "ulstm-2.ckpt")
    lanes = torch.load(middle, weights_only=True)["lanes"]["state"]
    assert lanes[0][0].shape[0] == 4, "two lanes of each process"
    commands["again"] = [*line(classes, "ulstm", *TWO), *again, "--ckpt_path", middle]
    commands["longer"] = ["fit", "--resume", folders["rshn"].name, "--trainer.max_epochs", "3"]
    assert main(line(classes, "ulstm")) == 0
    (one,) = set(run_ids(pair.home)) - {folder.name for folder in folders.values()}
    commands["more"] = ["fit", "--resume", one, *TWO, "--trainer.max_epochs", "3"]
    pair.run(commands)

    for name in NAMES:
        assert pair.noted(f"validate {name}")["measures"] == pytest.approx(alone[name], abs=1e-6, nan_ok=True)
    assert_same(tmp_path / "again/last.ckpt", folders["ulstm"] / "last.ckpt")
    assert pair.noted("longer")["step"] == 9
    assert pair.noted("longer")["folder"] == str(folders["rshn"])
    assert (pair.noted("more")["world"], pair.noted("more")["step"]) == (2, 9)
    assert Path(pair.noted("more")["folder"]).name == one

    assert main(["fit", "--resume", folders["ulstm"].name, "--trainer.devices", "1", "--trainer.max_epochs", "3"]) == 0
    saved = torch.load(folders["ulstm"] / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 9
    assert len(run_ids(pair.home)) == len(NAMES) + 1, "all in their own runs"

    monkeypatch.setenv("LIGHTNING_CELLS_HOME", str(tmp_path / "home"))
    assert main([*line(classes, "ulstm"), "--trainer.logger", "false", "--ckpt_path", middle]) == 0, "half of the lanes"
