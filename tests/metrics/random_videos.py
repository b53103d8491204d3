"""Random videos of labels, what they become in the hands of a bad segmenter, and what py-ctcmetrics says of that."""

import contextlib
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from ctc_metrics.scripts.evaluate import evaluate_sequence

from lightning_cells.data.tracks import Lineage, Track
from lightning_cells.errors import InputError
from lightning_cells.metrics.ctc_measures import CTCCounts, CTCMatcher
from lightning_cells.metrics.evaluate import evaluate


def tidy(masks: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Lineage]:
    """Gives every gap-free piece of a label its own label, and random parents to some."""
    out, rows, label = np.zeros_like(masks), [], 0
    for old in np.unique(masks[masks > 0]):
        present = [int(t) for t in range(len(masks)) if (masks[t] == old).any()]
        pieces = np.split(present, np.flatnonzero(np.diff(present) > 1) + 1)
        for piece in pieces:
            label += 1
            for t in piece:
                out[t][masks[t] == old] = label
            rows.append((label, int(piece[0]), int(piece[-1])))
    names = rng.permutation(np.arange(1, 4 * label + 2))[:label]  # labels with holes, in no order
    table = np.concatenate([[0], names]).astype(masks.dtype)
    lineage = {}
    for row, begin, end in rows:
        ended = [other for other, _, last in rows if last < begin]
        recent = [other for other, _, last in rows if last == begin - 1]
        choice = rng.random()
        parent = 0
        if choice < 0.5 and recent:
            parent = int(table[rng.choice(recent)])
        elif choice < 0.65 and ended:
            parent = int(table[rng.choice(ended)])  # after a gap
        lineage[int(table[row])] = Track(int(table[row]), begin, end, parent)
    return table[out], lineage


def draw_truth(rng: np.random.Generator, size: tuple[int, ...] = (20, 20)) -> np.ndarray:
    """Boxes that move, come and go; the first row, or plane, stays background."""
    masks = np.zeros((int(rng.integers(2, 7)), *size), np.uint16)
    axes = len(size)
    for label in range(1, int(rng.integers(2, 9))):
        at, step, extent = rng.integers(1, 16, axes), rng.integers(-2, 3, axes), rng.integers(1, 7, axes)
        for t in range(len(masks)):
            low = np.clip(np.minimum(at, size) + t * step, 1, size)
            if rng.random() < 0.9:
                masks[(t, *(slice(a, a + n) for a, n in zip(low, extent, strict=True)))] = label
    return masks


def spoil(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Misses, merges, splits, swaps, moves and invents cells."""
    masks = truth.copy()
    labels = np.unique(truth)[1:]
    for _ in range(int(rng.integers(0, 7))):
        if not labels.size:
            break
        a, b = rng.choice(labels, 2)
        start, stop = np.sort(rng.integers(0, len(masks) + 1, 2))
        part = masks[start:stop]
        edit = rng.integers(6)
        if edit == 0:
            part[part == a] = 0
        elif edit == 1:
            part[part == a] = b
        elif edit == 2:
            part[..., ::2][part[..., ::2] == a] = 90 + a
        elif edit == 3:
            first, second = part == a, part == b
            part[first], part[second] = b, a
        elif edit == 4:
            part[:, 1:] = np.roll(part[:, 1:], rng.integers(-2, 3, 2), (1, 2))
        else:
            y, x = rng.integers(1, masks.shape[-1] - 3, 2)
            part[..., y : y + 2, x : x + 3] = 80 + a
    return masks


def write_video(folder: Path, prefix: str, masks: np.ndarray, lineage: Lineage, table: str) -> None:
    folder.mkdir(parents=True)
    for t, mask in enumerate(masks):
        tifffile.imwrite(folder / f"{prefix}{t:03d}.tif", mask, photometric="minisblack")
    (folder / table).write_text("".join(f"{r.label} {r.begin} {r.end} {r.parent}\n" for r in lineage.values()))


def oracle(folder, truth, truth_lineage, seg, result, result_lineage) -> dict[str, float]:
    """Measures by py-ctcmetrics; seg maps frame -> mask."""
    write_video(folder / "01_GT" / "TRA", "man_track", truth, truth_lineage, "man_track.txt")
    write_video(folder / "01_RES", "mask", result, result_lineage, "res_track.txt")
    (folder / "01_GT" / "SEG").mkdir()
    for t, mask in seg.items():
        tifffile.imwrite(folder / "01_GT" / "SEG" / f"man_seg{t:03d}.tif", mask, photometric="minisblack")
    names = ["Valid", "SEG", "DET", "TRA", "LNK"] if seg else ["Valid", "DET", "TRA", "LNK"]
    with warnings.catch_warnings(), contextlib.suppress(ZeroDivisionError):
        warnings.simplefilter("ignore")
        return evaluate_sequence(str(folder / "01_RES"), str(folder / "01_GT"), names, threads=1)
    return {}


def ours(truth, truth_lineage, seg, result, result_lineage) -> CTCCounts:
    matcher = CTCMatcher()
    for t in range(len(result)):
        matcher.update(t, result[t], seg.get(t), truth[t])
    return matcher.compute(result_lineage, truth_lineage)


def same(value: float, expected: float) -> bool:
    return math.isnan(value) if math.isnan(expected) else abs(value - expected) < 1e-9


def compare(counts: CTCCounts, expected: dict[str, float]) -> None:
    values = counts.values()
    for name in {"SEG", "DET", "TRA", "LNK"} & expected.keys():
        if name == "SEG" and not counts.seg_cells:
            assert math.isnan(values["SEG"])  # py-ctcmetrics says 0 of 0 cells is 0
            continue
        assert same(values[name], expected[name]), name
    for name in ("NS", "FN", "FP", "ED", "EA", "EC"):
        assert values[name] == expected[f"AOGM_{name}"], name


def told(video: Path) -> str:
    """What is said against the result of a folder or its truth: one line, which begins with a file."""
    with pytest.raises(InputError) as error:
        evaluate(video / "01_RES", video / "01_GT")
    assert str(error.value).startswith(str(video))
    assert "\n" not in str(error.value)
    return str(error.value)
