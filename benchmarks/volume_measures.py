"""The Cell Tracking Challenge's measures of a video of volumes: voxels per second, ours beside py-ctcmetrics.

A simulated video of 8 volumes of 32 x 256 x 256 voxels with some hundred nuclei, written as zlib-compressed TIFF files
with truth and result as the challenge lays them out; the result has moved, missed, merged and spurious cells. Beside it
the same planes as frames of a 2-D video, without track tables. All read the files in one process and one thread and
take turns; times are medians. Stops if the values differ from those of py-ctcmetrics.

    python benchmarks/volume_measures.py [--rounds 3] [--frames 8] [--size 32 256 256]
"""

import argparse
import math
import tempfile
from pathlib import Path

from harness import Target, peak_megabytes, print_targets, ratio, table, take_turns

# isort: split
import numpy as np
from measures import MEASURES, PAIRS, oracle, tracks

from lightning_cells.data.ctc import frame_paths
from lightning_cells.data.image_files import read_mask, write_image
from lightning_cells.data.result_folder import ResultWriter
from lightning_cells.data.simulate import simulate
from lightning_cells.data.tracks import read_tracks
from lightning_cells.metrics.evaluate import evaluate


def write_volumes(root: Path, frames: int, size: tuple[int, int, int]) -> tuple[Path, Path]:
    """Writes 01_RES and 01_GT and returns them."""
    depth, height, width = size
    out = simulate(root / "volumes", sequences=1, frames=frames, size=(height, width), depth=depth)
    truth, result = out / "01_GT", out / "01_RES"
    parents = {row.label: row.parent for row in read_tracks(truth / "TRA/man_track.txt").values()}
    seen = []
    with ResultWriter(result) as writer:
        for frame, path in frame_paths(truth / "TRA", "man_track").items():
            found = np.roll(read_mask(path), (1, 1, 2), (0, 1, 2)).astype(np.int64)
            found[found % 10 == 3] = 0  # missed
            found[found % 10 == 5] += 1  # merged with whoever has that label
            found = np.where((found > 0) & (found % 7 == 0), found + 2000 * (frame // 3), found)  # torn tracks
            found[1, 2:12, 2:12] = 9000 + frame // 2  # spurious
            writer.write(frame, found)
            seen.append(np.unique(found[found > 0]))
        kept = tracks(seen, parents)
        broken = {label for label, row in kept.items() if row.end - row.begin + 1 != sum(label in s for s in seen)}
        assert not broken, broken
        writer.finish(
            {
                k: t if t.parent in kept and kept[t.parent].end < t.begin else t._replace(parent=0)
                for k, t in kept.items()
            }
        )
    return result, truth


def write_planes(root: Path, result: Path, truth: Path) -> tuple[Path, Path]:
    """Writes each plane of a video of volumes as a frame, and returns the folders of result and truth."""
    for source, to, prefix in (
        (result, "RES", "mask"),
        (truth / "SEG", "GT/SEG", "man_seg"),
        (truth / "TRA", "GT/TRA", "man_track"),
    ):
        planes = (plane for path in frame_paths(source, prefix).values() for plane in read_mask(path))
        for number, plane in enumerate(planes):
            write_image(root / to / f"{prefix}{number:04d}.tif", plane)
    return root / "RES", root / "GT"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of each")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, nargs=3, default=(32, 256, 256))
    args = parser.parse_args()
    voxels = args.frames * math.prod(args.size)
    values: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        result, truth = write_volumes(Path(folder), args.frames, tuple(args.size))
        planes, true_planes = write_planes(Path(folder, "flat"), result, truth)
        variants = {
            "ours": lambda: values.update(ours=evaluate(result, truth).values()),
            "py-ctcmetrics": lambda: values.update({"py-ctcmetrics": oracle(result, truth)}),
            "ours, planes as frames": lambda: evaluate(planes, true_planes),
        }
        times = take_turns(variants, args.rounds)
        peaks = {name: f"{peak_megabytes(call):.0f}" for name, call in variants.items()}
    size = " x ".join(map(str, args.size))
    print(f"{args.frames} volumes of {size}; one thread, medians of {args.rounds} rounds in turn\n")
    rows = [
        [
            name,
            f"{used.cpu_ms / 1e3:.2f}",
            f"{used.wall_ms / 1e3:.2f}",
            f"{voxels / used.cpu_ms / 1e3:.1f}",
            peaks[name],
        ]
        for name, used in times.items()
    ]
    table(["", "CPU s", "wall s", "million voxels per CPU s", "peak MB"], rows)
    ours, expected = values["ours"], values["py-ctcmetrics"]
    names = {name: name for name in [*MEASURES, "OP_CSB", "OP_CTB"]} | PAIRS
    table(
        ["value", "ours", "py-ctcmetrics"],
        [[own, f"{ours[own]:.10g}", f"{float(expected[other]):.10g}"] for own, other in names.items()],
    )
    worst = max(abs(ours[own] - float(expected[other])) for own, other in names.items())
    print(f"largest difference between ours and py-ctcmetrics: {worst:.1e}\n")
    print_targets(
        [
            Target("measures of volumes over py-ctcmetrics", 20, ratio(times["py-ctcmetrics"], times["ours"])),
            Target("volumes over their planes as frames", 1, ratio(times["ours, planes as frames"], times["ours"])),
        ]
    )
    if worst > 1e-9:
        raise SystemExit("the values differ")


if __name__ == "__main__":
    main()
