"""Convolutional recurrent layers over clips, and what is done to their state between clips."""

from typing import Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cells.errors import InputError

GateNorm = Literal["none", "group", "layer"]
LSTMState = tuple[Tensor, Tensor]
State = TypeVar("State")


def merge_time(clip: Tensor) -> Tensor:
    """Lay the frames of a clip in the batch axis, time first: ``(B,T,...)`` -> ``(T*B,...)``.

    What `split_time` made comes back as a view of the same memory, so the two cost nothing between layers and
    keep the ``channels_last`` layout.
    """
    return clip.transpose(0, 1).flatten(0, 1)


def split_time(frames: Tensor, batch: int) -> Tensor:
    """Undo `merge_time`: ``(T*B,...)`` -> ``(B,T,...)``, always a view."""
    return frames.unflatten(0, (-1, batch)).transpose(0, 1)


def detach_state(state: State) -> State:
    """Cut a state from the graph that made it (truncated back-propagation through time).

    Args:
        state: a tensor, ``None``, or tuples of these, however nested.

    Returns:
        The same structure; tensors share memory with the given ones.
    """
    if isinstance(state, Tensor):
        return cast(State, state.detach())
    if isinstance(state, tuple):
        return cast(State, tuple(detach_state(part) for part in state))
    return state


def reset_state(state: State, first: Tensor) -> State:
    """Zero the state of the lanes where a new sequence begins; the other lanes keep theirs, graph included.

    Args:
        state: a tensor (B,...), ``None``, or tuples of these, however nested.
        first: (B,) bool, true where the next clip is the first of its sequence.

    Returns:
        The same structure with new tensors. A lane that held NaN is zero afterwards.
    """
    if isinstance(state, Tensor):
        lanes = first.to(state.device).view(-1, *(1,) * (state.dim() - 1))
        return cast(State, state.masked_fill(lanes, 0))
    if isinstance(state, tuple):
        return cast(State, tuple(reset_state(part, first) for part in state))
    return state


class ConvLSTM(nn.Module):
    """Convolutional LSTM without peepholes (Shi et al. 2015; gates as in Arbelle and Raviv 2018).

    ``[i,g,f,o] = W*[x,h] + b``, ``c' = sigmoid(f+1) c + sigmoid(i) tanh(g)``, ``h' = sigmoid(o) tanh(c')``,
    where ``W`` is drawn Glorot-uniform and ``b`` starts at zero. The input half of ``W`` runs over all frames
    of the clip in one convolution; only the hidden half is in the loop over time. The cell ``c`` is kept in
    float32 at least, also under autocast, so that small updates are not lost over long videos.

    Args:
        inputs: channels of the input.
        hidden: channels of ``h`` and ``c``.
        kernel: side of the square kernel, odd; zero padding keeps the frame's size.
        norm: ``"none"``; ``"group"`` normalises the concatenated gates in four groups (one per gate) over
            channels and pixels; ``"layer"`` is the layer-norm cell ``LN(Wx*x) + LN(Wh*h) + b`` with
            ``c' = LN(...)``, here with `h` where the code released with the paper feeds `x` a second time.
            Both take their statistics over a whole frame, so a crop has other statistics than its frame.

    Raises:
        InputError: `kernel` is not odd and positive, or `norm` is unknown.
    """

    def __init__(self, inputs: int, hidden: int, kernel: int, norm: GateNorm = "none") -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise InputError(f"kernel {kernel} of a convolutional LSTM: use an odd number, such as 3, 5 or 7")
        if norm not in ("none", "group", "layer"):
            raise InputError(f"norm {norm!r} of a convolutional LSTM: use none, group or layer")
        self.hidden = hidden
        self.norm = norm
        gates = 4 * hidden
        self.input_conv = nn.Conv2d(inputs, gates, kernel, padding=kernel // 2, bias=norm != "layer")
        self.hidden_conv = nn.Conv2d(hidden, gates, kernel, padding=kernel // 2, bias=False)
        if norm == "group":
            self.gate_norm = nn.GroupNorm(4, gates)
        elif norm == "layer":
            self.input_norm = nn.GroupNorm(1, gates)  # its shift is b
            self.hidden_gain = nn.Parameter(torch.ones(gates))
            self.cell_norm = nn.GroupNorm(1, hidden)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the two halves of ``W`` as the one Glorot-uniform kernel they are; zero the bias."""
        outputs, inputs, *kernel = self.input_conv.weight.shape
        fans = (inputs + self.hidden + outputs) * kernel[0] * kernel[1]
        bound = (6 / fans) ** 0.5
        nn.init.uniform_(self.input_conv.weight, -bound, bound)
        nn.init.uniform_(self.hidden_conv.weight, -bound, bound)
        if self.input_conv.bias is not None:
            nn.init.zeros_(self.input_conv.bias)

    def forward(self, clip: Tensor, state: LSTMState | None = None) -> tuple[Tensor, LSTMState]:
        """Run over the frames of a clip.

        Args:
            clip: (B,T,inputs,H,W), T >= 1.
            state: ``(h, c)``, each (B,hidden,H,W), from the clip before; ``None`` is zero.

        Returns:
            ``h`` of every frame (B,T,hidden,H,W), and the state after the last frame.
        """
        batch = clip.shape[0]
        inputs = self.input_conv(merge_time(clip))
        if self.norm == "layer":
            inputs = self.input_norm(inputs)
        h, c = (None, None) if state is None else state
        if h is None and self.training and clip.shape[1] == 1:
            h = inputs.new_zeros(batch, self.hidden, *inputs.shape[-2:])  # so that each weight has a gradient: DDP
        outputs: list[Tensor] = []
        # unbind, not indexing: each step's backward pass through an index fills a tensor as long as the clip.
        for gates in inputs.unflatten(0, (-1, batch)).unbind(0):
            if h is not None:
                gates = gates + self._from_hidden(h)
            h, c = self._step(gates, c)
            outputs.append(h)
        assert h is not None
        assert c is not None
        return split_time(torch.cat(outputs), batch), (h, c)

    def _from_hidden(self, h: Tensor) -> Tensor:
        gates = self.hidden_conv(h)
        return F.group_norm(gates, 1, self.hidden_gain) if self.norm == "layer" else gates

    def _step(self, gates: Tensor, c: Tensor | None) -> LSTMState:
        if self.norm == "group":
            gates = self.gate_norm(gates)
        i, g, f, o = gates.chunk(4, dim=1)
        update = torch.sigmoid(i) * torch.tanh(g)
        update = update.to(torch.promote_types(update.dtype, torch.float32))
        c = update if c is None else torch.sigmoid(f + 1) * c + update
        if self.norm == "layer":
            c = self.cell_norm(c)
        return (torch.sigmoid(o) * torch.tanh(c)).to(gates.dtype), c
