"""What the tests of the command line share: short options, and a call that gathers what was said."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from lightning_cells.cli import main

METHOD = ["-c", "conf/method/ulstm/tiny.yaml"]
QUIET = ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]
QUIET += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
NO_RUN = ["--trainer.logger", "false"]  # where no run is of interest: setting up its database takes a moment
PLACE = ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SPLIT = ["--data.train", "['01', '02']", "--data.val", "['03']"]
SHORT = ["--data.batches_per_epoch", "2", "--data.clip_length", "2", "--data.augmentation.crop", "32"]


class Said(NamedTuple):
    """How a command ended and what it printed."""

    status: int
    out: str
    err: str


def say(capfd: pytest.CaptureFixture[str], *words: str | Path) -> Said:
    """Runs a command in this process."""
    capfd.readouterr()
    status = main([str(word) for word in words])
    out, err = capfd.readouterr()
    return Said(status, out, err)


def complaint(capfd: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """Runs a command that must fail as the user's mistake, and returns the one line that it says."""
    status, _, err = say(capfd, *words)
    assert status == 2, err
    assert err.count("\n") == 1, err
    start = f"lightning-cells {words[0]}: error: "
    assert err.startswith(start)
    return err.removeprefix(start).rstrip("\n")


def fit(root: Path, home: Path, *words: str, method: Sequence[str] = METHOD) -> Path:
    """Trains a tiny method for one epoch of two batches, and returns the checkpoint."""
    short = [*QUIET, *SPLIT, *SHORT, "--trainer.max_epochs", "1"]
    assert main(["fit", *method, *short, *words, "--data.root", str(root), "--output_dir", str(home)]) == 0
    (checkpoint,) = home.glob("checkpoints/*/best.ckpt")
    return checkpoint


def run_python(*words: str | Path, limit: float = 240, **variables: str) -> Said:
    """Runs Python in a process group of its own, which is killed when the time is up.

    What Lightning has told this process of its place in a distributed training is not passed on.
    """
    process = subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name not in PLACE} | variables,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"hung for {limit} s\n{out[-2000:]}\n{err[-4000:]}")
    return Said(process.returncode, out, err)


def printed(capfd: pytest.CaptureFixture[str], *words: str | Path) -> dict:
    """The configuration that a command would run with."""
    said = say(capfd, *words, "--print_config")
    assert said.status == 0
    return yaml.safe_load(said.out)
