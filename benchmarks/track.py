"""Memory of `track`: the peak of the process for a short and for a long video of the same frames.

Each method of `conf/method/*/tiny.yaml` that is asked for is trained for a few steps on simulated nuclei, so that it
finds something. The long video repeats the short one, forth and back, so that cells keep moving. Every run is a process
of its own; memory is the highest resident set that the operating system saw (Linux), and includes some hundred
megabytes of libraries, as a video of eight frames shows. Growth is what the long video needs above the short one: up to
some twenty megabytes the allocator keeps, and laptrack needs a few kilobytes for each cell in each frame.

    python benchmarks/track.py [--quick] [--methods ulstm rshn] [--frames 100 1000] [--size 64 64]
"""

import argparse
import contextlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"

import tifffile

from lightning_cells.cli import main as run_cli
from lightning_cells.data.simulate import simulate

LIMIT = 1.1  # asserted: the long video's peak as a multiple of the short one's
WHOLE = ["--linker", "laptrack"]  # links when all frames have come, so it may need more for more of them

RUN = """
import re, sys, time
from pathlib import Path
import torch; torch.set_num_threads(1)
from lightning_cells.cli import main
status = main(sys.argv[1:])
# not getrusage: its peak is that of the parent, if that was larger
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(1024 * int(peak[1]), time.process_time())
sys.exit(status)
"""


class Used(NamedTuple):
    """What a run took."""

    memory: int  # bytes
    seconds: float  # of the processor


def train(method: str, data: Path, folder: Path, batches: int = 40) -> Path:
    """A checkpoint after some steps."""
    words = ["fit", "-c", f"conf/method/{method}/tiny.yaml", "--data.root", str(data), "--trainer.logger", "false"]
    words += ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.max_epochs", "1"]
    words += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    words += ["--data.batches_per_epoch", str(batches), "--checkpoint.folder", str(folder / method)]
    with contextlib.redirect_stdout(io.StringIO()):
        status = run_cli([*words, "--output_dir", str(folder / "outputs")])
    if status:
        raise SystemExit(f"{method}: training failed")
    return folder / method / "last.ckpt"


def stretch(source: Path, frames: int, folder: Path) -> Path:
    """Writes a video of many frames that runs forth and back through one of few."""
    files = sorted(source.glob("*.tif"))
    there_and_back = [*files, *files[-2:0:-1]]
    folder.mkdir()
    for number in range(frames):
        tifffile.imwrite(folder / f"t{number:04d}.tif", tifffile.imread(there_and_back[number % len(there_and_back)]))
    return folder


def track(video: Path, checkpoint: Path, out: Path, options: Sequence[str]) -> Used:
    """Tracks in a process of its own."""
    words = ["track", str(video), "--checkpoint", str(checkpoint), "--out", str(out), "--device", "cpu", *options]
    run = subprocess.run([sys.executable, "-c", RUN, *words], capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(run.stderr)
    memory, seconds = run.stdout.splitlines()[-1].split()
    return Used(int(memory), float(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=["ulstm", "rshn"], help="folders of conf/method")
    parser.add_argument("--frames", nargs=2, type=int, default=[100, 1000], help="of the short and the long video")
    parser.add_argument("--size", nargs=2, type=int, default=[64, 64], help="height and width")
    parser.add_argument("--quick", action="store_true", help="20 and 100 frames")
    args = parser.parse_args()
    short, long = (20, 100) if args.quick else args.frames
    height, width = args.size
    rows, grown = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = simulate(folder / "data", sequences=2, frames=24, size=(height, width))
        videos = {n: stretch(data / "01", n, folder / f"{n}") for n in (8, short, long)}
        for method in args.methods:
            checkpoint = train(method, data, folder)
            kinds = [[], WHOLE] if method == "ulstm" else [[]]
            for options in [*kinds, ["--preview"]]:
                used = {n: track(video, checkpoint, folder / "out", options) for n, video in videos.items()}
                growth = used[long].memory - used[short].memory
                name = " ".join([method, *options])
                megabytes = [f"{use.memory / 1e6:.0f}" for use in used.values()]
                pace = 1000 * (used[long].seconds - used[short].seconds) / (long - short)
                each = growth / (long - short) / 1e3
                rows.append([name, *megabytes, f"{growth / 1e6:+.1f}", f"{each:.1f}", f"{pace:.0f}"])
                if options != WHOLE and used[long].memory > LIMIT * used[short].memory:
                    grown.append(name)
    print(f"one thread, frames of {height} x {width} pixels, peak memory of the process in MB\n")
    print(f"| method | 8 frames | {short} frames | {long} frames | growth MB | kB per frame | CPU ms per frame |")
    print("|" + "---|" * 7)
    for row in rows:
        print("| " + " | ".join(row) + " |")
    if grown:
        raise SystemExit(f"memory grows with the video: {', '.join(grown)}")


if __name__ == "__main__":
    main()
