"""What a GPU makes of the papers' presets: training steps, clustering, `track` on large frames, minutes of training.

In at most eight minutes, and on a bare machine: without network, and without the packages of the command line, of runs
and of studies (albumentations, jsonargparse, mlflow, optuna). Each part is a process of its own, which imports while
the part before it is measured, and is ended when its time is up. What is found out is written at once, a line of JSON
each, so that it survives whatever comes after; tables are made of the lines at the end, or by --tables of those that a
killed run has left.

    python benchmarks/gpu.py [--parts rshn track] [--lines FILE] [--budget 480]
    python benchmarks/gpu.py --device cpu          # a small form that shows that all of it runs
    python benchmarks/gpu.py --tables --lines FILE
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from gpu_tables import report

BUDGET, LEAST = 480, 12  # seconds of the whole, and those without which a part does not begin
ENDING = 8  # seconds that a part has to end by itself when its time is up


class Part(NamedTuple):
    """A part, and the most seconds that it gets on a GPU."""

    name: str
    seconds: float


# The last one gets what is left.
PARTS = (
    Part("device", 15),
    Part("rshn", 65),
    Part("ulstm", 50),
    Part("clustering", 20),
    Part("track", 55),
    Part("gruunet", 25),
    Part("brightfield", 25),
    Part("adversarial", 20),
    Part("train", 240),
)
BESIDE = "beside"  # what the CPU does while the GPU is busy: videos are drawn, operations counted


class Lines:
    """Results, a line of JSON each."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, part: str, **found: Any) -> None:
        """Writes a result."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"part": part, **found}) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All results; a line that a killed process has left half-written is none."""
        found = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found


@contextlib.contextmanager
def process(part: str, args: argparse.Namespace, folder: Path) -> Iterator[subprocess.Popen]:
    """A part's process, which waits for a line with the seconds that it has; it ends with the context."""
    words = [sys.executable, __file__, "--part", part, "--device", args.device, "--lines", str(args.lines)]
    words += ["--folder", str(folder), "--rounds", str(args.rounds)]
    log = folder / f"{part}.log"
    with log.open("w") as file:
        child = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=file, stderr=file, text=True, start_new_session=True
        )
        try:
            yield child
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)  # with the loader's workers, and compilers
                child.wait()


def told(child: subprocess.Popen, seconds: float) -> None:
    """Tells a part to begin."""
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has failed before
        child.stdin.write(f"{seconds}\n")
        child.stdin.close()


def run(args: argparse.Namespace, lines: Lines) -> None:
    """All parts one after the other."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by which the parts end, too
    end = time.monotonic() + args.budget
    parts = [part for part in PARTS if part.name in args.parts]
    with TemporaryDirectory() as temporary, contextlib.ExitStack() as beside:
        folder = Path(temporary)
        told(beside.enter_context(process(BESIDE, args, folder)), args.budget)
        waiting = contextlib.ExitStack()
        ready = waiting.enter_context(process(parts[0].name, args, folder))
        for part, later in zip(parts, [*parts[1:], None], strict=True):
            child, running = ready, waiting
            with running:
                waiting = contextlib.ExitStack()
                if later is not None:
                    ready = waiting.enter_context(process(later.name, args, folder))
                left = end - time.monotonic() - ENDING
                limit = left if args.device == "cpu" or later is None else min(part.seconds, left)
                if limit < LEAST:
                    lines.note(part.name, skipped="no time left")
                    continue
                began = time.monotonic()
                told(child, limit)
                try:
                    status = child.wait(limit + ENDING)
                except subprocess.TimeoutExpired:
                    status = "cut off"
                failed = {} if status == 0 else {"said": last_line(folder / f"{part.name}.log")}
                lines.note(part.name, ended=status, seconds=round(time.monotonic() - began, 1), **failed)


def last_line(log: Path) -> str:
    """What a process said last."""
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return said[-1][:200] if said else ""


def work(args: argparse.Namespace, lines: Lines) -> None:
    """What the process of a part does: it imports, waits for its turn, and measures."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore")
    os.environ["LIGHTNING_CELLS_HOME"] = str(args.folder / "home")
    cuda, note = args.device == "cuda", partial(lines.note, args.part)
    measure = part_of(args.part, note, args, cuda)
    seconds = float(sys.stdin.readline() or 0)
    if not seconds:
        return
    measure(seconds)


def part_of(name: str, note: Callable[..., None], args: argparse.Namespace, cuda: bool) -> Callable[[float], None]:
    """What a part measures, given the seconds that it has; what is slow to import is imported here."""
    import gpu_clustering
    import gpu_steps

    if name == "device":
        return lambda seconds: device(note, cuda)
    if name == "clustering":
        return lambda seconds: gpu_clustering.measure(note, cuda, args.rounds, time.monotonic() + seconds)
    if name in gpu_steps.METHODS:
        return lambda seconds: gpu_steps.measure(note, name, cuda, args.rounds, time.monotonic() + seconds)
    import gpu_videos

    if name == BESIDE:

        def beside(seconds: float) -> None:
            gpu_videos.draw(args.folder, cuda)
            for method in gpu_steps.METHODS:
                for who, count in gpu_steps.operations(method, "paper").items():
                    note(preset=f"{method} {who}".strip(), operations=count)

        return beside
    if name == "track":
        return lambda seconds: gpu_videos.track(note, args.folder, cuda)
    scoring = 25 if cuda else 5
    most = 180 if cuda else 10
    return lambda seconds: gpu_videos.train(note, args.folder, cuda, max(5, min(most, seconds - scoring)))


def device(note: Callable[..., None], cuda: bool) -> None:
    """What is measured on."""
    import gpu_clustering
    import torch

    name = torch.cuda.get_device_name() if cuda else "CPU, the small form"
    memory = round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1) if cuda else None
    versions = {"torch": torch.__version__, "CUDA": torch.version.cuda, "cuDNN": torch.backends.cudnn.version()}
    note(name=name, memory_gb=memory, versions=versions, peaks=gpu_clustering.peaks(cuda))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [part.name for part in PARTS]
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--parts", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, help="calls that are timed together (default: 8, or 1 on the CPU)")
    parser.add_argument("--lines", type=Path, default=Path("outputs/gpu.jsonl"), help="where results are written")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds of the whole")
    parser.add_argument("--tables", action="store_true", help="the tables of the lines that are there")
    parser.add_argument("--part", choices=[*names, BESIDE], help=argparse.SUPPRESS)  # a process of its own
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.rounds = args.rounds or (8 if args.device == "cuda" else 1)
    args.lines = args.lines.resolve()
    lines = Lines(args.lines)
    if args.part:
        return work(args, lines)
    if not args.tables:
        args.lines.parent.mkdir(parents=True, exist_ok=True)
        args.lines.unlink(missing_ok=True)
        run(args, lines)
    report(lines.read(), args.device == "cuda")
    return None


if __name__ == "__main__":
    main()
