"""A U-Net (Ronneberger et al., MICCAI 2015) of the size of that in the bright-field submission to MIDL 2019."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cells.errors import InputError
from lightning_cells.networks.parts import BatchNorm, he_initialise, scaled


class UNet(nn.Module):
    """Contracting and expanding path with zero-padded convolutions, for frames of any size.

    The paper's figure is not at hand; this is the simplest arrangement with its number of parameters, 1,942,023 with
    the statistics of batch norm: four poolings from 16 channels up to 256, two 3x3 convolutions with ReLU per block,
    batch norm before each convolution of the contracting path, and transposed convolutions without bias.

    Args:
        classes: channels of the output.
        width: factor of the number of channels.
        levels: number of poolings.
        bn_momentum: weight of a batch in the running statistics of batch norm.

    Raises:
        InputError: `width` is not positive or `levels` is negative.
    """

    def __init__(self, classes: int, width: float = 1.0, levels: int = 4, bn_momentum: float = 0.01) -> None:
        super().__init__()
        if levels < 0:
            raise InputError(f"model.network.levels={levels}: must be 0 or more")
        first = scaled(16, width)
        channels = [first * 2**level for level in range(levels + 1)]
        self.contracting = nn.ModuleList(
            nn.Sequential(
                BatchNorm(inputs, bn_momentum),
                _convolution(inputs, outputs),
                BatchNorm(outputs, bn_momentum),
                _convolution(outputs, outputs),
            )
            for inputs, outputs in zip([1, *channels], channels[:-1], strict=False)
        )
        below = channels[-2] if levels else 1
        self.bottleneck = nn.Sequential(_convolution(below, channels[-1]), _convolution(channels[-1], channels[-1]))
        pairs = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.upsampling = nn.ModuleList(nn.ConvTranspose2d(below, own, 2, stride=2, bias=False) for below, own in pairs)
        self.expanding = nn.ModuleList(
            nn.Sequential(_convolution(2 * own, own), _convolution(own, own)) for _, own in pairs
        )
        self.head = nn.Conv2d(first, classes, 1)
        he_initialise(self)

    def forward(self, frames: Tensor) -> Tensor:
        """Float32 (B,1,H,W) frames -> (B,classes,H,W) logits."""
        x = frames
        skips: list[Tensor] = []
        for block in self.contracting:
            x = block(x)
            skips.append(x)
            x = F.max_pool2d(x, 2, ceil_mode=True)
        x = self.bottleneck(x)
        for upsample, block in zip(self.upsampling, self.expanding, strict=True):
            skip = skips.pop()
            height, width = skip.shape[-2:]
            x = block(torch.cat([skip, upsample(x)[..., :height, :width]], dim=1))
        return self.head(x)


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True))
