"""The same training with one core and with two: by two processes, by two threads, and with a worker for the data.

`fit` of a tiny network on simulated nuclei, without a run: N batches in one process, or N/2 in each of two, whose
gradients are averaged over gloo; then two videos are validated. The time is of the epoch alone, from its first batches
to its last, and of the validation; the work of the processor is that of all processes meanwhile.

    python benchmarks/scaling.py [--rounds 5] [--batches 60]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from harness import table

from lightning_cells.data.simulate import simulate

RUN = """
import multiprocessing, sys, time
import psutil
import torch; torch.set_num_threads(int(sys.argv[2]))
from lightning.pytorch import Callback
from lightning_cells.cli.training import TrainingCLI

def now():
    workers = sum(sum(psutil.Process(each.pid).cpu_times()[:2]) for each in multiprocessing.active_children())
    return time.perf_counter(), time.process_time() + workers

class Clock(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 3:  # the first ones warm up
            self.start = now()
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.trained = now()
    def on_validation_start(self, trainer, pl_module):
        self.validation = now()
    def on_validation_end(self, trainer, pl_module):
        spans = (self.start, self.trained), (self.validation, now())
        with open(sys.argv[1] + str(trainer.global_rank), "w") as file:
            file.write(" ".join(str(end - start) for span in spans for start, end in zip(*span)))

import lightning_cells.cli.training as training
import lightning.pytorch as pl
make = pl.Trainer.__init__
def with_clock(self, *args, **options):
    options["callbacks"] = [*(options.get("callbacks") or []), Clock()]
    make(self, *args, **options)
pl.Trainer.__init__ = with_clock
TrainingCLI(sys.argv[3:])
"""


class Way(NamedTuple):
    """How two cores may share a training."""

    name: str
    processes: int = 1
    threads: int = 1
    workers: int = 0


WAYS = (
    Way("one process"),
    Way("a worker for the data", workers=1),
    Way("two threads", threads=2),
    Way("two threads and a worker", threads=2, workers=1),
    Way("two processes", processes=2),
)


def fit(method: str, data: Path, folder: Path, way: Way, batches: int) -> list[float]:
    """Seconds of the clock for the slowest process and of the processor for all, in training and in validation."""
    words = ["fit", "-c", f"conf/method/{method}/tiny.yaml", "--data.root", str(data), "--trainer.logger", "false"]
    words += ["--data.train", '["0[12]"]', "--data.val", '["0[34]"]', "--data.num_workers", str(way.workers)]
    words += ["--trainer.accelerator", "cpu", "--trainer.devices", str(way.processes), "--trainer.max_epochs", "1"]
    words += ["--trainer.strategy", "ddp" if way.processes > 1 else "auto"]
    words += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    words += ["--data.batches_per_epoch", str(batches // way.processes + 3), "--output_dir", str(folder / "outputs")]
    words += ["--checkpoint.folder", str(folder / "checkpoints"), "--trainer.num_sanity_val_steps", "0"]
    script, times = folder / "run.py", folder / "time"
    script.write_text(RUN)
    environment = os.environ | {"OMP_NUM_THREADS": str(way.threads)}
    subprocess.run(
        [sys.executable, str(script), str(times), str(way.threads), *words],
        check=True,
        capture_output=True,
        env=environment,
    )
    ranks = [list(map(float, Path(f"{times}{rank}").read_text().split())) for rank in range(way.processes)]
    wall, cpu, validation, validation_cpu = zip(*ranks, strict=True)
    return [max(wall), sum(cpu), max(validation), sum(validation_cpu)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    parser.add_argument("--batches", type=int, default=60, help="in all")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["LIGHTNING_CELLS_HOME"] = str(folder / "home")
        data = simulate(folder / "data", sequences=4)
        for method in ("rshn", "ulstm"):
            used: dict[Way, list[list[float]]] = {way: [] for way in WAYS}
            for turn in range(args.rounds):
                for way in WAYS if turn % 2 else WAYS[::-1]:
                    used[way].append(fit(method, data, folder, way, args.batches))
            print(f"## {method}\n\n{args.batches} batches in all, medians of {args.rounds} rounds\n")
            medians = {way: [statistics.median(column) for column in zip(*used[way], strict=True)] for way in WAYS}
            first = medians[WAYS[0]]
            rows = []
            for way, (wall, cpu, validation, validation_cpu) in medians.items():
                training = [f"{wall:.2f}", f"x{first[0] / wall:.2f}", f"{100 * (cpu / first[1] - 1):+.0f} %"]
                validating = [f"{validation:.2f}", f"x{first[2] / validation:.2f}"]
                rows.append([way.name, *training, *validating, f"{100 * (validation_cpu / first[3] - 1):+.0f} %"])
            columns = ["by", "training, wall s", "speed-up", "more CPU", "validation, wall s", "speed-up", "more CPU"]
            table(columns, rows)


if __name__ == "__main__":
    main()
