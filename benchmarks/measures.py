"""The Cell Tracking Challenge's measures of one video: ours beside py-ctcmetrics and traccuracy, values and speed.

A synthetic video of 46 frames of 1024 x 1024 pixels with about 100 cells, written as zlib-compressed TIFF files with
truth and result as the challenge lays them out; the result has moved, missed, merged, split and spurious cells. All
read the files in one process and one thread and take turns; times are medians. traccuracy computes DET and TRA, from
graphs, but no SEG. Stops if the values differ from those of py-ctcmetrics.

    python benchmarks/measures.py [--rounds 5] [--frames 46] [--size 1024]
"""

import argparse
import contextlib
import gc
import io
import logging
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from harness import Target, peak_megabytes, print_targets, ratio, table, take_turns

# isort: split
import numpy as np
from ctc_metrics.scripts.evaluate import evaluate_sequence
from traccuracy import run_metrics
from traccuracy.loaders import load_ctc_data
from traccuracy.matchers import CTCMatcher
from traccuracy.metrics import CTCMetrics

from lightning_cells.data.image_files import write_image
from lightning_cells.data.result_folder import ResultWriter
from lightning_cells.data.tracks import Lineage, Track, write_tracks
from lightning_cells.metrics.evaluate import evaluate

MEASURES = ["SEG", "DET", "TRA"]
PAIRS = {"NS": "AOGM_NS", "FN": "AOGM_FN", "FP": "AOGM_FP", "ED": "AOGM_ED", "EA": "AOGM_EA", "EC": "AOGM_EC"}


def draw(size: int, cells: dict[int, np.ndarray], radius: int = 15) -> np.ndarray:
    """Draws cells as discs around (y, x), later ones on top."""
    mask = np.zeros((size, size), np.uint16)
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disc = y**2 + x**2 <= radius**2
    for label, centre in cells.items():
        top, left = np.clip(np.round(centre).astype(int), radius, size - radius - 1) - radius
        mask[top : top + disc.shape[0], left : left + disc.shape[1]][disc] = label
    return mask


def simulate(frames: int, size: int, rng: np.random.Generator) -> list[dict[int, tuple[np.ndarray, int]]]:
    """Returns per frame label -> (position, parent): about 100 cells on a loose grid, some of which divide once."""
    grid = np.stack(np.meshgrid(*2 * [np.linspace(40, size - 40, 9)]), -1).reshape(-1, 2)
    alive = {k + 1: (place, 0) for k, place in enumerate(grid)}
    video, label = [], len(grid)
    for frame in range(frames):
        if frame and frame % 4 == 0 and label < len(grid) + 40:
            mother = int(rng.choice([k for k in alive if k <= len(grid)]))
            place, _ = alive.pop(mother)
            for shift in (-18, 18):
                label += 1
                alive[label] = (place + np.array((0, shift)), mother)
        alive = {k: (place + rng.normal(0, 1.5, 2), parent) for k, (place, parent) in alive.items()}
        video.append(alive)
    return video


def tracks(seen: list[np.ndarray], parents: dict[int, int]) -> Lineage:
    """Makes the rows of labels that occur in a gap-free run of frames."""
    spans: dict[int, list[int]] = {}
    for frame, labels in enumerate(seen):
        for label in labels:
            spans.setdefault(int(label), []).append(frame)
    return {k: Track(k, v[0], v[-1], parents.get(k, 0)) for k, v in spans.items()}


def write_video(root: Path, frames: int, size: int) -> tuple[Path, Path]:
    """Writes 01_RES and 01_GT and returns them."""
    rng = np.random.default_rng(0)
    video = simulate(frames, size, rng)
    result, truth = root / "01_RES", root / "01_GT"
    parents: dict[int, int] = {}
    seen_truth, seen_result = [], []
    with ResultWriter(result) as writer:
        for frame, cells in enumerate(video):
            parents |= {label: parent for label, (_, parent) in cells.items()}
            mask = draw(size, {label: place for label, (place, _) in cells.items()})
            write_image(truth / "SEG" / f"man_seg{frame:03d}.tif", mask)
            write_image(truth / "TRA" / f"man_track{frame:03d}.tif", mask)
            found = np.roll(mask, (1, 2), (0, 1)).astype(np.int64)
            found[found == 5] = 6 if frame < frames // 2 else 5  # merged for half of the time
            found[:, ::2][found[:, ::2] == 7] = 1007  # split
            found[found == 9] = 9 if frame < frames // 3 else 1009 if frame > frames // 2 else 0  # lost for a while
            found = np.where((found > 0) & (found % 10 == 0), found + 500 * (frame // 20), found)  # torn tracks
            found[2:12, 2:12] = 2000 + frame // 10  # spurious
            writer.write(frame, found)
            seen_truth.append(np.unique(mask[mask > 0]))
            seen_result.append(np.unique(found[found > 0]))
        kept = tracks(seen_result, parents)
        valid = {
            k: t if t.parent in kept and kept[t.parent].end < t.begin else t._replace(parent=0) for k, t in kept.items()
        }
        writer.finish(valid)
    write_tracks(truth / "TRA" / "man_track.txt", tracks(seen_truth, parents))
    return result, truth


def oracle(result: Path, truth: Path) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        return evaluate_sequence(str(result), str(truth), list(MEASURES), threads=1)


def graphs(result: Path, truth: Path) -> dict[str, float]:
    """What traccuracy makes of it."""
    with contextlib.redirect_stderr(io.StringIO()):
        found = load_ctc_data(str(result), str(result / "res_track.txt"), run_checks=False)
        wanted = load_ctc_data(str(truth / "TRA"), str(truth / "TRA/man_track.txt"), run_checks=False)
        return run_metrics(wanted, found, CTCMatcher(), [CTCMetrics()])[0][0]["results"]


def peak_memory(call: Callable[[], object]) -> float:
    """Peak of Python's and numpy's allocations during a call, in MB."""
    gc.collect()
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each")
    parser.add_argument("--frames", type=int, default=46)
    parser.add_argument("--size", type=int, default=1024)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    values: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        result, truth = write_video(Path(folder), args.frames, args.size)
        variants = {
            "ours": lambda: values.update(ours=evaluate(result, truth).values()),
            "traccuracy": lambda: values.update(traccuracy=graphs(result, truth)),
            "py-ctcmetrics": lambda: values.update({"py-ctcmetrics": oracle(result, truth)}),
        }
        times = take_turns(variants, args.rounds)
        peaks = {name: f"{peak_megabytes(call):.0f}" for name, call in variants.items()}
        half = peak_memory(lambda: evaluate(result, truth, frames=(0, args.frames // 2)))
        whole = peak_memory(lambda: evaluate(result, truth))
    ours, names = values["ours"], {name: name for name in [*MEASURES, "OP_CSB", "OP_CTB"]} | PAIRS
    print(f"{args.frames} frames of {args.size} x {args.size}; one thread, medians of {args.rounds} rounds in turn\n")
    rows = []
    for name, used in times.items():
        speed = "" if name == "ours" else f"x{ratio(used, times['ours']):.0f}"
        rows.append([name, f"{used.cpu_ms / 1e3:.2f}", f"{used.wall_ms / 1e3:.2f}", peaks[name], speed])
    table(["", "CPU s", "wall s", "peak MB", "ours is faster by"], rows)
    print(f"what ours allocates: {half:.1f} MB for {args.frames // 2} frames, {whole:.1f} MB for all\n")
    expected = values["py-ctcmetrics"]
    theirs = {name: float(values["traccuracy"][name]) for name in ("DET", "TRA")}
    table(
        ["value", "ours", "py-ctcmetrics", "traccuracy"],
        [
            [own, f"{ours[own]:.10g}", f"{float(expected[other]):.10g}", f"{theirs[own]:.10g}" if own in theirs else ""]
            for own, other in names.items()
        ],
    )
    worst = max(abs(ours[own] - float(expected[other])) for own, other in names.items())
    print(f"largest difference between ours and py-ctcmetrics: {worst:.1e}\n")
    print_targets([Target("measures over py-ctcmetrics", 50, ratio(times["py-ctcmetrics"], times["ours"]))])
    if worst > 1e-9:
        raise SystemExit("the values differ")


if __name__ == "__main__":
    main()
