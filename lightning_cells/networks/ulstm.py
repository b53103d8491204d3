"""The U-LSTM: a U-Net whose decoder levels are convolutional LSTMs."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lightning_cells.errors import InputError
from lightning_cells.networks.recurrent import ConvLSTM, GateNorm, LSTMState, merge_time, split_time

BatchNormEval = Literal["running", "batch"]
Temporal = Literal["recurrent", "single-frame"]
ULSTMState = tuple[LSTMState, ...]

SLOPE = 0.1  # of the leaky ReLU, from the authors' code


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that can use the statistics of the batch at evaluation too.

    The parameters and buffers are those of `nn.BatchNorm2d` either way, so one checkpoint serves both.

    Args:
        channels: channels of the input.
        momentum: weight of the new batch in the running statistics (1 minus TensorFlow's momentum).
        evaluate_with: ``"running"`` or ``"batch"`` statistics in evaluation mode. With ``"batch"`` the output
            of a frame depends on the frames given with it.
    """

    def __init__(self, channels: int, momentum: float, evaluate_with: BatchNormEval) -> None:
        super().__init__(channels, eps=1e-3, momentum=momentum)
        self.evaluate_with = evaluate_with

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N,C,H,W) per channel."""
        if self.training or self.evaluate_with == "running":
            return super().forward(x)
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)


class FrameConv(nn.Module):
    """What stands in for a `ConvLSTM` in a network without memory: convolution, normalisation, leaky ReLU.

    Args:
        inputs: channels of the input.
        hidden: channels of the output.
        kernel: side of the square kernel, odd.
        norm: ``"none"``, or normalisation over the channels and pixels of a frame, which is what ``"group"``
            and ``"layer"`` both do to one gate.
    """

    def __init__(self, inputs: int, hidden: int, kernel: int, norm: GateNorm = "none") -> None:
        super().__init__()
        self.conv = _conv(inputs, hidden, kernel)
        self.norm = nn.Identity() if norm == "none" else nn.GroupNorm(1, hidden)

    def forward(self, clip: Tensor, state: LSTMState | None = None) -> tuple[Tensor, None]:
        """Map (B,T,inputs,H,W) to (B,T,hidden,H,W) frame by frame; `state` is not looked at."""
        frames = F.leaky_relu(self.norm(self.conv(merge_time(clip))), SLOPE)
        return split_time(frames, clip.shape[0]), None


class ULSTM(nn.Module):
    """U-LSTM of Arbelle and Raviv, "Microscopy cell segmentation via convolutional LSTM networks" (2018).

    Each encoder level is one convolution, batch normalisation and leaky ReLU, with 2x2 max-pooling between
    levels. Each decoder level is a ConvLSTM over the level below, enlarged bilinearly, beside the encoder's
    output of its own level; the bottom ConvLSTM sees the encoder's output alone. A 1x1 convolution gives the
    logits. The paper leaves the leaky slope and the batch normalisation's constants open: 0.1 is from the
    authors' code, the constants are ours. All frames of a clip go through every layer at once, except for the
    hidden convolutions.

    Args:
        channels: width of each level, top first; one pooling less than levels. The paper has four levels.
        kernel: side of the encoder's kernels, odd.
        lstm_kernel: side of the ConvLSTM's kernels, odd: 7 in the paper (42,940,067 parameters), 5 in the
            authors' settings for Fluo-N2DH-SIM+ (22,099,619); 3 is the light one (8,205,987).
        classes: channels of the logits.
        norm: normalisation of the gates, see `ConvLSTM`.
        temporal: ``"single-frame"`` puts a `FrameConv` with `kernel` in place of every ConvLSTM: the same
            network without memory.
        bn_eval: statistics that batch normalisation uses at evaluation: ``"running"``, or ``"batch"`` as the
            authors' code does.
        bn_momentum: weight of the new batch in the running statistics. 0.1 suits trainings of a few hundred
            steps; 0.01 is TensorFlow's default, meant for the paper's 100,000.
        recompute: keep only what goes into the ConvLSTMs, and run them again in the backward pass.

    Raises:
        InputError: a kernel is not odd and positive, `channels` is empty, or a choice is unknown.
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64, 128, 256),
        kernel: int = 3,
        lstm_kernel: int = 7,
        classes: int = 3,
        norm: GateNorm = "none",
        temporal: Temporal = "recurrent",
        bn_eval: BatchNormEval = "running",
        bn_momentum: float = 0.1,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise InputError(f"kernel {kernel} of the U-LSTM: use an odd number, such as 3")
        if not channels or min(channels) < 1:
            raise InputError(f"channels {tuple(channels)} of the U-LSTM: give a positive width for each level")
        if temporal not in ("recurrent", "single-frame"):
            raise InputError(f"temporal {temporal!r} of the U-LSTM: use recurrent or single-frame")
        if bn_eval not in ("running", "batch"):
            raise InputError(f"bn_eval {bn_eval!r} of the U-LSTM: use running or batch")
        self.temporal = temporal
        self.recompute = recompute
        self.encoder = nn.ModuleList(
            nn.Sequential(
                _conv(inputs, width, kernel),
                BatchNorm(width, bn_momentum, bn_eval),
                nn.LeakyReLU(SLOPE),
            )
            for inputs, width in zip((1, *channels), channels, strict=False)
        )
        below = (*channels[1:], 0)  # the bottom level has nothing below
        self.decoder = nn.ModuleList(
            ConvLSTM(width + extra, width, lstm_kernel, norm)
            if temporal == "recurrent"
            else FrameConv(width + extra, width, kernel, norm)
            for width, extra in zip(channels, below, strict=True)
        )
        self.head = _conv(channels[0], classes, 1)

    def forward(self, clip: Tensor, state: ULSTMState | None = None) -> tuple[Tensor, ULSTMState | None]:
        """Segment the frames of a clip.

        Args:
            clip: (B,T,1,H,W) normalised grey values, frames of any size, T >= 1.
            state: what the clip before returned (see `detach_state` and `reset_state`); ``None`` at the
                start.

        Returns:
            Logits (B,T,classes,H,W), and the state: per level, top first, ``(h, c)`` of shape (B,width,h,w),
            where each level halves the size of the one above, rounded up. A single-frame network's state is
            ``None``.
        """
        batch = clip.shape[0]
        x = merge_time(clip)
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2, ceil_mode=True) if level else x)
            skips.append(x)
        states: list[LSTMState] = []
        for level in reversed(range(len(skips))):
            skip = skips[level]
            if level < len(skips) - 1:
                x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
                x = torch.cat([x, skip], dim=1)
            output, after = self._remember(level, split_time(x, batch), state[level] if state else None)
            x = merge_time(output)
            states.append(after)
        logits = split_time(self.head(x), batch)
        return logits, tuple(reversed(states)) if self.temporal == "recurrent" else None

    def _remember(self, level: int, clip: Tensor, state: LSTMState | None) -> tuple[Tensor, LSTMState]:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self.decoder[level], clip, state, use_reentrant=False)
        return self.decoder[level](clip, state)


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv
