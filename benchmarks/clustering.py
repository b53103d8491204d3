"""Clustering embedded pixels: our mean shift beside a loop over scikit-learn's neighbour search.

The loop is what the published method's code does: one seed after the other, its neighbours by
`NearestNeighbors(metric="cosine")` in float32, their mean, until the seed rests. Both start from the same seeds on the
same synthetic embeddings of 2 frames of 256 x 256 pixels with about 100 000 foreground pixels: cells that tile the
frame, eight nearly orthogonal directions shared by cells that do not touch, an offset of each cell's own, blurred
borders and spatially correlated noise. One thread; times are process times, medians of rounds in which the variants
take turns; memory is the peak of the process above what it held before the call (Linux). Stops if the clusters differ
by more than the limits below.

    python benchmarks/clustering.py [--quick] [--rounds 3]
"""

import argparse
import ctypes
import os
import statistics
import threading
import time
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import psutil
import torch
from scipy import ndimage
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from lightning_cells.instances.clustering import pixel_codes
from lightning_cells.instances.embedding import EmbeddingDecoder, foreground_mask
from lightning_cells.instances.mean_shift import MeanShift, shuffle

EXACT_ARI, FAST_ARI, FAST_NOISE = 0.9999, 0.99, 0.1  # asserted: of exact everywhere, of fast up to that noise


def voronoi(cells: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Cells around jittered points of a loose grid in 2 frames, (2, H, W) labels, 0 where all points are far."""
    side = int(np.ceil(np.sqrt(cells)))
    grid = (np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)[:cells] + 0.5) * size / side
    points = grid + rng.uniform(-0.25, 0.25, grid.shape) * size / side
    warp = [ndimage.gaussian_filter(rng.normal(size=(size, size)), 8, mode="wrap") for _ in range(2)]
    y, x = (axis + 3 * shift / shift.std() for axis, shift in zip(np.mgrid[:size, :size], warp, strict=True))
    labels = []
    for frame in range(2):
        moved = points + frame * rng.normal(0, 1.5, points.shape)
        distance = np.stack([np.hypot(y - a, x - b) for a, b in moved])
        labels.append(np.where(distance.min(0) < 0.56 * size / side, distance.argmin(0) + 1, 0))
    return np.stack(labels)


def colours(labels: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Greedy colouring: cells within 3 pixels of each other differ where a colour is left, (K + 1,)."""
    count = labels.max() + 1
    near = np.zeros((count, count), bool)
    for image in labels:
        for dy in range(-3, 4):
            for dx in range(-3, 4):
                near[image.ravel(), np.roll(image, (dy, dx), (0, 1)).ravel()] = True
    chosen = np.full(count, -1)
    for cell in range(1, count):
        taken = set(chosen[1:][near[cell, 1:]].tolist())
        chosen[cell] = rng.choice([c for c in range(number) if c not in taken] or number)
    return chosen


def embed(labels: np.ndarray, noise: float, rng: np.random.Generator, depth: int = 16, number: int = 8) -> torch.Tensor:
    """(2, D, H, W) float32 of unit length: e1 for background, a direction for each colour."""
    directions = np.eye(depth)[: number + 1] + 0.03 * rng.normal(size=(number + 1, depth))
    directions[0] = np.eye(depth)[0]
    vectors = directions[colours(labels, number, rng) + 1]
    vectors[1:] += 0.03 * rng.normal(size=vectors[1:].shape)
    clean = vectors[labels] / np.linalg.norm(vectors[labels], axis=-1, keepdims=True)
    maps = ndimage.gaussian_filter(clean, (0, 0.8, 0.8, 0))
    correlated = ndimage.gaussian_filter(rng.normal(size=maps.shape), (0, 1, 1, 0))
    maps += noise * correlated / correlated.std()
    maps /= np.linalg.norm(maps, axis=-1, keepdims=True)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(maps, -1, 1), np.float32))


def scikit_loop(codes: np.ndarray, seeds: np.ndarray, bandwidth: float) -> np.ndarray:
    """Mean shift one seed at a time; codes (n, D), seeds (k, D), labels (n,)."""
    search = NearestNeighbors(radius=bandwidth, metric="cosine").fit(codes)
    modes: dict[tuple[float, ...], int] = {}
    for mean in seeds:
        for _ in range(300):
            inside = search.radius_neighbors(mean[None], return_distance=False)[0]
            before, mean = mean, codes[inside].mean(0)
            if np.linalg.norm(mean - before) < 1e-3 * bandwidth:
                break
        modes[tuple(mean)] = len(inside)
    ranked = np.array(sorted(modes, key=lambda mode: (modes[mode], mode), reverse=True))
    near = NearestNeighbors(radius=bandwidth, metric="cosine").fit(ranked)
    unique = np.ones(len(ranked), bool)
    for rank, mode in enumerate(ranked):
        if unique[rank]:
            unique[near.radius_neighbors(mode[None], return_distance=False)[0]] = False
            unique[rank] = True
    nearest = NearestNeighbors(n_neighbors=1, metric="cosine").fit(ranked[unique])
    return nearest.kneighbors(codes, return_distance=False)[:, 0]


def peak_memory(call: Callable[[], object]) -> float:
    """Peak resident memory of a call above the memory before, in MB, sampled every millisecond."""
    process, done, seen = psutil.Process(), threading.Event(), []
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # or the call would reuse what others have freed

    def watch() -> None:
        while not done.wait(0.001):
            seen.append(process.memory_info().rss)

    before = process.memory_info().rss
    watcher = threading.Thread(target=watch)
    watcher.start()
    call()
    done.set()
    watcher.join()
    return (max([before, *seen]) - before) / 1e6


def scikit_labels(embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The loop from the seeds of `MeanShift()` with its bandwidth and weight."""
    codes = pixel_codes(embeddings, mask, 0.005).T.contiguous().numpy()
    found = scikit_loop(codes, codes[shuffle(len(codes), 0)[:128]], 0.1)
    return torch.zeros(mask.shape, dtype=torch.int32).masked_scatter_(mask, torch.from_numpy(found + 1).int())


def compare(cells: int, noise: float, rounds: int) -> tuple[str, bool]:
    """One row of the table, and whether the clusters are as alike as they should be."""
    rng = np.random.default_rng(cells)
    embeddings = embed(voronoi(cells, 256, rng), noise, rng)
    mask = foreground_mask(embeddings)
    variants: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
        "loop": scikit_labels,
        "exact": MeanShift(algorithm="exact"),
        "fast": MeanShift(algorithm="fast"),
    }
    used: dict[str, list[float]] = {name: [] for name in variants}
    found: dict[str, torch.Tensor] = {}
    for _ in range(rounds):
        for name, variant in variants.items():
            for _ in range(1 if name == "loop" else 5):
                start = time.process_time()
                found[name] = variant(embeddings, mask)
                used[name].append(time.process_time() - start)
    memory = [peak_memory(lambda call=variant: call(embeddings, mask)) for variant in variants.values()]
    seconds = {name: statistics.median(times) for name, times in used.items()}
    instances = {name: EmbeddingDecoder().split(labels).ravel() for name, labels in found.items()}

    row = [str(cells), f"{noise:g}", str(int(mask.sum())), f"{seconds['loop']:.2f}"]
    alike = {}
    for name in ("exact", "fast"):
        alike[name] = adjusted_rand_score(found["loop"][mask], found[name][mask])
        inst = adjusted_rand_score(instances["loop"], instances[name])
        row += [f"{seconds[name]:.3f}", f"x{seconds['loop'] / seconds[name]:.0f}", f"{alike[name]:.5f} ({inst:.4f})"]
    row.append(" / ".join(f"{peak:.0f}" for peak in memory))
    good = alike["exact"] >= EXACT_ARI and (noise > FAST_NOISE or alike["fast"] >= FAST_ARI)
    return "| " + " | ".join(row) + " |", good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of each")
    parser.add_argument("--quick", action="store_true", help="two cases, one round")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cases = [(n, noise) for n in (25, 100, 400) for noise in (0.02, 0.05, 0.1, 0.2)]
    if args.quick:
        cases, args.rounds = [(25, 0.05), (400, 0.1)], 1
    print(f"one thread, CPU seconds, medians of {args.rounds} interleaved rounds (5 calls of ours in each)")
    print("ARI against the loop: of clusters, in brackets of instances; MB of loop / exact / fast above the input\n")
    print("| cells | noise | pixels | loop s | exact s | ratio | ARI | fast s | ratio | ARI | MB |")
    print("|" + "---|" * 11)
    wrong = []
    with threadpool_limits(1):
        for cells, noise in cases:
            row, good = compare(cells, noise, args.rounds)
            print(row, flush=True)
            if not good:
                wrong.append((cells, noise))
    if wrong:
        raise SystemExit(f"the clusters differ too much (cells, noise): {wrong}")


if __name__ == "__main__":
    main()
