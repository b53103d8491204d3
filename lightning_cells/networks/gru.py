"""A convolutional gated recurrent unit over clips, and the initialisation it shares with its networks."""

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_cells.errors import InputError
from lightning_cells.networks.recurrent import merge_time, split_time

Candidate = Literal["relu", "tanh"]

_TRUNCATED = 0.87962566103423978  # standard deviation of a standard normal cut at +-2


class ConvGRU(nn.Module):
    """Convolutional GRU (Ballas et al. 2016; with a ReLU candidate as in Payer et al. 2019, sec. 2.1).

    ``[r,u] = sigmoid(W*[x,h] + b)``, ``y = f(V*[x, r h] + d)``, ``h' = u h + (1-u) y``; the state is the output.
    The input halves of `W` and `V` run over all frames of the clip in one convolution (`gates`); only the hidden
    halves are in the loop over time (`unroll`). Under autocast the state has the low precision of the convolutions,
    which is enough for the short windows that the methods here run it over.

    Args:
        inputs: channels of the input.
        hidden: channels of the state.
        kernel: side of the square kernel, odd; zero padding keeps the frame's size.
        candidate: the function ``f``.

    Raises:
        InputError: `kernel` is not odd and positive, or `candidate` is unknown.
    """

    def __init__(self, inputs: int, hidden: int, kernel: int, candidate: Candidate = "relu") -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise InputError(f"kernel {kernel} of a convolutional GRU: use an odd number, such as 3 or 5")
        if candidate not in ("relu", "tanh"):
            raise InputError(f"candidate {candidate!r} of a convolutional GRU: use relu or tanh")
        self.hidden = hidden
        self.candidate = candidate
        # Outputs of the input half: reset gate, update gate, candidate.
        self.input_conv = nn.Conv2d(inputs, 3 * hidden, kernel, padding=kernel // 2)
        self.gate_conv = nn.Conv2d(hidden, 2 * hidden, kernel, padding=kernel // 2, bias=False)
        self.candidate_conv = nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the halves of each kernel as the one kernel they are: He's for a ReLU, half its variance else."""
        hidden = self.hidden
        taps = self.input_conv.weight[0].numel() + self.candidate_conv.weight[0].numel()
        scale = 2.0 if self.candidate == "relu" else 1.0
        variance_scaling_(self.input_conv.weight[: 2 * hidden], taps, 1.0)
        variance_scaling_(self.gate_conv.weight, taps, 1.0)
        variance_scaling_(self.input_conv.weight[2 * hidden :], taps, scale)
        variance_scaling_(self.candidate_conv.weight, taps, scale)
        nn.init.zeros_(self.input_conv.bias)  # type: ignore[arg-type]

    def forward(self, clip: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run over the frames of a clip.

        Args:
            clip: (B,T,inputs,H,W), T >= 1.
            state: (B,hidden,H,W) from the clip before; ``None`` is zero.

        Returns:
            The state after every frame (B,T,hidden,H,W), and after the last one (B,hidden,H,W).
        """
        return self.unroll(self.gates(clip), state)

    def gates(self, clip: Tensor) -> Tensor:
        """Compute what each frame by itself adds to the gates and the candidate.

        Args:
            clip: (B,T,inputs,H,W).

        Returns:
            (B,T,3*hidden,H,W), to be given to `unroll`. Frames do not mix, so overlapping clips can share it.
        """
        return split_time(self.input_conv(merge_time(clip)), clip.shape[0])

    def unroll(self, gates: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run the recurrence over what `gates` returned; arguments and results else as in `forward`."""
        h = state
        if h is None and self.training and gates.shape[1] == 1:
            h = gates.new_zeros(len(gates), self.hidden, *gates.shape[-2:])  # so that each weight has a gradient: DDP
        outputs: list[Tensor] = []
        # unbind, not indexing: each step's backward pass through an index fills a tensor as long as the clip.
        for frame in gates.unbind(1):
            h = self._step(frame, h)
            outputs.append(h)
        assert h is not None
        return split_time(torch.cat(outputs), len(gates)), h

    def _step(self, gates: Tensor, h: Tensor | None) -> Tensor:
        from_input, candidate = gates.split([2 * self.hidden, self.hidden], dim=1)
        if h is not None:
            from_input = from_input + self.gate_conv(h)
        reset, update = torch.sigmoid(from_input).chunk(2, dim=1)
        if h is not None:
            candidate = candidate + self.candidate_conv(reset * h)
        candidate = torch.relu(candidate) if self.candidate == "relu" else torch.tanh(candidate)
        return candidate - update * candidate if h is None else torch.lerp(candidate, h.to(candidate.dtype), update)


def variance_scaling_(weight: Tensor, fan_in: int, scale: float) -> Tensor:
    """Fill with a normal distribution of variance ``scale / fan_in``, cut at two (uncut) standard deviations.

    Args:
        weight: a tensor, or part of one, changed in place.
        fan_in: number of inputs that are summed to one output.
        scale: 2 before a ReLU (He et al. 2015), 1 before what keeps the variance of its input.

    Returns:
        `weight`.
    """
    std = (scale / fan_in) ** 0.5 / _TRUNCATED
    return nn.init.trunc_normal_(weight.detach(), std=std, a=-2 * std, b=2 * std)
