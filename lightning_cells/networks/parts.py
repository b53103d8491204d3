"""What the encoder-decoder networks share: batch norm for tiny maps, He's initialisation, widths."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cells.errors import InputError

EPSILON = 1e-3  # of batch norm, Keras' default


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that takes a batch of one value per channel, too.

    Such a batch has no variance: it is normalised by the running statistics, which it leaves as they are. It occurs
    where a frame is pooled to one pixel.

    Args:
        channels: of the input.
        momentum: weight of a batch in the running statistics (Keras' 0.99 is 0.01 here).
    """

    def __init__(self, channels: int, momentum: float) -> None:
        super().__init__(channels, eps=EPSILON, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> the same shape."""
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def he_initialise(network: nn.Module) -> None:
    """Draws all convolution kernels of a network from He's normal distribution (He et al. 2015), biases are zero.

    The variance is two by the number of products that make up one output; in a transposed convolution these are the
    kernel's taps divided by the stride squared.
    """
    for layer in network.modules():
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            continue
        taps = math.prod(layer.kernel_size) * layer.in_channels / layer.groups
        if isinstance(layer, nn.ConvTranspose2d):
            taps /= math.prod(layer.stride)
        nn.init.normal_(layer.weight, std=math.sqrt(2 / taps))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def scaled(channels: int, width: float) -> int:
    """A number of channels times a network's width, at least one.

    Raises:
        InputError: if the width is not positive.
    """
    if not width > 0:
        raise InputError(f"model.network.width={width}: must be positive")
    return max(1, round(channels * width))
