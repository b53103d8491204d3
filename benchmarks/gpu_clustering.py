"""Clustering on a device: a tile of 256 x 256 pixels in two frames, there and on the CPU."""

from functools import partial

import numpy as np
import torch
from clustering import embed, voronoi
from gpu_steps import Note, attempt, timed

from lightning_cells.instances.embedding import EmbeddingDecoder, foreground_mask
from lightning_cells.instances.mean_shift import MeanShift


def measure(note: Note, cuda: bool, rounds: int, deadline: float) -> None:
    """Milliseconds of each algorithm and of the whole decoder, and whether both devices find the same clusters."""
    for number in (25, 400) if cuda else (25,):
        rng = np.random.default_rng(number)
        embeddings = embed(voronoi(number, 256 if cuda else 96, rng), 0.05, rng)
        calls = {"exact": MeanShift(algorithm="exact"), "fast": MeanShift(algorithm="fast")}
        found = {}
        for place in ("cuda", "cpu") if cuda else ("cpu",):
            there = embeddings.to(place)
            mask = foreground_mask(there)
            found[place] = {name: call(there, mask).cpu() for name, call in calls.items()}
            variants = {name: partial(call, there, mask) for name, call in calls.items()}
            variants["decoder"] = partial(EmbeddingDecoder(), there)
            for name, call in variants.items():
                attempt(note, deadline, partial(timed, call, rounds), cells=number, algorithm=name, place=place)
        for name in calls if cuda else ():
            same = (found["cuda"][name] == found["cpu"][name]).float().mean()
            note(cells=number, algorithm=name, place="both", same=round(float(same), 6))


def peaks(cuda: bool) -> dict[str, float]:
    """TFLOP/s of a large matrix product, by precision."""
    side, device = (8192, "cuda") if cuda else (256, "cpu")
    found = {}
    for name, dtype, tf32 in (
        ("float32", torch.float32, False),
        ("TF32", torch.float32, True),
        ("bfloat16", torch.bfloat16, True),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a = torch.randn(side, side, device=device, dtype=dtype)
        found[name] = round(2 * side**3 / timed(partial(torch.mm, a, a), 5)["wall_ms"] / 1e9, 3)
    return found
