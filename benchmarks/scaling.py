"""The same training by one process and by two: as many clips in all, gradients averaged over gloo.

`fit` of the tiny RSHN on simulated nuclei, without a run: N batches in one process, N/2 in each of two. The time is
of the epoch alone, from its first batch to its last; the work of the processor is that of the whole command.

    python benchmarks/scaling.py [--rounds 5] [--batches 60]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import table

from lightning_cells.data.simulate import simulate

RUN = """
import sys, time
import torch; torch.set_num_threads(1)
from lightning.pytorch import Callback
from lightning_cells.cli.training import TrainingCLI

class Clock(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 3:  # the first ones warm up
            self.start = time.perf_counter(), time.process_time()
    def on_train_epoch_end(self, trainer, pl_module):
        wall, cpu = time.perf_counter() - self.start[0], time.process_time() - self.start[1]
        with open(sys.argv[1] + str(trainer.global_rank), "w") as file:
            file.write(f"{wall} {cpu}")

import lightning_cells.cli.training as training
import lightning.pytorch as pl
make = pl.Trainer.__init__
def with_clock(self, *args, **options):
    options["callbacks"] = [*(options.get("callbacks") or []), Clock()]
    make(self, *args, **options)
pl.Trainer.__init__ = with_clock
TrainingCLI(sys.argv[2:])
"""


def fit(data: Path, folder: Path, processes: int, batches: int) -> tuple[float, float]:
    """Seconds of the clock for the slower process, and of the processor for all."""
    words = ["fit", "-c", "conf/method/rshn/tiny.yaml", "--data.root", str(data), "--trainer.logger", "false"]
    words += ["--trainer.accelerator", "cpu", "--trainer.devices", str(processes), "--trainer.max_epochs", "1"]
    words += ["--trainer.strategy", "ddp" if processes > 1 else "auto", "--trainer.limit_val_batches", "0"]
    words += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    words += ["--data.batches_per_epoch", str(batches // processes + 3), "--output_dir", str(folder / "outputs")]
    words += ["--checkpoint.folder", str(folder / "checkpoints"), "--trainer.num_sanity_val_steps", "0"]
    script, times = folder / "run.py", folder / "time"
    script.write_text(RUN)
    subprocess.run([sys.executable, str(script), str(times), *words], check=True, capture_output=True)
    measured = [list(map(float, Path(f"{times}{rank}").read_text().split())) for rank in range(processes)]
    return max(wall for wall, _ in measured), sum(cpu for _, cpu in measured)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    parser.add_argument("--batches", type=int, default=60, help="in all")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["LIGHTNING_CELLS_HOME"] = str(folder / "home")
        data = simulate(folder / "data", sequences=4)
        used: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
        for turn in range(args.rounds):
            for processes in (1, 2) if turn % 2 else (2, 1):
                used[processes].append(fit(data, folder, processes, args.batches))
    medians = {
        number: [statistics.median(column) for column in zip(*times, strict=True)] for number, times in used.items()
    }
    print(f"{args.batches} clips in all, medians of {args.rounds} rounds, {os.cpu_count()} cores\n")
    (alone, work), (together, both) = medians[1], medians[2]
    rows = [
        ["1", f"{alone:.2f}", f"{work:.2f}", "x1.00", ""],
        ["2", f"{together:.2f}", f"{both:.2f}", f"x{alone / together:.2f}", f"{100 * (both / work - 1):+.0f} %"],
    ]
    table(["processes", "wall s", "CPU s of both", "speed-up (wall)", "more work (CPU)"], rows)


if __name__ == "__main__":
    main()
