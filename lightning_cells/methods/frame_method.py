"""Base of the methods that segment each frame by itself, with any network, and leave tracking to a linker."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from lightning_cells.instances.components import Decoder
from lightning_cells.instances.linkers import Linker
from lightning_cells.methods.base import CellMethod
from lightning_cells.methods.video import SegmentedVideo
from lightning_cells.networks.architectures import Architecture

_PADDING = 16  # pixels mirrored around a frame at inference, so that its border is seen like its middle


class FrameMethod(CellMethod):
    """Frame -> class probabilities -> cells -> tracks. A subclass trains the network.

    Its constructor calls this one and then `remember`, with the three parts.

    Args:
        network: which network to build.
        classes: semantic classes that it tells apart, background included.
        decoder: class probabilities -> cells.
        linker: cells of consecutive frames -> tracks.
    """

    def __init__(self, network: Architecture, classes: int, decoder: Decoder, linker: Linker) -> None:
        super().__init__()
        self.network = network.build(classes)
        self.decoder = decoder
        self.linker = linker

    def forward(self, frames: Tensor) -> Tensor:
        """Class probabilities, float32 (T, C, H, W), of float32 (T, 1, H, W) frames."""
        height, width = frames.shape[-2:]
        fits = min(height, width) > _PADDING
        padded = F.pad(frames, [_PADDING] * 4, mode="reflect" if fits else "replicate")
        logits = self.network(padded)[..., _PADDING : _PADDING + height, _PADDING : _PADDING + width]
        return logits.float().softmax(1)

    def open_video(self, size: tuple[int, int], first_frame: int = 0) -> SegmentedVideo:
        """Returns a fresh state for a video whose frames are (H, W) `size` on disk, numbered from `first_frame`."""

        def probabilities(frames: Tensor, state: Any) -> tuple[Tensor, Any]:
            return self(frames), None

        return SegmentedVideo(probabilities, size, self.decoder, self.linker.start(first_frame))
