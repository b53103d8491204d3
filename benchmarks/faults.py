"""Kills trainings at random moments, and compares what becomes of them with one that nothing interrupts.

    python benchmarks/faults.py --kills 20

Each training writes a checkpoint and logs after every batch, so that many kills fall into these. It is started again
with ``fit --resume`` until it ends; then its weights, its run and its files are looked at.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from mlflow import MlflowClient

from lightning_cells.data.simulate import simulate

BATCHES, EPOCHS = 12, 4
WORDS = ["-c", "conf/method/ulstm/tiny.yaml", "-c", "conf/trainer/cpu.yaml", "--trainer.enable_progress_bar", "false"]
WORDS += ["--trainer.enable_model_summary", "false", "--data.clip_length", "2", "--data.augmentation.crop", "32"]
WORDS += ["--data.batches_per_epoch", str(BATCHES), "--trainer.max_epochs", str(EPOCHS), "--data.val", "['03']"]
WORDS += ["--trainer.log_every_n_steps", "1", "--checkpoint.every_n_batches", "1"]


def start(home: Path, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "lightning_cells", "fit", *words]
    environment = {**os.environ, "LIGHTNING_CELLS_HOME": str(home), "OMP_NUM_THREADS": "1"}
    with (home / "log.txt").open("a") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)


def wait_for_progress(process: subprocess.Popen, folder: Path, before: float) -> None:
    """Until the first new checkpoint, or the end."""
    while process.poll() is None:
        last = next(folder.glob("checkpoints/*/last.ckpt"), None)
        if last is not None and last.stat().st_mtime > before:
            return
        time.sleep(0.02)


def where(folder: Path) -> str:
    """What the killed process was doing, as far as its files tell."""
    if list(folder.glob("checkpoints/*/.*.tmp")):
        return "writing a checkpoint"
    if list(folder.glob("runs/*/outbox/**/.*.tmp")):
        return "writing down what is logged"
    if list(folder.glob("runs/*/outbox/*.json")):
        return "with undelivered entries"
    return "otherwise"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        data = simulate(Path(folder) / "data", sequences=3, frames=12, size=(64, 64), seed=5)
        words = [*WORDS, "--data.root", str(data)]
        unbroken = Path(folder) / "unbroken"
        unbroken.mkdir()
        began = time.monotonic()
        assert start(unbroken, *words).wait() == 0, (unbroken / "log.txt").read_text()[-3000:]
        print(f"unbroken training: {time.monotonic() - began:.0f} s, {EPOCHS * BATCHES} steps", flush=True)
        kills, trainings, places = 0, 0, dict[str, int]()
        while kills < args.kills:
            trainings += 1
            home = Path(folder) / f"broken {trainings}"
            home.mkdir()
            kills += train(home, words, min(6, args.kills - kills), rng, places)
            check(home, unbroken)
        print(f"{kills} kills in {trainings} trainings: all ended with the weights of the unbroken one, bit by bit")
        print("killed: " + ", ".join(f"{count} {place}" for place, count in sorted(places.items())))


def train(home: Path, words: list[str], kills: int, rng: random.Random, places: dict[str, int]) -> int:
    """Trains with so many kills, as far as the training is long enough; returns how many there were."""
    line, done, before = words, 0, 0.0
    while True:
        process = start(home, *line)
        wait_for_progress(process, home, before)
        if done < kills:
            time.sleep(rng.uniform(0, 1.2))
            process.send_signal(signal.SIGKILL)
        status = process.wait()
        if status == 0:
            return done
        assert status == -signal.SIGKILL, (home / "log.txt").read_text()[-3000:]
        done += 1
        last = next(home.glob("checkpoints/*/last.ckpt"))
        before = last.stat().st_mtime
        step = torch.load(last, weights_only=True)["global_step"]
        place = where(home)
        places[place] = places.get(place, 0) + 1
        print(f"  killed {place}; the checkpoint is of step {step}", flush=True)
        line = ["--resume", last.parent.name]


def check(home: Path, unbroken: Path) -> None:
    (ours,), (theirs,) = (list(folder.glob("checkpoints/*/last.ckpt")) for folder in (home, unbroken))
    first, second = (torch.load(path, weights_only=True) for path in (ours, theirs))
    for key in ("state_dict", "current_model_state"):
        assert all(torch.equal(value, second[key][name]) for name, value in first[key].items())
    assert sorted(path.name for path in ours.parent.iterdir()) == ["best.ckpt", "last.ckpt"]
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert (run.info.run_id, run.info.status) == (ours.parent.name, "FINISHED")
    steps = {point.step for point in client.get_metric_history(run.info.run_id, "train/loss_step")}
    missing = set(range(EPOCHS * BATCHES)) - steps
    continued = int(run.data.tags.get("continued", 0))
    assert len(missing) <= continued, "at most the point of the step of each checkpoint"
    print(f"  one run, continued {continued} times; same weights; {len(missing)} of {EPOCHS * BATCHES} points missing")


if __name__ == "__main__":
    main()
