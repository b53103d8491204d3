"""The hundred-layer Tiramisu, FC-DenseNet103 (Jégou et al., CVPR workshops 2017)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cells.errors import InputError
from lightning_cells.networks.parts import BatchNorm, he_initialise, scaled


class Tiramisu(nn.Module):
    """Dense blocks on a contracting and an expanding path, for frames of any size.

    At its full size 9,419,011 parameters with the statistics of batch norm, as in table 1 of the bright-field
    submission to MIDL 2019. Blocks of the contracting path pass on their input with their new features; from the
    bottleneck on only the new features go up, and the last block passes on both (Jégou et al., section 3.2).

    Args:
        classes: channels of the output.
        width: factor of the number of channels: 48 of the first convolution, 16 of each layer.
        layers: layers of the dense blocks of the contracting path, from full resolution down; the expanding path has
            them in reverse.
        bottleneck: layers of the dense block at the bottom.
        dropout: probability with which a channel's value is dropped in training.
        bn_momentum: weight of a batch in the running statistics of batch norm.

    Raises:
        InputError: a block without layers, a `width` that is not positive, a `dropout` outside of 0 to 1.
    """

    def __init__(
        self,
        classes: int,
        width: float = 1.0,
        layers: Sequence[int] = (4, 5, 7, 10, 12),
        bottleneck: int = 15,
        dropout: float = 0.2,
        bn_momentum: float = 0.01,
    ) -> None:
        super().__init__()
        if min([*layers, bottleneck]) < 1:
            raise InputError(
                f"model.network.layers={list(layers)}, bottleneck={bottleneck}: each block needs a layer or more"
            )
        if not 0 <= dropout < 1:
            raise InputError(f"model.network.dropout={dropout}: must be 0 or more, and below 1")
        growth = scaled(16, width)

        channels = scaled(48, width)
        self.stem = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.contracting, self.downsampling = nn.ModuleList(), nn.ModuleList()
        skips = []
        for depth in layers:
            self.contracting.append(_DenseBlock(channels, depth, growth, dropout, bn_momentum))
            channels += growth * depth
            skips.append(channels)
            self.downsampling.append(_pre_activated(channels, channels, 1, dropout, bn_momentum))
        self.bottleneck = _DenseBlock(channels, bottleneck, growth, dropout, bn_momentum)
        new = growth * bottleneck
        self.upsampling, self.expanding = nn.ModuleList(), nn.ModuleList()
        for depth, skip in zip(reversed(layers), reversed(skips), strict=True):
            self.upsampling.append(nn.ConvTranspose2d(new, new, 3, stride=2))
            channels = skip + new
            self.expanding.append(_DenseBlock(channels, depth, growth, dropout, bn_momentum))
            new = growth * depth
        self.head = nn.Conv2d(channels + new, classes, 1)
        he_initialise(self)

    def forward(self, frames: Tensor) -> Tensor:
        """Float32 (B,1,H,W) frames -> (B,classes,H,W) logits."""
        x = self.stem(frames)
        skips: list[Tensor] = []
        for block, downsample in zip(self.contracting, self.downsampling, strict=True):
            x = torch.cat([x, block(x)], dim=1)
            skips.append(x)
            x = F.max_pool2d(downsample(x), 2, ceil_mode=True)
        new = self.bottleneck(x)
        for upsample, block in zip(self.upsampling, self.expanding, strict=True):
            skip = skips.pop()
            height, width = skip.shape[-2:]
            x = torch.cat([skip, upsample(new)[..., :height, :width]], dim=1)
            new = block(x)
        return self.head(torch.cat([x, new], dim=1))


class _DenseBlock(nn.Module):
    """Layers that each see the block's input and all that was added before; returns what they add."""

    def __init__(self, inputs: int, depth: int, growth: int, dropout: float, bn_momentum: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _pre_activated(inputs + growth * i, growth, 3, dropout, bn_momentum) for i in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, dim=1)))
        return torch.cat(features[1:], dim=1)


def _pre_activated(inputs: int, outputs: int, kernel: int, dropout: float, bn_momentum: float) -> nn.Sequential:
    return nn.Sequential(
        BatchNorm(inputs, bn_momentum),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.Dropout(dropout),
    )
