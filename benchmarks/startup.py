"""How long the command line takes to start: help, and `fit` up to the end of its first step.

Each is a process of its own, beside bare imports of what it needs; all take turns, after one round that fills the
caches. Times are those of the child processes.

    python benchmarks/startup.py [--rounds 5]
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import Target, print_targets, table

from lightning_cells.data.simulate import simulate

CLI = [sys.executable, "-m", "lightning_cells"]


def run(words: list[str]) -> tuple[float, float]:
    """Seconds of the processor, and of the clock."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(words, check=True, capture_output=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["LIGHTNING_CELLS_HOME"] = str(folder / "home")
        data = simulate(folder / "data", sequences=2)
        fit = [
            *CLI,
            "fit",
            "-c",
            "conf/method/ulstm/tiny.yaml",
            "-c",
            "conf/trainer/cpu.yaml",
            "--data.root",
            str(data),
        ]
        fit += ["--trainer.max_steps", "1", "--trainer.num_sanity_val_steps", "0", "--trainer.limit_val_batches", "0"]
        fit += ["--trainer.enable_progress_bar", "false", "--checkpoint.folder", str(folder / "checkpoints")]
        fit += ["--output_dir", str(folder / "outputs")]
        commands = {
            "python": [sys.executable, "-c", ""],
            "import torch": [sys.executable, "-c", "import torch"],
            "import lightning.pytorch": [sys.executable, "-c", "import lightning.pytorch"],
            "import lightning.pytorch, mlflow": [sys.executable, "-c", "import lightning.pytorch, mlflow"],
            "lightning-cells --help": [*CLI, "--help"],
            "lightning-cells track --help": [*CLI, "track", "--help"],
            "lightning-cells fit --help": [*CLI, "fit", "--help"],
            "fit, one step, not logged": [*fit, "--trainer.logger", "false"],
            "fit, one step, a run in MLflow": fit,
        }
        used: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for turn in range(rounds + 1):
            for name, words in commands.items():
                measured = run(words)
                if turn:
                    used[name].append(measured)
    medians = {name: [statistics.median(column) for column in zip(*times, strict=True)] for name, times in used.items()}
    print(f"medians of {rounds} rounds; fit is the whole process: imports, data, one step, checkpoint\n")
    table(
        ["process", "CPU s", "wall s"], [[name, f"{cpu:.2f}", f"{wall:.2f}"] for name, (cpu, wall) in medians.items()]
    )
    wall = medians["lightning-cells --help"][1]
    print_targets([Target("lightning-cells --help, wall", 1.5, wall, "s", at_least=False)])


if __name__ == "__main__":
    main()
