"""Base of the methods that segment each frame by itself, with any network, and leave tracking to a linker."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_cells.data.clips import Clip
from lightning_cells.errors import InputError
from lightning_cells.instances.components import Decoder
from lightning_cells.instances.linkers import Linker
from lightning_cells.instances.tiling import Tiling
from lightning_cells.methods.colours import class_colours
from lightning_cells.methods.objectives import Objective
from lightning_cells.methods.optimisation import Optimization
from lightning_cells.methods.segmented import SegmentingMethod, few_at_once
from lightning_cells.networks.architectures import Architecture

_PADDING = 16  # pixels mirrored around a frame at inference, so that its border is seen like its middle
_SMALLEST_TILE = 32  # pixels


class FrameMethod(SegmentingMethod):
    """Frame -> class probabilities -> cells -> tracks.

    The frames of a clip are a batch like any other: ``data.clip_length`` is 1 unless several of a video are wanted.
    The constructor of a subclass calls this one and then `remember`.

    Args:
        network: which network to build.
        loss: what it is trained for.
        optimization: how it is trained.
        decoder: class probabilities -> cells.
        linker: cells of consecutive frames -> tracks.
        tile: side of the overlapping tiles into which larger frames are cut at inference, in pixels; None takes
            whole frames.

    Raises:
        InputError: if tiles are too small to overlap.
    """

    def __init__(
        self,
        network: Architecture,
        loss: Objective,
        optimization: Optimization,
        decoder: Decoder,
        linker: Linker,
        tile: int | None = None,
    ) -> None:
        super().__init__()
        if tile is not None and tile < _SMALLEST_TILE:
            raise InputError(f"model.tile={tile}: must be at least {_SMALLEST_TILE} pixels, or null for whole frames")
        self.network = network.build(len(loss.names))
        self.clip_target = loss.target
        self.objective, self.loss = loss, loss.build()
        self.optimization = optimization
        self.decoder = decoder
        self.linker = linker
        self.tile = tile

    def training_step(self, clip: Clip, batch_idx: int) -> Tensor | None:
        """One batch of frames."""
        logits = self.network(clip.frames.flatten(0, 1)).unflatten(0, clip.frames.shape[:2])
        loss = self.loss(logits, **self.objective.truth(clip))
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(clip.frames))
        return loss

    def forward(self, frames: Tensor) -> Tensor:
        """Class probabilities, float32 (T, C, H, W), of float32 (T, 1, H, W) frames.

        Tiles see some pixels around them. Where they overlap, their probabilities are averaged; the nearer a tile's
        side, the less it counts.
        """
        height, width = frames.shape[-2:]
        fits = min(height, width) > _PADDING
        padded = F.pad(frames, [_PADDING] * 4, mode="reflect" if fits else "replicate")
        if self.tile is None or max(height, width) <= self.tile:
            return self._inner(padded)
        overlap = self.tile // 4
        total, weights = None, frames.new_zeros(height, width)
        for rows, columns in Tiling(tile=self.tile, overlap=overlap, margin=0).layout((height, width)):
            window = padded[..., rows.start : rows.stop + 2 * _PADDING, columns.start : columns.stop + 2 * _PADDING]
            probabilities = self._inner(window)
            if total is None:
                total = probabilities.new_zeros(*probabilities.shape[:2], height, width)
            weight = _ramp(rows, overlap, total)[:, None] * _ramp(columns, overlap, total)
            total[..., rows, columns] += weight * probabilities
            weights[rows, columns] += weight
        assert total is not None
        return total / weights

    def _inner(self, padded: Tensor) -> Tensor:
        """Class probabilities of frames without the padding around them."""
        inside = ..., slice(_PADDING, -_PADDING), slice(_PADDING, -_PADDING)
        return torch.cat([self.network(part)[inside].float().softmax(1) for part in few_at_once(padded)])

    def picture(self, frames: Tensor) -> np.ndarray:
        """Draws the class probabilities of the last of some frames, float32 (T, 1, h, w): uint8 (h, w, 3)."""
        return class_colours(self(frames[-1:])[0])

    def probabilities(self, frames: Tensor, state: Any) -> tuple[Tensor, None]:
        """Class probabilities, float32 (B, T, C, h, w), of float32 (B, T, 1, h, w) frames; there is no state."""
        return self(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]), None


def _ramp(span: slice, overlap: int, like: Tensor) -> Tensor:
    """Weights of a tile's pixels along one side: rising over the overlap from either end."""
    place = torch.arange(span.stop - span.start, dtype=like.dtype, device=like.device)
    return torch.minimum(place, place.flip(0)).clamp(max=overlap) + 1
