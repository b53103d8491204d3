"""Two real processes that train, measure and track together; what hangs is killed."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from cli_cases import METHOD, NO_RUN, PLACE, QUIET, SHORT, Said, run_python
from mlflow import MlflowClient
from mlflow.entities import Run

from lightning_cells.cli.training import TrainingCLI

TWO = [*QUIET, "--trainer.devices", "2", "--trainer.strategy", "ddp"]
VALIDATIONS = {"three videos": "['01', '02', '03']", "one video, one process is idle": "['02']"}

# A callback for the processes, written where they can import it: notes what each of them has at the end.
RECORD = """
import json
from pathlib import Path

from lightning.pytorch import Callback

class Record(Callback):
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on_fit_end(self, trainer, pl_module) -> None:
        parameters = [parameter.detach().double() for parameter in pl_module.parameters()]
        noted = {
            "world": trainer.world_size,
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "sums": [float(p.sum()) for p in parameters] + [float(p.abs().sum()) for p in parameters],
            "folder": trainer.checkpoint_callback.dirpath,
            "SEG": float(trainer.callback_metrics["val/SEG"]),
        }
        path = Path(self.folder) / f"{trainer.global_rank}-{trainer.current_epoch}.json"
        path.write_text(json.dumps(noted))
"""

# Runs several commands, one after the other, as one of two processes.
DRIVER = """
import json, os, sys
from pathlib import Path

import torch

from lightning_cells.cli.training import TrainingCLI

torch.set_num_threads(1)
for name, words in json.loads(Path(sys.argv[1]).read_text()).items():
    trainer = TrainingCLI(words).trainer
    measures = {key: float(value) for key, value in trainer.callback_metrics.items()}
    Path(f"{sys.argv[2]}/{name}-{os.environ['LOCAL_RANK']}.json").write_text(json.dumps(measures))
"""


def both(script: Path, *words: str | Path, limit: float = 240, **variables: str) -> None:
    """Runs a script as two processes of one group, as torchrun does; kills them when the time is up."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {name: value for name, value in os.environ.items() if name not in PLACE} | variables
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    processes = [
        subprocess.Popen(
            [sys.executable, script, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**common, "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"},
        )
        for rank in (0, 1)
    ]
    killer = threading.Timer(limit, lambda: [process.kill() for process in processes])
    killer.start()
    said = [process.communicate()[0] for process in processes]
    killer.cancel()
    assert [process.returncode for process in processes] == [0, 0], "\n\n".join(text[-3000:] for text in said)


@dataclass
class Trained:
    """A training on two processes."""

    home: Path
    notes: Path
    words: list[str]
    said: Said

    def noted(self, epoch: int) -> dict:
        """What the callback noted in both processes, which must be the same."""
        first, second = (json.loads((self.notes / f"{rank}-{epoch}.json").read_text()) for rank in (0, 1))
        assert first["sums"] == pytest.approx(second["sums"], rel=1e-12)
        assert {key: first[key] for key in first if key != "sums"} == {k: second[k] for k in second if k != "sums"}
        return first

    def runs(self) -> list[Run]:
        client = MlflowClient(f"sqlite:///{self.home / 'mlflow.db'}")
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        return list(client.search_runs(experiments, order_by=["attributes.start_time ASC"]))


@pytest.fixture(scope="module")
def trained(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """Started as a user does. Three validation videos on two processes: uneven, which must not hang."""
    home, notes = tmp_path_factory.mktemp("ddp"), tmp_path_factory.mktemp("notes")
    (notes / "ddp_record.py").write_text(RECORD)
    config = {"class_path": "ddp_record.Record", "init_args": {"folder": str(notes)}}
    (notes / "record.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [config]}}))
    words = [*METHOD, *TWO, *SHORT, "-c", str(notes / "record.yaml"), "--data.root", str(simulated)]
    words += ["--data.train", "['01', '02']", "--data.val", VALIDATIONS["three videos"]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTNING_CELLS_HOME", str(home))
        patch.setenv("PYTHONPATH", str(notes), prepend=os.pathsep)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        said = run_python("-m", "lightning_cells", "fit", *words, "--trainer.max_epochs", "2")
        yield Trained(home, notes, words, said)


@pytest.mark.slow
def test_processes_train_as_one(trained: Trained) -> None:
    assert trained.said.status == 0, trained.said.err[-3000:]
    assert "error" not in trained.said.err.lower()
    notes = trained.noted(epoch=2)
    assert (notes["world"], notes["step"]) == (2, 4)
    run = trained.runs()[0]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["val/SEG"] == pytest.approx(notes["SEG"])
    assert notes["folder"] == str(trained.home / "checkpoints" / run.info.run_id)
    assert sorted(path.name for path in Path(notes["folder"]).iterdir()) == ["best.ckpt", "last.ckpt"]
    assert len(trained.runs()) == len(list(trained.home.glob("artifacts/*"))) == 1


@pytest.mark.slow
def test_measures_and_results_are_those_of_one_process(
    trained: Trained, simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a training that is resumed goes on in both processes where both were."""
    folder = trained.noted(epoch=2)["folder"]
    given = ["--data.root", str(simulated), "--data.chunk", "5", "--ckpt_path", f"{folder}/best.ckpt"]
    commands = {name: ["validate", *given, "--data.val", videos] for name, videos in VALIDATIONS.items()}
    predict = ["predict", *given, "--results.folder"]
    commands["predict"] = [*predict, str(tmp_path / "two")]
    (tmp_path / "driver.py").write_text(DRIVER)
    two = {name: [*words, *TWO] for name, words in commands.items()}
    resume = ["--ckpt_path", "last", "--checkpoint.folder", folder, "--trainer.max_epochs", "3"]
    two["resume"] = ["fit", *trained.words, *resume]
    (tmp_path / "commands.json").write_text(json.dumps(two))
    monkeypatch.setenv("PYTHONPATH", str(trained.notes), prepend=os.pathsep)
    both(tmp_path / "driver.py", tmp_path / "commands.json", tmp_path, LIGHTNING_CELLS_HOME=str(trained.home))

    def noted(name: str) -> dict[str, float]:
        first, second = (json.loads((tmp_path / f"{name}-{rank}.json").read_text()) for rank in (0, 1))
        assert first == pytest.approx(second, nan_ok=True, abs=1e-12)
        return first

    for name in VALIDATIONS:
        alone = TrainingCLI([*commands[name], *QUIET, *NO_RUN]).trainer.callback_metrics
        assert noted(name) == pytest.approx({k: float(v) for k, v in alone.items()}, abs=1e-6, nan_ok=True)
        assert noted(name)["val/NS"] + noted(name)["val/FN"] + noted(name)["val/FP"] > 0
    assert noted("three videos") != noted("one video, one process is idle")

    TrainingCLI([*predict, str(tmp_path / "one"), *QUIET])
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 3 * 13
    assert files == sorted(path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("*.*"))
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file

    assert trained.noted(epoch=3)["step"] == 6
    assert trained.noted(epoch=3)["folder"] == folder
