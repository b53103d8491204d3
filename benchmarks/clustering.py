"""Clustering embedded pixels: our mean shift beside a loop over scikit-learn's neighbour search, and its HDBSCAN.

The loop is what the published method's code does: one seed after the other, its neighbours by
`NearestNeighbors(metric="cosine")` in float32, their mean, until the seed rests. Both start from the same seeds on the
same synthetic embeddings of 2 frames of 256 x 256 pixels with about 100 000 foreground pixels: cells that tile the
frame, eight nearly orthogonal directions shared by cells that do not touch, an offset of each cell's own, blurred
borders and spatially correlated noise. One thread; times are process times, medians of rounds in which the variants
take turns; memory is the peak of the process above what it held before the call (Linux). Stops if the clusters differ
by more than the limits below.

HDBSCAN, the paper's alternative, takes time that grows with the square of the pixels, so corners of the same tile are
compared, against the true cells.

    python benchmarks/clustering.py [--quick] [--rounds 5]
"""

import argparse
import statistics
import time
from collections.abc import Callable

from harness import Target, peak_megabytes, print_targets, ratio, table, take_turns

# isort: split
import numpy as np
import torch
from scipy import ndimage
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from lightning_cells.instances.clustering import Clustering, pixel_codes
from lightning_cells.instances.embedding import EmbeddingDecoder, foreground_mask
from lightning_cells.instances.hdbscan import HDBSCAN
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


def scikit_labels(embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The loop from the seeds of `MeanShift()` with its bandwidth and weight."""
    codes = pixel_codes(embeddings, mask, 0.005).T.contiguous().numpy()
    found = scikit_loop(codes, codes[shuffle(len(codes), 0)[:128]], 0.1)
    return torch.zeros(mask.shape, dtype=torch.int32).masked_scatter_(mask, torch.from_numpy(found + 1).int())


def compare(cells: int, noise: float, rounds: int) -> tuple[list[str], list[float], bool]:
    """One row of the table, how much faster exact and fast are, and whether clusters are as alike as they should be."""
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
    memory = [peak_megabytes(lambda call=variant: call(embeddings, mask)) for variant in variants.values()]
    seconds = {name: statistics.median(times) for name, times in used.items()}
    instances = {name: EmbeddingDecoder().split(labels).ravel() for name, labels in found.items()}

    speeds = [seconds["loop"] / seconds[name] for name in ("exact", "fast")]
    row = [str(cells), f"{noise:g}", str(int(mask.sum())), f"{seconds['loop']:.2f}"]
    alike = {}
    for name, speed in zip(("exact", "fast"), speeds, strict=True):
        alike[name] = adjusted_rand_score(found["loop"][mask], found[name][mask])
        inst = adjusted_rand_score(instances["loop"], instances[name])
        row += [f"{seconds[name]:.3f}", f"x{speed:.0f}", f"{alike[name]:.5f} ({inst:.4f})"]
    row.append(" / ".join(f"{peak:.0f}" for peak in memory))
    good = alike["exact"] >= EXACT_ARI and (noise > FAST_NOISE or alike["fast"] >= FAST_ARI)
    return row, speeds, good


def beside_hdbscan(sides: list[int], rounds: int) -> None:
    """Corners of a tile with 25 cells."""
    rng = np.random.default_rng(25)
    truth = voronoi(25, 256, rng)
    embeddings = embed(truth, 0.05, rng)
    rows = []
    for side in sides:
        corner = embeddings[..., :side, :side].contiguous()
        mask, cells = foreground_mask(corner), truth[:, :side, :side]
        found: dict[str, np.ndarray] = {}

        def call(name: str, method: Clustering, corner=corner, mask=mask, found=found) -> None:
            found[name] = EmbeddingDecoder(clustering=method).split(method(corner, mask))

        methods = {"mean shift, exact": MeanShift(algorithm="exact"), "HDBSCAN": HDBSCAN()}
        variants = {name: lambda name=name, method=method: call(name, method) for name, method in methods.items()}
        times = take_turns(variants, rounds)
        for name, used in times.items():
            alike = adjusted_rand_score(cells[mask], found[name][mask])
            speed = f"x{ratio(times['HDBSCAN'], used):.0f}"
            rows.append([f"{side} x {side}", int(mask.sum()), name, f"{used.cpu_ms / 1e3:.3f}", speed, f"{alike:.3f}"])
    print("\n### Beside HDBSCAN, 25 cells, noise 0.05\n")
    table(["corner", "pixels", "by", "CPU s", "speed-up", "ARI with the true cells"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each")
    parser.add_argument("--quick", action="store_true", help="two cases, one round")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cases = [(25, 0.05), (25, 0.1), (100, 0.05), (100, 0.1), (400, 0.05), (400, 0.2)]
    if args.quick:
        cases, args.rounds = [(25, 0.05), (400, 0.1)], 1
    print(f"one thread, CPU seconds, medians of {args.rounds} interleaved rounds (5 calls of ours in each)")
    print("ARI against the loop: of clusters, in brackets of instances; MB of loop / exact / fast above the input\n")
    rows, exact, fast, wrong = [], [], [], []
    with threadpool_limits(1):
        for cells, noise in cases:
            row, speeds, good = compare(cells, noise, args.rounds)
            rows.append(row)
            exact.append(speeds[0])
            if noise <= FAST_NOISE:  # beyond, it falls back to exact
                fast.append(speeds[1])
            if not good:
                wrong.append((cells, noise))
        columns = ["cells", "noise", "pixels", "loop s", "exact s", "ratio", "ARI", "fast s", "ratio", "ARI", "MB"]
        table(columns, rows)
        beside_hdbscan([32, 64] if args.quick else [32, 64, 96], args.rounds)
    print_targets(
        [
            Target("clustering, exact, over scikit-learn: worst case", 15, min(exact)),
            Target("clustering, fast, over scikit-learn: median where it applies", 100, statistics.median(fast)),
        ]
    )
    if wrong:
        raise SystemExit(f"the clusters differ too much (cells, noise): {wrong}")


if __name__ == "__main__":
    main()
