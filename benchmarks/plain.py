"""The recurrent networks as one writes them down first: frame by frame, each gate a convolution of [x, h].

They are made from ours and take over the weights, so that results can be compared.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cells.networks.gru import ConvGRU
from lightning_cells.networks.hourglass import Hourglass, StackedHourglass
from lightning_cells.networks.recurrent import ConvLSTM
from lightning_cells.networks.ulstm import ULSTM


class PlainGRU(nn.Module):
    """One step of a convolutional GRU: three convolutions."""

    def __init__(self, gru: ConvGRU) -> None:
        super().__init__()
        inputs = gru.input_conv.weight.chunk(3)
        hidden = (*gru.gate_conv.weight.chunk(2), gru.candidate_conv.weight)
        self.reset, self.update, self.candidate = (
            joined(x, h, bias) for x, h, bias in zip(inputs, hidden, gru.input_conv.bias.chunk(3), strict=True)
        )

    def forward(self, x: Tensor, h: Tensor | None) -> Tensor:
        """(B,C,H,W) and the state before -> the state after."""
        h = x.new_zeros(len(x), self.reset.out_channels, *x.shape[2:]) if h is None else h
        both = torch.cat([x, h], 1)
        reset, update = torch.sigmoid(self.reset(both)), torch.sigmoid(self.update(both))
        candidate = torch.relu(self.candidate(torch.cat([x, reset * h], 1)))
        return update * h + (1 - update) * candidate


class PlainLSTM(nn.Module):
    """One step of a convolutional LSTM: one convolution for the four gates, as public implementations have it."""

    def __init__(self, lstm: ConvLSTM) -> None:
        super().__init__()
        self.hidden = lstm.hidden
        self.gates = joined(lstm.input_conv.weight, lstm.hidden_conv.weight, lstm.input_conv.bias)
        self.norm = copy.deepcopy(lstm.gate_norm) if lstm.norm == "group" else nn.Identity()

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """(B,C,H,W) and the state before -> (h, c) after."""
        zero = x.new_zeros(len(x), self.hidden, *x.shape[2:])
        h, c = (zero, zero) if state is None else state
        i, g, f, o = self.norm(self.gates(torch.cat([x, h], 1))).chunk(4, 1)
        c = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class PlainLayer(nn.Module):
    """A cell over the frames of a clip, (B,T,C,H,W) -> (B,T,hidden,H,W)."""

    def __init__(self, layer: ConvGRU | ConvLSTM) -> None:
        super().__init__()
        self.cell = PlainGRU(layer) if isinstance(layer, ConvGRU) else PlainLSTM(layer)

    def forward(self, clip: Tensor) -> tuple[Tensor, None]:
        """Runs over the frames; no state comes back."""
        state, outputs = None, []
        for t in range(clip.shape[1]):
            state = self.cell(clip[:, t], state)
            outputs.append(state if isinstance(state, Tensor) else state[0])
        return torch.stack(outputs, 1), None


class PlainHourglass(nn.Module):
    """One frame through one hourglass."""

    def __init__(self, hourglass: Hourglass) -> None:
        super().__init__()
        self.entry, self.exit = copy.deepcopy(hourglass.entry), copy.deepcopy(hourglass.exit)
        self.contracting = copy.deepcopy(hourglass.contracting)
        self.expanding = copy.deepcopy(hourglass.expanding)
        self.grus = nn.ModuleList(PlainGRU(gru) for gru in hourglass.parallel)

    def forward(self, frame: Tensor, states: list[Tensor | None]) -> Tensor:
        """(B,C,H,W) -> (B,D,H,W); changes the states."""
        x, skips = F.relu(self.entry(frame)), []
        for level, (conv, gru) in enumerate(zip(self.contracting, self.grus, strict=True)):
            x = F.relu(conv(F.max_pool2d(x, 2, ceil_mode=True) if level else x))
            states[level] = gru(x, states[level])
            skips.append(states[level])
        x = F.relu(self.expanding[-1](skips[-1]))
        for skip, conv in zip(skips[-2::-1], list(self.expanding)[-2::-1], strict=True):
            height, width = skip.shape[-2:]
            x = F.relu(conv(skip + F.interpolate(x, scale_factor=2, mode="nearest")[..., :height, :width]))
        return self.exit(x)


class PlainRSHN(nn.Module):
    """The stacked hourglass, (B,T,1,H,W) -> embeddings of each hourglass."""

    def __init__(self, network: StackedHourglass) -> None:
        super().__init__()
        self.stacks = nn.ModuleList(PlainHourglass(stack) for stack in network.stacks)

    def forward(self, clip: Tensor) -> tuple[list[Tensor], None]:
        """Runs over the frames; no state comes back."""
        states = [[None] * len(stack.grus) for stack in self.stacks]
        outputs: list[list[Tensor]] = [[] for _ in self.stacks]
        for t in range(clip.shape[1]):
            x = frame = clip[:, t]
            for number, stack in enumerate(self.stacks):
                outputs[number].append(stack(x, states[number]))
                x = torch.cat([frame, F.normalize(outputs[number][-1].float(), dim=1, eps=1e-2).to(frame.dtype)], 1)
        return [torch.stack(frames, 1) for frames in outputs], None


class PlainULSTM(nn.Module):
    """The U-LSTM, (B,T,1,H,W) -> logits. In training batch norm has the statistics of one frame at a time."""

    def __init__(self, network: ULSTM) -> None:
        super().__init__()
        self.encoder, self.head = copy.deepcopy(network.encoder), copy.deepcopy(network.head)
        self.cells = nn.ModuleList(PlainLSTM(lstm) for lstm in network.decoder)

    def forward(self, clip: Tensor) -> tuple[Tensor, None]:
        """Runs over the frames; no state comes back."""
        states = [None] * len(self.cells)
        logits = []
        for t in range(clip.shape[1]):
            x, skips = clip[:, t], []
            for level, block in enumerate(self.encoder):
                x = block(F.max_pool2d(x, 2, ceil_mode=True) if level else x)
                skips.append(x)
            for level in reversed(range(len(skips))):
                if level < len(skips) - 1:
                    size = skips[level].shape[-2:]
                    enlarged = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
                    x = torch.cat([enlarged, skips[level]], 1)
                states[level] = self.cells[level](x, states[level])
                x = states[level][0]
            logits.append(self.head(x))
        return torch.stack(logits, 1), None


def joined(x: Tensor, h: Tensor, bias: Tensor) -> nn.Conv2d:
    """A convolution of [x, h] from the kernels of both."""
    weight = torch.cat([x, h], 1).detach().clone()
    outputs, inputs, kernel, _ = weight.shape
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias.detach().clone())
    return conv
