"""Xception-65 with atrous convolutions, the backbone of DeepLabv3+ (Chen et al., ECCV 2018, section 3.2)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from lightning_cells.errors import InputError
from lightning_cells.networks.parts import BatchNorm, scaled

LOW_LEVEL = 256  # channels of the features at a quarter of the resolution
HIGH_LEVEL = 2048  # channels of those at a sixteenth


class Xception(nn.Module):
    """Entry, middle and exit flow at an output stride of 16.

    Args:
        width: factor of the number of channels.
        middle: blocks of the middle flow.
        bn_momentum: weight of a batch in the running statistics of batch norm.

    Raises:
        InputError: `middle` is negative or `width` is not positive.
    """

    def __init__(self, width: float = 1.0, middle: int = 16, bn_momentum: float = 0.01) -> None:
        super().__init__()
        if middle < 0:
            raise InputError(f"model.network.middle={middle}: must be 0 or more")

        def block(channels: Sequence[int], shortcut: Shortcut, stride: int = 1, rate: int = 1) -> _Block:
            return _Block([scaled(n, width) for n in channels], shortcut, stride, rate, bn_momentum)

        first, second = scaled(32, width), scaled(64, width)
        self.stem = nn.Sequential(
            convolution(1, first, 3, bn_momentum, stride=2), convolution(first, second, 3, bn_momentum)
        )
        self.entry = nn.ModuleList(
            [
                block((64, 128, 128, 128), "convolution", stride=2),
                block((128, LOW_LEVEL, LOW_LEVEL, LOW_LEVEL), "convolution", stride=2),
                block((LOW_LEVEL, 728, 728, 728), "convolution", stride=2),
            ]
        )
        self.middle = nn.ModuleList(block((728, 728, 728, 728), "identity") for _ in range(middle))
        self.exit = nn.ModuleList(
            [block((728, 728, 1024, 1024), "convolution"), block((1024, 1536, 1536, HIGH_LEVEL), "none", rate=2)]
        )

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes frames.

        Args:
            frames: (B,1,H,W).

        Returns:
            Features at a quarter and at a sixteenth of the resolution, rounded up; pixel ``i`` of them looks at pixel
            ``4 i`` or ``16 i`` of the frame.
        """
        x = self.stem(frames)
        low = x
        for number, block in enumerate(self.entry):
            x, second = block(x)
            if number == 1:
                low = second
        for block in (*self.middle, *self.exit):
            x, _ = block(x)
        return low, x


Shortcut = Literal["convolution", "identity", "none"]


class _Block(nn.Module):
    """Three separable convolutions with a shortcut around them; the last one strides.

    Without a shortcut there are ReLUs after the convolutions, else before them.
    """

    def __init__(self, channels: Sequence[int], shortcut: Shortcut, stride: int, rate: int, bn_momentum: float) -> None:
        super().__init__()
        self.first, self.second, self.third = (
            separable(
                inputs, outputs, bn_momentum, stride=stride if i == 2 else 1, rate=rate, relu_after=shortcut == "none"
            )
            for i, (inputs, outputs) in enumerate(pairwise(channels))
        )
        self.shortcut = shortcut
        if shortcut == "convolution":
            self.projection = convolution(channels[0], channels[-1], 1, bn_momentum, stride=stride, relu=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the block's output and that of its second convolution."""
        second = self.second(self.first(x))
        out = self.third(second)
        if self.shortcut == "convolution":
            out = out + self.projection(x)
        elif self.shortcut == "identity":
            out = out + x
        return out, second


def convolution(
    inputs: int, outputs: int, kernel: int, bn_momentum: float, stride: int = 1, relu: bool = True
) -> nn.Sequential:
    """Convolution, batch norm, and ReLU if wanted."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
        BatchNorm(outputs, bn_momentum),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


def separable(
    inputs: int, outputs: int, bn_momentum: float, stride: int = 1, rate: int = 1, relu_after: bool = True
) -> nn.Sequential:
    """Depthwise 3x3 and pointwise convolution, each with batch norm; ReLU after both, or once before them."""
    depthwise = [
        nn.Conv2d(inputs, inputs, 3, stride=stride, padding=rate, dilation=rate, groups=inputs, bias=False),
        BatchNorm(inputs, bn_momentum),
    ]
    pointwise = [nn.Conv2d(inputs, outputs, 1, bias=False), BatchNorm(outputs, bn_momentum)]
    if relu_after:
        return nn.Sequential(*depthwise, nn.ReLU(inplace=True), *pointwise, nn.ReLU(inplace=True))
    return nn.Sequential(nn.ReLU(), *depthwise, *pointwise)  # not in place: the shortcut needs its input
