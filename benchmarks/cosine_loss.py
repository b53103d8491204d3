"""The cosine embedding loss: ours, from second moments, beside a plain loop over the cells.

Forward and backward over 8 frames of 256 x 256 pixels with 16 dimensions. The loop compares the mean embedding of each
cell with all pixels and averages over those of the cell and of its neighbours. Both get the same neighbours, found
beforehand as in training; what that takes is listed, too. One thread, one process, medians; the loop over 100 cells
runs once. Stops if the values differ.

    python benchmarks/cosine_loss.py [--rounds 5]
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional as F

from lightning_cells.data.neighbours import CosineTarget
from lightning_cells.losses.cosine_embedding import CosineEmbeddingLoss

FRAMES, SIZE, DIMS, RADIUS = 8, 256, 16, 50.0
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def cells(number: int, seed: int = 0) -> np.ndarray:
    """Cells that touch, move and cover about two thirds of the frames, (T,H,W)."""
    rng = np.random.default_rng(seed)
    centres, steps = rng.uniform(0, SIZE, (number, 2)), rng.normal(0, 1, (number, 2))
    grid = np.stack(np.mgrid[:SIZE, :SIZE], -1)
    labels = np.zeros((FRAMES, SIZE, SIZE), np.int32)
    for t, frame in enumerate(labels):
        distance, nearest = cKDTree(centres + t * steps).query(grid)
        frame[:] = np.where(distance < 0.62 * SIZE / number**0.5, nearest + 1, 0)
    return labels


def plain_loop(embeddings: Tensor, labels: Tensor, neighbours: Tensor) -> Tensor:
    """The loss of one clip (1,T,D,H,W), cell by cell."""
    ids, pairs = labels.flatten(), neighbours[0][neighbours[0, :, 0] > 0]
    raw = embeddings[0].movedim(1, 0).flatten(1)
    unit = F.normalize(raw, dim=0)
    axis, background, found = unit[0].square(), ids == 0, ids.unique()
    loss = 1 - axis[background].mean() + axis[~background].mean()
    found = found[found > 0]
    for i in found:
        own = ids == i
        cosines = (F.normalize(raw[:, own].mean(1), dim=0) @ unit).square()
        part = 1 - cosines[own].mean()
        others = pairs[pairs[:, 0] == i, 1]
        if len(others):
            part = part + cosines[torch.isin(ids, others)].mean()
        loss = loss + part / len(found)
    return loss


class Variant:
    """One way to compute the loss of one clip, and what it took."""

    def __init__(self, name: str, loss: Loss, number: int) -> None:
        self.name, self.loss, self.number = name, loss, number
        labels = cells(number)
        start = time.process_time()
        target = CosineTarget(RADIUS)(labels)["neighbours"]
        self.target_s = time.process_time() - start
        self.arguments = torch.from_numpy(labels)[None], torch.from_numpy(target)[None]
        frames = torch.randn(FRAMES, DIMS, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        frames = frames.to(memory_format=torch.channels_last)  # as networks on a GPU or with bfloat16 give them
        self.embeddings = frames[None].requires_grad_()
        self.wall: list[float] = []
        self.used: list[float] = []

    def run(self) -> None:
        """Computes value and gradient once, timed."""
        self.embeddings.grad = None
        start, start_used = time.perf_counter(), time.process_time()
        loss = self.loss(self.embeddings, *self.arguments)
        loss.backward()
        self.wall.append(time.perf_counter() - start)
        self.used.append(time.process_time() - start_used)
        self.value = loss.item()
        self.gradient = self.embeddings.grad

    def saved(self) -> float:
        """Megabytes that the forward pass keeps for the backward pass."""
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = self.loss(self.embeddings, *self.arguments)
        del loss
        return sum(kept.values()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each variant, at least 3")
    rounds = max(parser.parse_args().rounds, 3)
    torch.set_num_threads(1)
    ours = {number: Variant("ours", CosineEmbeddingLoss(), number) for number in (30, 100, 500)}
    loops = {number: Variant("plain loop", plain_loop, number) for number in (30, 100)}
    for block in range(rounds + 1):
        for variant in (loops[30], *ours.values()):
            variant.run()
            if not block:  # the first warms up
                variant.wall.clear()
                variant.used.clear()
    loops[100].run()

    print(f"{FRAMES} frames of {SIZE} x {SIZE}, {DIMS} dimensions, forward and backward; one thread, medians of")
    print(f"{rounds} rounds in turn, the loop over 100 cells once\n")
    print("| cells | variant | wall s | CPU s | speed-up (CPU) | kept for backward MB | neighbours ms |")
    print("|---|---|---|---|---|---|---|")
    for number, variant in ours.items():
        loop = loops.get(number)
        if loop:
            difference = (variant.gradient - loop.gradient).norm() / loop.gradient.norm()
            if abs(variant.value - loop.value) > 1e-5 or difference > 1e-4:
                raise SystemExit(f"the loop gives {loop.value}, ours {variant.value}; gradients differ by {difference}")
        for each in filter(None, (loop, variant)):
            wall, used = statistics.median(each.wall), statistics.median(each.used)
            ratio = f"x{statistics.median(loop.used) / used:.1f}" if loop else ""
            print(
                f"| {number} | {each.name} | {wall:.3f} | {used:.3f} | {ratio} | {each.saved():.0f} "
                f"| {each.target_s * 1e3:.0f} |"
            )


if __name__ == "__main__":
    main()
