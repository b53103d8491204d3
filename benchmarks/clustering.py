"""Clustering embedded pixels: our mean shift beside a loop over scikit-learn's neighbour search.

The loop is what the published method's code does: one seed after the other, its neighbours by
`NearestNeighbors(metric="cosine")`, their mean, until the seed rests. Both start from the same seeds on the same
synthetic embeddings of 2 frames of 256 x 256 pixels with about 100 000 foreground pixels: cells that tile the frame,
eight nearly orthogonal directions shared by cells that do not touch, an offset of each cell's own, blurred borders and
spatially correlated noise. One thread; times are process times, medians of rounds in which the variants take turns;
memory is the peak above the input. Stops if the clusters differ by more than the limits below.

    python benchmarks/clustering.py [--quick] [--rounds 3]
"""

import argparse
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
from lightning_cells.instances.mean_shift import MeanShift, draw_seeds

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of each")
    parser.add_argument("--quick", action="store_true", help="one small and one large case, one round")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cases = [(25, 0.05), (400, 0.1)] if args.quick else [(n, s) for n in (25, 100, 400) for s in (0.02, 0.05, 0.1, 0.2)]
    rounds = 1 if args.quick else args.rounds
    print(f"one thread, CPU seconds, medians of {rounds} interleaved rounds; ARI against the loop's clusters,")
    print("in brackets that of the instances; MB above the input\n")
    print(
        "| cells | noise | pixels | loop s | exact s | ratio | ARI | fast s | ratio | ARI | loop MB | exact MB | fast MB |"
    )
    print("|" + "---|" * 13)
    wrong = []
    with threadpool_limits(1):
        for cells, noise in cases:
            rng = np.random.default_rng(cells)
            embeddings = embed(voronoi(cells, 256, rng), noise, rng)
            mask = foreground_mask(embeddings)
            clusterings = {name: MeanShift(algorithm=name) for name in ("exact", "fast")}

            def loop(embeddings: torch.Tensor = embeddings, mask: torch.Tensor = mask) -> torch.Tensor:
                codes = pixel_codes(embeddings, mask, 0.005).T.contiguous().numpy()
                labels = torch.zeros(mask.shape, dtype=torch.int32)
                labels[mask] = (
                    torch.from_numpy(scikit_loop(codes, codes[draw_seeds(len(codes), 128, 0)], 0.1)).int() + 1
                )
                return labels

            calls = {"loop": loop}
            calls |= {name: lambda c=c, e=embeddings, m=mask: c(e, m) for name, c in clusterings.items()}
            used: dict[str, list[float]] = {name: [] for name in calls}
            found: dict[str, torch.Tensor] = {}
            memory = {name: peak_memory(call) for name, call in calls.items()}
            for _ in range(rounds):
                for name, call in calls.items():
                    for _ in range(1 if name == "loop" else 3):
                        start = time.process_time()
                        found[name] = call()
                        used[name].append(time.process_time() - start)
            seconds = {name: statistics.median(times) for name, times in used.items()}
            ari = {n: adjusted_rand_score(found["loop"][mask], found[n][mask]) for n in clusterings}
            cells_of = {n: EmbeddingDecoder(clustering=c).split(found[n]) for n, c in clusterings.items()}
            cells_of["loop"] = EmbeddingDecoder().split(found["loop"])
            same = {n: adjusted_rand_score(cells_of["loop"].ravel(), cells_of[n].ravel()) for n in clusterings}
            row = [str(cells), f"{noise:g}", f"{int(mask.sum())}", f"{seconds['loop']:.2f}"]
            for n in clusterings:
                row += [f"{seconds[n]:.3f}", f"x{seconds['loop'] / seconds[n]:.0f}", f"{ari[n]:.5f} ({same[n]:.4f})"]
            row += [f"{memory[n]:.0f}" for n in calls]
            print("| " + " | ".join(row) + " |", flush=True)
            if ari["exact"] < EXACT_ARI or (noise <= FAST_NOISE and ari["fast"] < FAST_ARI):
                wrong.append((cells, noise))
    if wrong:
        raise SystemExit(f"the clusters differ: {wrong}")


if __name__ == "__main__":
    main()
