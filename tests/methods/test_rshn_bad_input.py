"""Training of the RSHN on whatever a clip may hold: the loss is a number, and so is every gradient."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lightning_cells.data.clips import Clip
from lightning_cells.methods import RSHN

SIZE = (67, 131)  # a multiple of nothing


def clip(labels: np.ndarray, frames: np.ndarray | None = None) -> Clip:
    """A batch of one clip, (T, H, W)."""
    method_target = RSHN(features=4, levels=2, neighbour_radius=20).clip_target
    pixels = np.random.default_rng(0).normal(size=labels.shape) if frames is None else frames
    target = {name: torch.from_numpy(value)[None] for name, value in method_target(labels).items()}
    return Clip(
        torch.from_numpy(pixels.astype(np.float32))[None, :, None],
        torch.from_numpy(labels)[None],
        None,
        target,
        torch.tensor([True]),
    )


def grid(count: int, size: tuple[int, int]) -> np.ndarray:
    """As many cells of 2 x 2 pixels, in rows."""
    labels = np.zeros(size, np.int32)
    places = [(y, x) for y in range(0, size[0] - 1, 3) for x in range(0, size[1] - 1, 3)][:count]
    assert len(places) == count
    for label, (y, x) in enumerate(places, 1):
        labels[y : y + 2, x : x + 2] = label
    return labels


def filled(value: int, frames: int = 2) -> np.ndarray:
    return np.full((frames, *SIZE), value, np.int32)


def halves() -> np.ndarray:
    labels = filled(1)
    labels[:, :, 60:] = 2
    return labels


def pixel() -> np.ndarray:
    labels = filled(0)
    labels[1, 3, 3] = 65535
    return labels


def markers() -> np.ndarray:
    labels = filled(-1)
    labels[:, 5:8, 5:8], labels[:, 30:33, 30:33] = -2, -3
    return labels


CASES = {
    "no cell": lambda: filled(0),
    "nothing known": lambda: filled(-1),
    "a cell as large as the crop": lambda: filled(7),
    "two that fill it": halves,
    "a single pixel": pixel,
    "markers alone": markers,
    "one frame": lambda: filled(0, 1) + grid(4, SIZE),
    "an empty frame between others": lambda: np.stack([grid(9, SIZE), filled(0, 1)[0], grid(9, SIZE)]),
    "two thousand cells": lambda: np.stack([grid(2000, (150, 150))] * 2),
}


@pytest.mark.parametrize("temporal", ["recurrent", "volumetric", "single-frame"])
@pytest.mark.parametrize("labels", CASES.values(), ids=CASES)
def test_any_clip_can_be_learnt_from(labels, temporal):
    torch.manual_seed(0)
    method = RSHN(features=4, levels=3, embedding=4, neighbour_radius=20, temporal=temporal)
    method.log = lambda *args, **options: None
    batch = clip(labels())
    loss = method.training_step(batch, 0)
    loss.backward()
    assert loss.isfinite()
    # weights of the recurrence have no gradient in the first frame, before which there is nothing
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    assert len(gradients) == len(list(method.parameters())) or (temporal, batch.labels.shape[1]) == ("recurrent", 1)
    assert all(g.isfinite().all() for g in gradients)
    known = (batch.labels != -1).any()
    assert any(g.any() for g in gradients) == bool(known), "what is unknown teaches nothing"


@pytest.mark.parametrize("value", [0.0, -1.0, 65504.0])
def test_constant_frames_can_be_learnt_from(value):
    torch.manual_seed(0)
    method = RSHN(features=4, levels=3, embedding=4, neighbour_radius=20)
    method.log = lambda *args, **options: None
    labels = np.stack([grid(9, SIZE)] * 2)
    loss = method.training_step(clip(labels, np.full(labels.shape, value)), 0)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in method.parameters())


@pytest.mark.parametrize(("precision", "safe"), [("bf16-mixed", True), ("32-true", False)])
def test_volumetric_layers_have_a_layout_whose_bfloat16_gradients_are_right(precision, safe):
    """Torch 2.13 leaves parts of the others' gradients unwritten; memory full of NaN makes that visible."""
    torch.manual_seed(0)
    method = RSHN(features=8, levels=3, embedding=4, neighbour_radius=20, temporal="volumetric")
    method._trainer = SimpleNamespace(precision=precision)
    method.log = lambda *args, **options: None
    method.on_fit_start()
    kernels = [p for p in method.network.parameters() if p.dim() == 5 and min(p.shape) > 1]
    assert kernels
    assert all(p.is_contiguous() == safe for p in kernels)
    batch = clip(grid(9, SIZE)[None].repeat(2, 0))
    for _ in range(10 if safe else 0):
        junk = [torch.full((200_000 + 1000 * k,), torch.nan) for k in range(20)]
        del junk
        with torch.autocast("cpu", torch.bfloat16):
            loss = method.training_step(batch, 0)
        method.zero_grad()
        loss.backward()
        assert all(p.grad.isfinite().all() for p in method.parameters())
