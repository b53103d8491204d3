"""What the tests of runs share: a tiny training, a look at what it left, and children that are killed."""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run

import lightning_cells
from lightning_cells.loggers.mlflow import EXPERIMENT

CONF = Path(lightning_cells.__file__).parents[1] / "conf"
PRESETS = sorted(CONF.glob("method/*/tiny.yaml"))
ULSTM = ["-c", "conf/method/ulstm/tiny.yaml"]
QUIET = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.enable_progress_bar", "false"]
QUIET += ["--trainer.enable_model_summary", "false", "--trainer.num_sanity_val_steps", "0"]
SHORT = ["--data.train", "['01', '02']", "--data.val", "['03']", "--data.clip_length", "2", "--data.num_workers", "0"]
SHORT += ["--data.augmentation.crop", "32", "--data.batches_per_epoch", "4", "--trainer.max_epochs", "2"]
SHORT += ["--trainer.log_every_n_steps", "1"]
NO_RUN = ["--trainer.logger", "false"]


def words(root: Path, *more: str | Path, method: Sequence[str] = ULSTM) -> list[str]:
    """A training of two epochs of four batches."""
    return ["fit", *method, *QUIET, *SHORT, "--data.root", str(root), *map(str, more)]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """What a training ends with: those in training, and their average if there is one."""
    saved = torch.load(checkpoint, weights_only=True)
    current = saved.get("current_model_state", {})
    return saved["state_dict"] | {f"current.{name}": value for name, value in current.items()}


def assert_same(ours: Path, theirs: Path) -> None:
    """Two checkpoints hold the same weights, bit by bit, after as many steps."""
    first, second = weights(ours), weights(theirs)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    steps = [torch.load(path, weights_only=True)["global_step"] for path in (ours, theirs)]
    assert steps[0] == steps[1]


def client(home: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home / 'mlflow.db'}")


def the_run(home: Path) -> Run:
    """The only run there is."""
    store = client(home)
    (run,) = store.search_runs([store.get_experiment_by_name(EXPERIMENT).experiment_id])
    return run


def in_child(work: Callable[[], object], limit: float = 240) -> int:
    """Does something in a copy of this process, and returns how that ended: its status, or minus a signal."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        try:
            status = work()
            os._exit(status if isinstance(status, int) else 0)
        except BaseException:
            traceback.print_exc()
            os._exit(99)
    killer = threading.Timer(limit, os.kill, (child, signal.SIGKILL))
    killer.start()
    _, ended = os.waitpid(child, 0)
    if not killer.is_alive():
        pytest.fail(f"hung for {limit} s")
    killer.cancel()
    return os.waitstatus_to_exitcode(ended)


def die() -> None:
    """Ends this process as kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)
