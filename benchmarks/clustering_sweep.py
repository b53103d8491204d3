"""Trials of a clustering sweep on kept embeddings, beside the network pass in each trial, and `validate` in each trial.

The same clusterings are scored in three ways, which take turns: as the sweep does it; by the whole method in one
process; and by a process of `lightning-cells validate` for each. Stops if a score differs. Wall and CPU seconds of one
thread; the pass that fills the cache is told by itself.

    python benchmarks/clustering_sweep.py --checkpoint RUN/best.ckpt --root data/simulated [--trials 8] [--processes 2]
"""

import argparse
import logging
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
import yaml

from lightning_cells.cli.resolving import Resolver
from lightning_cells.experiments.tuning.clustering_trials import Clusterer, load_trained
from lightning_cells.methods.loading import checkpoint_settings
from lightning_cells.paths import HOME_VARIABLE

SEG = re.compile(r"val/SEG\W+([\d.e-]+)")


def clusterings(number: int) -> list[list[str]]:
    """Random mean shifts, as words of the command line."""
    rng = np.random.default_rng(0)
    return [
        [
            f"--model.decoder.clustering.bandwidth={10 ** rng.uniform(-1.5, -0.4):.4f}",
            f"--model.decoder.clustering.algorithm={('fast', 'exact')[n % 2]}",
            f"--model.decoder.min_size={rng.integers(10, 60)}",
            f"--model.linking.t_merge={rng.integers(0, 10)}",
        ]
        for n in range(number)
    ]


def timed(score: Callable[[list[str]], float], words: list[str]) -> tuple[float, float, float]:
    """Score, wall and CPU seconds, those of child processes included."""

    def cpu() -> float:
        spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(each.ru_utime + each.ru_stime for each in spent)

    wall, before = time.perf_counter(), cpu()
    value = score(words)
    return value, time.perf_counter() - wall, cpu() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--val", default='["09"]')
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--processes", type=int, default=2, help="trials that are also validated by a process each")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as home:
        os.environ[HOME_VARIABLE] = home
        remembered = Path(home) / "checkpoint.yaml"
        remembered.write_text(yaml.safe_dump(checkpoint_settings(args.checkpoint)))
        data = [f"--data.root={args.root}", f"--data.val={args.val}", "--trainer.accelerator=cpu"]
        words = ["-c", str(remembered), *data]
        config = yaml.safe_load(Resolver().text(words))
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        clusterer = Clusterer(args.checkpoint, config, int(1e11))
        method = load_trained(args.checkpoint, config["model"])

        def kept(chosen: list[str]) -> float:
            return clusterer.score(chosen, lambda measures, step: False)["val/SEG"]

        def whole(chosen: list[str]) -> float:
            parts = clusterer.parts(chosen)
            method.tiling, method.decoder, method.linking = parts.tiling, parts.decoder, parts.linking
            return float(clusterer._run(method, []).callback_metrics["val/SEG"])

        def process(chosen: list[str]) -> float:
            given = [f"--ckpt_path={args.checkpoint}", "--trainer.logger=false", "--trainer.enable_progress_bar=false"]
            command = [sys.executable, "-m", "lightning_cells", "validate", *data, *given, *chosen]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            return float(SEG.search(said)[1])  # type: ignore[index]

        _, wall, cpu = timed(kept, [])
        size = sum(path.stat().st_size for path in Path(home).glob("cache/embeddings/*/*.bin"))
        print(f"embeddings and a first trial: {wall:.1f} s, {cpu:.1f} CPU s; {size / 1e6:.0f} MB on disk")
        ways = {"kept embeddings": kept, "network in each trial": whole, "validate, a process each": process}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for number, chosen in enumerate(clusterings(args.trials)):
            scores = {}
            for name, way in ways.items():
                if way is process and number >= args.processes:
                    continue
                scores[name], wall, cpu = timed(way, chosen)
                times[name].append((wall, cpu))
            if max(scores.values()) - min(scores.values()) > 1e-9:
                raise SystemExit(f"scores differ: {scores}")
        print(
            f"{args.trials} clusterings, the same scores\n\n{'':<26}{'s':>8}{'CPU s':>8}{'per minute':>12}{'(CPU)':>8}"
        )
        for name, spent in times.items():
            wall, cpu = (statistics.median(part) for part in zip(*spent, strict=True))
            print(f"{name:<26}{wall:8.2f}{cpu:8.2f}{60 / wall:12.1f}{60 / cpu:8.1f}")


if __name__ == "__main__":
    main()
