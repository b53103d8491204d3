"""Where `track` spends its time: seconds per frame by size and number of cells, split into its parts.

U-LSTM and RSHN of `conf/method/*/tiny.yaml` are trained for some steps on simulated nuclei, so that they find cells;
then simulated videos of several sizes and numbers of cells are tracked. Times are of the processor, one thread; each
part is what its functions take without the parts within them. Frames are seen at the scale of the training; what
estimating the size of the cells takes, once for a video, is measured by itself. Medians of rounds, in which the videos
take turns.

    python benchmarks/track_parts.py [--rounds 5] [--methods ulstm rshn] [--largest 512] [--device cpu]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import table

# isort: split
import torch
from track import train

from lightning_cells.data.frames import Frames, open_frames
from lightning_cells.data.result_folder import ResultWriter
from lightning_cells.data.simulate import simulate
from lightning_cells.data.spool import Spool
from lightning_cells.instances.components import SeedDecoder
from lightning_cells.instances.embedding import EmbeddingDecoder
from lightning_cells.instances.tiling import Tiling
from lightning_cells.methods import ULSTM
from lightning_cells.methods.building import Preprocessing
from lightning_cells.methods.cell_size import estimate_diameter
from lightning_cells.methods.embedded import EmbeddedVideo
from lightning_cells.methods.segmented import SegmentedVideo
from lightning_cells.networks.hourglass import StackedHourglass
from lightning_cells.tracking import Tracker

FRAMES = 6
PARTS: dict[str, list[tuple[type, str]]] = {
    "reading": [(Frames, "read"), (Preprocessing, "prepare")],
    "network": [(StackedHourglass, "contract"), (StackedHourglass, "embed"), (ULSTM, "probabilities")],
    "cells": [(EmbeddingDecoder, "of_tiles"), (SeedDecoder, "__call__"), (Tiling, "merge")],
    "linking": [(EmbeddedVideo, "link"), (SegmentedVideo, "link"), (EmbeddedVideo, "finish")],
    "writing": [(ResultWriter, "write"), (ResultWriter, "finish"), (Spool, "append")],
}


class Stopwatch:
    """Adds up, part by part, what functions take without the other parts that they call."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def attach(self) -> None:
        """Puts itself around the functions of all parts."""
        for part, functions in PARTS.items():
            for kind, name in functions:
                setattr(kind, name, self._around(part, getattr(kind, name)))

    def _around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            self._inner.append(0.0)
            wait()
            start = now()
            try:
                return function(*args, **options)
            finally:
                wait()
                took = now() - start
                self.spent[part] += took - self._inner.pop()
                self._inner[-1] += took

        return timed


def wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def now() -> float:
    """Time of the processor; of the clock where a GPU computes."""
    return time.perf_counter() if torch.cuda.is_initialized() else time.process_time()


def measure(
    watch: Stopwatch, videos: dict[tuple[int, int], Path], checkpoint: Path, out: Path, rounds: int, device: str
) -> dict[tuple[int, int], tuple[int, dict[str, float]]]:
    """Returns for each video the number of tracks, and milliseconds per frame by part."""
    used: dict[tuple[int, int], list[dict[str, float]]] = defaultdict(list)
    found = {}
    tracker = Tracker(checkpoint, device, diameter="training")
    tracker.track_to(next(iter(videos.values())), out)  # warms up
    for _ in range(rounds):
        for video, path in videos.items():
            watch.spent.clear()
            start = now()
            frames, found[video] = tracker.track_to(path, out)
            spent = {part: watch.spent[part] for part in PARTS}
            spent["rest"] = now() - start - sum(spent.values())
            spent["all"] = now() - start
            used[video].append({part: seconds / frames * 1e3 for part, seconds in spent.items()})
    return {
        video: (found[video], {part: statistics.median(turn[part] for turn in turns) for part in turns[0]})
        for video, turns in used.items()
    }


def estimating(checkpoint: Path, video: Path, device: str) -> float:
    """Milliseconds that it takes to estimate the size of a video's cells."""
    tracker = Tracker(checkpoint, device)
    with open_frames(video) as frames, torch.inference_mode():
        some = [frames.read(index) for index in (0, FRAMES // 2, FRAMES - 1)]
    start = now()
    with torch.inference_mode():
        estimate_diameter(tracker.method, tracker.preprocessing, some, tracker.preprocessing.diameter or 0.0)
    wait()
    return (now() - start) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    parser.add_argument("--methods", nargs="+", default=["ulstm", "rshn"], choices=["ulstm", "rshn"])
    parser.add_argument("--largest", type=int, default=512, help="largest side of the frames")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["LIGHTNING_CELLS_HOME"] = str(folder / "home")
        data = simulate(folder / "data", sequences=4, frames=24)
        wanted = [(128, 8), (256, 8), (256, 32), (256, 64), (512, 128), (1024, 512)]
        videos = {
            (side, cells): simulate(
                folder / f"{side}_{cells}", sequences=1, frames=FRAMES, size=(side, side), cells=cells
            )
            / "01"
            for side, cells in wanted
            if side <= args.largest
        }
        checkpoints = {method: train(method, data, folder, batches=150) for method in args.methods}
        watch.attach()
        print(f"ms per frame on the {args.device}, videos of {FRAMES} frames, medians of {args.rounds} rounds\n")
        rows = []
        for method, checkpoint in checkpoints.items():
            found = measure(watch, videos, checkpoint, folder / "out", args.rounds, args.device)
            for (side, cells), (tracks, spent) in found.items():
                per_pixel = spent["all"] / side**2 * 1e3
                times = [f"{spent[part]:.1f}" for part in [*PARTS, "rest", "all"]]
                size = f"{estimating(checkpoint, videos[side, cells], args.device):.0f}"
                rows.append([method, f"{side} x {side}", cells, tracks, *times, f"{per_pixel:.2f}", size])
    table(["method", "frame", "cells", "tracks found", *PARTS, "rest", "all", "us per pixel", "size, once"], rows)


if __name__ == "__main__":
    main()
