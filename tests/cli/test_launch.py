"""Recipes for several nodes: what is printed is what would run, and a worker that dies does not end the training."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from cli_cases import METHOD, SHORT, SPLIT, complaint, say
from mlflow import MlflowClient

from lightning_cells.cli import main

Capture = pytest.CaptureFixture[str]
FIT = ["--", "fit", *METHOD, "--data.train", "['01', '02']"]


def script(capfd: Capture, *words: str) -> list[str]:
    said = say(capfd, "launch", *words)
    assert (said.status, said.err) == (0, "")
    checked = subprocess.run(["bash", "-n"], input=said.out, text=True, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    return said.out.splitlines()


def test_slurm(capfd: Capture, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://runs.example")
    options = ["--nodes", "2", "--processes", "4", "--time", "08:00:00", "--sbatch=--partition=gpu", "--dry-run"]
    lines = script(capfd, "slurm", *options, *FIT)
    assert lines[0] == "#!/bin/bash"
    asked = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines if line.startswith("#SBATCH"))
    assert asked["nodes"] == "2"
    assert asked["ntasks-per-node"] == asked["gpus-per-node"] == "4"
    assert (asked["time"], asked["partition"]) == ("08:00:00", "gpu")
    assert asked["signal"].startswith("USR1@"), "for all processes of the step, not for the script"
    assert {"requeue", "open-mode"} <= asked.keys()
    assert f"export LIGHTNING_CELLS_HOME={home}" in lines
    assert "export MLFLOW_TRACKING_URI=http://runs.example" in lines
    words = shlex.split(lines[-1])
    assert words[0] == "srun"
    assert words[2:6] == [sys.executable, "-m", "lightning_cells", "fit"]
    assert words[words.index("--data.train") + 1] == "['01', '02']", "as it was given"
    after = ["--trainer.num_nodes", "2", "--trainer.devices", "4", "--trainer.accelerator", "gpu"]
    assert words[-6:] == after
    assert not list(home.iterdir()), "nothing is done"


def test_torchrun(capfd: Capture) -> None:
    options = ["--nodes", "2", "--processes", "8", "--head", "node1", "--job", "mine", "--dry-run"]
    words = shlex.split(script(capfd, "torchrun", *options, *FIT)[-1])
    assert words[:4] == ["exec", sys.executable, "-m", "torch.distributed.run"]
    for option in ("--nnodes=2", "--nproc-per-node=8", "--rdzv-endpoint=node1:29500", "--rdzv-id=mine"):
        assert option in words
    alone = script(capfd, "torchrun", "--processes", "2", "--accelerator", "cpu", "--dry-run", *FIT)
    assert shlex.split(alone[-1])[-1] == "cpu"
    assert alone != script(capfd, "torchrun", "--processes", "2", "--accelerator", "cpu", "--dry-run", *FIT), (
        "each training has a name of its own"
    )


def test_slurm_without_gpus(capfd: Capture) -> None:
    assert not any("gpus" in line for line in script(capfd, "slurm", "--accelerator", "cpu", "--dry-run", *FIT))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["slurm", "--nodes", "0", *FIT], "--nodes 0: must be at least 1"),
        (["slurm", "--", "track", "x"], "track: only fit is launched"),
        (["slurm", *FIT, "--trainer.devices", "3"], "--trainer.devices: follows from"),
        (["slurm", *FIT, "--trainer.num_nodes=3"], "--trainer.num_nodes: follows from"),
        (["torchrun", "--nodes", "2", "--job", "a", *FIT], "--head: give the name of one of the nodes"),
        (["torchrun", "--nodes", "2", "--head", "a", *FIT], "--job: give the training a name"),
        (["kubernetes", *FIT], "'slurm', 'torchrun'"),
        (["slurm"], "fit ..."),
    ],
)
def test_mistakes(words: list[str], expected: str, capfd: Capture) -> None:
    assert expected in complaint(capfd, "launch", *words, *(["--dry-run"] if "--" not in words else []))


def test_submission(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    assert "there is no sbatch here" in complaint(capfd, "launch", "slurm", *FIT)
    (tmp_path / "sbatch").write_text(f"#!/bin/sh\ncat > {tmp_path}/job; echo Submitted batch job 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    said = say(capfd, "launch", "slurm", *FIT)
    assert (said.status, said.out) == (0, "Submitted batch job 1\n")
    assert (tmp_path / "job").read_text().splitlines() == script(capfd, "slurm", "--dry-run", *FIT)
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho no such partition >&2; exit 1\n")
    said = say(capfd, "launch", "slurm", *FIT)
    assert said.status == 2
    assert "no such partition" in said.err


@pytest.mark.slow
def test_worker_that_is_killed(simulated: Path, home: Path, tmp_path: Path) -> None:
    """With a real torchrun: all are started again, and the run goes on from its last checkpoint."""
    words = ["fit", *METHOD, *SPLIT, *SHORT, "--data.root", str(simulated), "--trainer.enable_progress_bar", "false"]
    words += ["--data.batches_per_epoch", "40", "--trainer.max_epochs", "1", "--checkpoint.every_n_batches", "2"]
    words += ["--trainer.log_every_n_steps", "1"]
    launch = ["launch", "torchrun", "--processes", "2", "--accelerator", "cpu", "--", *words]
    log = tmp_path / "log.txt"
    with log.open("w") as file:
        agent = subprocess.Popen(
            [sys.executable, "-m", "lightning_cells", *launch], stdout=file, stderr=file, start_new_session=True
        )
    try:
        until = time.monotonic() + 300
        while not list(home.glob("checkpoints/*/last.ckpt")):
            assert agent.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < until, log.read_text()[-3000:]
            time.sleep(0.05)
        workers = [child for child in psutil.Process(agent.pid).children() if "lightning_cells" in child.cmdline()]
        assert len(workers) == 2
        workers[0].kill()
        assert agent.wait(timeout=500) == 0, log.read_text()[-3000:]
    finally:
        if agent.poll() is None:
            os.killpg(agent.pid, signal.SIGKILL)
            agent.wait()
    assert "Going on with run" in log.read_text()
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert (run.info.status, run.data.tags["continued"]) == ("FINISHED", "1")
    steps = {point.step for point in client.get_metric_history(run.info.run_id, "train/loss_step")}
    assert len(set(range(40)) - steps) <= 1
    (last,) = home.glob("checkpoints/*/last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == 40
    assert main(["deliver"]) == 0
