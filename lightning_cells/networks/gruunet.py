"""The GRUU-Net: a pooling stream of dense units, whose features a GRU gathers at full resolution."""

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lightning_cells.errors import InputError
from lightning_cells.networks.gru import ConvGRU, variance_scaling_

Gather = Literal["gru", "sum"]


class FRDU(nn.Module):
    """Full-resolution dense unit: looks at both streams at one scale, and gives each something new.

    The pooling stream and the pooled state of the recurrent stream go, beside each other, through `layers` densely
    connected layers (batch normalisation, ReLU, 3x3 convolution, Huang et al. 2016) and a transition (the same with a
    1x1 convolution); a 1x1 convolution of that is the input of the GRU.

    Args:
        inputs: channels of the pooling stream before.
        outputs: its channels after.
        hidden: channels of the recurrent stream.
        growth: channels that each layer adds.
        layers: number of layers.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int, growth: int, layers: int) -> None:
        super().__init__()
        inputs += hidden
        self.layers = nn.ModuleList(_layer(inputs + growth * i, growth, 3) for i in range(layers))
        self.transition = _layer(inputs + growth * layers, outputs, 1)
        self.exit = nn.Conv2d(outputs, hidden, 1)
        variance_scaling_(self.exit.weight, outputs, 1.0)
        nn.init.zeros_(self.exit.bias)  # type: ignore[arg-type]

    def forward(self, z: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Extract features.

        Args:
            z: pooling stream (B,inputs,h,w).
            pooled: recurrent stream at the same scale (B,hidden,h,w).

        Returns:
            The pooling stream (B,outputs,h,w), and what the GRU is to see of it (B,hidden,h,w).
        """
        x = torch.cat([z, pooled], 1)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        z = self.transition(x)
        return z, self.exit(z)


class GRUUNet(nn.Module):
    """GRUU-Net of Wollmann et al., "GRUU-Net: Integrated convolutional and gated recurrent neural network" (2019).

    A pooling stream goes down to coarse scales and up again; the state of a convolutional GRU stays at full resolution.
    At every scale full-resolution dense units (`FRDU`) see the state, max-pooled to their scale, and their features,
    unpooled, are the GRU's next input: its steps run over scales as another's run over time. So much is in the paper;
    all numbers, the layers within a unit, the stem and the head are ours, after the network that the paper sets out
    from (FRRN-A, Pohlen et al. 2016).

    Nearly all of the cost is the GRU's at full resolution, whatever the widths of the pooling stream: with 32 channels
    7.3 GFLOP per step and frame of 256 x 256 pixels, and 50 MB kept for the backward pass, 9 with `recompute`.

    Args:
        stem: channels of the first and the last convolutions, at full resolution.
        hidden: channels of the GRU's state.
        widths: channels of the pooling stream at scales 2, 4, 8, ...
        down: units per scale on the way down, finest scale first, as many as `widths`.
        up: units per scale on the way up, finest scale first too, one fewer.
        growth: channels that each layer of a unit adds.
        layers: layers of a unit.
        share: one GRU for all steps, as a recurrent network has; else each step has its own.
        gather: ``sum`` adds the features to the state instead, as the network does that the paper sets out from.
        recompute: keep only the inputs of the GRU's steps, and run them again in the backward pass.
        classes: channels of the logits.

    Raises:
        InputError: a size is not positive, there are not as many units as scales, or `gather` is not known.
    """

    def __init__(
        self,
        stem: int = 48,
        hidden: int = 32,
        widths: Sequence[int] = (64, 64, 64, 64),
        down: Sequence[int] = (2, 2, 2, 2),
        up: Sequence[int] = (2, 2, 2),
        growth: int = 12,
        layers: int = 4,
        share: bool = True,
        gather: Gather = "gru",
        recompute: bool = False,
        classes: int = 2,
    ) -> None:
        super().__init__()
        if gather not in get_args(Gather):
            raise InputError(f"gather {gather!r} of the GRUU-Net: use gru or sum")
        if len(down) != len(widths) or len(up) != len(widths) - 1:
            raise InputError(
                f"GRUU-Net with {len(widths)} widths, {len(down)} down and {len(up)} up: "
                "give units down for every width, and up for all but the last"
            )
        for name, value in (("stem", stem), ("hidden", hidden), ("growth", growth), ("layers", layers)):
            if value < 1:
                raise InputError(f"{name} {value} of the GRUU-Net: must be at least 1")
        for name, values in (("widths", widths), ("down", down), ("up", up)):
            if min(values, default=1) < 1:
                raise InputError(f"{name} {tuple(values)} of the GRUU-Net: each must be at least 1")
        self.recompute = recompute
        self.stem = nn.Sequential(_conv(1, stem, 5), nn.BatchNorm2d(stem), nn.ReLU(inplace=True))
        self.entry = nn.Conv2d(stem, hidden, 1)
        levels = [level for level, count in enumerate(down) for _ in range(count)]
        levels += [level for level in reversed(range(len(up))) for _ in range(up[level])]
        self.strides = [2 ** (level + 1) for level in levels]
        outputs = [widths[level] for level in levels]
        self.units = nn.ModuleList(
            FRDU(before, after, hidden, growth, layers)
            for before, after in zip([stem, *outputs], outputs, strict=False)
        )
        grus = 0 if gather == "sum" else 1 if share else len(levels)
        self.grus = nn.ModuleList(ConvGRU(hidden, hidden, 3, "tanh") for _ in range(grus))
        self.head = nn.Sequential(
            _conv(outputs[-1] + hidden, stem, 3),
            nn.BatchNorm2d(stem),
            nn.ReLU(inplace=True),
            nn.Conv2d(stem, classes, 1),
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Segment frames.

        Args:
            frames: (B,1,H,W) normalised grey values, of any size.

        Returns:
            Logits (B,classes,H,W).
        """
        *_, (h, z, stride) = self._steps(frames)
        return self.head(torch.cat([_unpool(z, stride, (h.shape[-2], h.shape[-1])), h], 1))

    def states(self, frames: Tensor) -> list[Tensor]:
        """The state at full resolution after each step, (B,hidden,H,W), of frames (B,1,H,W)."""
        return [h for h, _, _ in self._steps(frames)]

    def _steps(self, frames: Tensor) -> Iterator[tuple[Tensor, Tensor, int]]:
        """After each unit the state, the pooling stream, and the latter's stride."""
        z = self.stem(frames)
        h = self.entry(z)
        before = 1
        for step, (unit, stride) in enumerate(zip(self.units, self.strides, strict=True)):
            pooled = F.max_pool2d(h, stride, ceil_mode=True)
            if stride > before:
                z = F.max_pool2d(z, 2, ceil_mode=True)
            elif stride < before:
                z = _unpool(z, 2, (pooled.shape[-2], pooled.shape[-1]))
            z, features = unit(z, pooled)
            if not self.grus:
                h = h + _unpool(features, stride, (h.shape[-2], h.shape[-1]))
            elif self.recompute and torch.is_grad_enabled():
                gru = self.grus[step % len(self.grus)]
                h = checkpoint(_refine, gru, features, stride, h, use_reentrant=False)
            else:
                h = _refine(self.grus[step % len(self.grus)], features, stride, h)
            before = stride
            yield h, z, stride


def _refine(gru: nn.Module, features: Tensor, stride: int, h: Tensor) -> Tensor:
    """One step of the GRU: features (B,hidden,h,w) at `stride`, state before -> state after, (B,hidden,H,W)."""
    unpooled = _unpool(features, stride, (h.shape[-2], h.shape[-1]))
    return gru(unpooled.unsqueeze(1), h)[1]


def _unpool(x: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Repeat each pixel `stride` times both ways, and cut what is beyond `size`."""
    return F.interpolate(x, scale_factor=stride, mode="nearest")[..., : size[0], : size[1]]


def _layer(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), _conv(inputs, outputs, kernel))


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    """Without bias: what follows normalises."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    variance_scaling_(conv.weight, inputs * kernel * kernel, 2.0)
    return conv
