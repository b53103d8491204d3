"""What logging costs a training: the same epoch with a run and without, by turns, in one process.

    OMP_NUM_THREADS=1 python benchmarks/overhead.py [--repeats 10]

With a run: MLflow on sqlite, curves every ten steps, pictures, system metrics every ten seconds, record, checkpoints.
Without: checkpoints alone. Times are of the whole training, from its first line to its end; the first pair, which
imports and sets up, is not counted. Process time is that of all threads, so it holds on a busy machine, too.
"""

import argparse
import contextlib
import io
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from harness import Target, print_targets, table

# isort: split
import torch

from lightning_cells.cli.training import TrainingCLI
from lightning_cells.data.simulate import simulate


def words(data: Path, batches: int) -> list[str]:
    line = ["fit", "-c", "conf/method/ulstm/tiny.yaml", "-c", "conf/data/simulated.yaml", "-c", "conf/trainer/cpu.yaml"]
    line += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    return [*line, "--data.root", str(data), "--data.batches_per_epoch", str(batches), "--trainer.max_epochs", "1"]


def measure(line: list[str]) -> tuple[float, float]:
    """Process and wall time of a training in seconds."""
    process, wall = time.process_time(), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        TrainingCLI(line)
    return time.process_time() - process, time.perf_counter() - wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--batches", type=int, default=550, help="of the epoch, which takes a minute or so (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=10, help="pairs that count (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIGHTNING_CELLS_HOME"] = str(Path(folder) / "home")
        data = simulate(Path(folder) / "simulated", sequences=10)
        for logger in ([], ["--trainer.logger", "false"]):
            measure([*words(data, 10), *logger])
        times: dict[str, list[tuple[float, float]]] = {"with a run": [], "without": []}
        for turn in range(args.repeats):
            names = list(times) if turn % 2 else list(times)[::-1]
            for name in names:
                off = [] if name == "with a run" else ["--trainer.logger", "false"]
                times[name].append(measure([*words(data, args.batches), *off]))
                print(f"  {name:<12}" + "".join(f"{seconds:8.1f} s" for seconds in times[name][-1]), flush=True)
            shutil.rmtree(Path(folder) / "home" / "checkpoints")
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in times.items()}
    with_run, without = medians.values()
    costs = [100 * (ours - theirs) / theirs for ours, theirs in zip(with_run, without, strict=True)]
    rows = [[name, *(f"{seconds:.1f}" for seconds in row)] for name, row in medians.items()]
    print(f"\nan epoch of {args.batches} batches, medians of {args.repeats}\n")
    table(["training", "CPU s", "wall s"], [*rows, ["costs", *(f"{cost:+.1f} %" for cost in costs)]])
    print_targets([Target("logging of an epoch (CPU)", 2, costs[0], "%", at_least=False)])


if __name__ == "__main__":
    main()
