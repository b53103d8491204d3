"""The cosine embedding loss: ours, from second moments, beside a plain loop over the cells.

Forward and backward over 8 frames of 256 x 256 pixels with 16 dimensions. The loop compares the mean embedding of each
cell with all pixels and averages over those of the cell and of its neighbours. Both get the same neighbours, found
beforehand as in training; what that takes is listed, too. One thread, one process, medians; the loop over 100 cells
runs twice, over 500 never. Stops if the values differ.

    python benchmarks/cosine_loss.py [--rounds 5]
"""

import argparse
import time
from collections.abc import Callable

from harness import Target, peak_megabytes, print_targets, ratio, saved_megabytes, table, take_turns

# isort: split
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
    """One way to compute the loss of one clip."""

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

    def forward(self) -> Tensor:
        """The loss."""
        return self.loss(self.embeddings, *self.arguments)

    def __call__(self) -> None:
        """Computes value and gradient."""
        self.embeddings.grad = None
        loss = self.forward()
        loss.backward()
        self.value = loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each variant, at least 3")
    rounds = max(parser.parse_args().rounds, 3)
    torch.set_num_threads(1)
    ours = {f"{number} cells, ours": Variant("ours", CosineEmbeddingLoss(), number) for number in (30, 100, 500)}
    loops = {f"{number} cells, plain loop": Variant("plain loop", plain_loop, number) for number in (30, 100)}
    few, many = loops
    times = take_turns({few: loops[few], **ours}, rounds) | take_turns({many: loops[many]}, 1)

    print(
        f"{FRAMES} frames of {SIZE} x {SIZE}, {DIMS} dimensions, forward and backward; one thread, medians of {rounds}"
    )
    print("rounds in turn, the loop over 100 cells once after a first one\n")
    rows, targets = [], []
    for name, variant in (ours | loops).items():
        used, own = times[name], times[f"{variant.number} cells, ours"]
        saved, speed = saved_megabytes(variant.forward), ""
        if variant.name == "plain loop":
            same = ours[f"{variant.number} cells, ours"]
            difference = float((variant.embeddings.grad - same.embeddings.grad).norm() / variant.embeddings.grad.norm())
            if abs(variant.value - same.value) > 1e-5 or difference > 1e-4:
                raise SystemExit(f"the loop gives {variant.value}, ours {same.value}; gradients differ by {difference}")
            wanted = {30: 8, 100: 20}[variant.number]
            targets.append(Target(f"loss of {variant.number} cells over a loop", wanted, ratio(used, own)))
            speed = f"x{ratio(used, own):.1f}"
        elif variant.number == 100:
            targets.append(Target("loss of 100 cells, kept for backward", 100, saved, "MB", at_least=False))
        peak = peak_megabytes(variant)
        row = [name, f"{used.cpu_ms:.0f}", f"{used.wall_ms:.0f}", speed, f"{saved:.0f}", f"{peak:.0f}"]
        rows.append([*row, f"{variant.target_s * 1e3:.0f}"])
    columns = ["loss", "CPU ms", "wall ms", "ours is faster by", "kept for backward MB", "peak MB", "neighbours ms"]
    table(columns, rows)
    print_targets(targets)


if __name__ == "__main__":
    main()
