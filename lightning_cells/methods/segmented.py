"""Videos for methods that segment frame by frame and leave tracking to a linker."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cells.data.tracks import Lineage
from lightning_cells.instances.components import Decoder
from lightning_cells.instances.emptiness import is_empty
from lightning_cells.instances.linkers import FrameLinker
from lightning_cells.methods.base import Video

_VIEWS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))  # axes along which frames are mirrored
_PIXELS = 2**20  # that go through a network at once: enough to keep a GPU busy, and memory does not grow with frames


def few_at_once(frames: Tensor) -> tuple[Tensor, ...]:
    """Splits (T, 1, H, W) frames into parts of so few that a network's layers need little memory."""
    return frames.split(max(1, _PIXELS // (frames.shape[-2] * frames.shape[-1])))


class SegmentedVideo(Video):
    """Class probabilities -> cells -> tracks.

    Args:
        probabilities: float32 (T, 1, h, w) frames and the state after the frames before, None at the start -> (T, C,
            h, w) class probabilities and the new state.
        size: (H, W) on disk; probabilities are resampled to it before cells are cut out, which keeps outlines smooth.
        decoder: probabilities of a frame -> cells.
        linker: cells of consecutive frames -> tracks.

    Attributes:
        flips: whether probabilities are averaged over the frames and their mirror images, which takes four times as
            long; to be set before the first frame.
    """

    flips = False

    def __init__(
        self,
        probabilities: Callable[[Tensor, Any], tuple[Tensor, Any]],
        size: tuple[int, int],
        decoder: Decoder,
        linker: FrameLinker,
    ) -> None:
        self._probabilities = probabilities
        self._size = size
        self._decoder = decoder
        self._linker = linker
        self.state: Any = None

    @property
    def lineage(self) -> Lineage:
        """Rows of the tracks in the frames returned so far."""
        return self._linker.lineage

    def instances(self, frames: Tensor) -> list[np.ndarray]:
        """Finds the cells of the next frames, float32 (T, 1, h, w): int32 (H, W) each, 0 background."""
        probabilities = self.segment(frames).cpu().numpy()  # of all, as the next ones build on them
        nothing = np.zeros(self._size, np.int32)
        return [
            nothing if is_empty(frame) else self._decoder(said)
            for (frame,), said in zip(frames, probabilities, strict=True)
        ]

    @torch.no_grad()
    def segment(self, frames: Tensor) -> Tensor:
        """Class probabilities, float32 (T, C, H, W) at original size, of the next frames, float32 (T, 1, h, w)."""
        if self.flips:
            probabilities, self.state = self._averaged(frames, self.state)
        else:
            probabilities, self.state = self._probabilities(frames, self.state)
        probabilities = probabilities.float()
        if probabilities.shape[-2:] != self._size:
            probabilities = F.interpolate(probabilities, self._size, mode="bilinear", align_corners=False)
        return probabilities

    def _averaged(self, frames: Tensor, states: Any) -> tuple[Tensor, Any]:
        """Probabilities of the frames, each view of which has a state of its own."""
        total, after = torch.zeros(()), []
        for axes, state in zip(_VIEWS, states or [None] * len(_VIEWS), strict=True):
            probabilities, state = self._probabilities(frames.flip(axes), state)
            total = probabilities.float().flip(axes) + total.to(probabilities.device)
            after.append(state)
        return total / len(_VIEWS), tuple(after)

    def link(self, found: list[np.ndarray]) -> list[np.ndarray]:
        """Links the cells of the next frames: int32 (H, W) track labels of the frames that are done."""
        return [done for labels in found for done in self._linker.push(labels)]

    def finish(self) -> Iterable[np.ndarray]:
        """Returns the frames that the linker held back."""
        return self._linker.finish()
