"""Frames cut into overlapping tiles at inference, for all methods that segment frame by frame."""

import pytest
import torch
from torch import nn

from lightning_cells.methods import BrightField
from lightning_cells.networks.architectures import UNet


def method(network: nn.Module, tile: int | None) -> BrightField:
    chosen = BrightField(UNet(width=0.1, levels=0), tile=tile)
    chosen.network = network
    return chosen.eval()


@pytest.mark.parametrize("size", [(100, 70), (33, 150), (32, 32), (31, 64)])
@pytest.mark.parametrize("tile", [32, 45])
@torch.no_grad()
def test_of_a_pointwise_network_nothing_changes(size: tuple[int, int], tile: int) -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(1, 3, 1)
    frames = torch.randn(2, 1, *size)
    whole = method(network, None)(frames)
    torch.testing.assert_close(whole, network(frames).softmax(1))
    torch.testing.assert_close(method(network, tile)(frames), whole)


@torch.no_grad()
def test_what_sees_less_than_the_padding_notices_no_tiles() -> None:
    """Five 3x3 convolutions see 5 pixels around one; each tile comes with 16."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1 if i == 0 else 4, 4, 3, padding=1) for i in range(5)]
    network = nn.Sequential(*layers, nn.Conv2d(4, 3, 1))
    frames = torch.randn(1, 1, 90, 120)
    torch.testing.assert_close(method(network, 40)(frames), method(network, None)(frames))


class Calls(nn.Module):
    """Answers with a class that depends on the number of the call."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        self.sizes.append(tuple(frames.shape[-2:]))
        sure = 40.0 * nn.functional.one_hot(torch.tensor((len(self.sizes) - 1) % 2), 2)
        return sure[:, None, None].expand(len(frames), 2, *frames.shape[-2:])


@torch.no_grad()
def test_overlapping_probabilities_are_averaged() -> None:
    """Two tiles of 40 pixels that share 10: the first says class 0, the second class 1, and between them by a ramp."""
    calls = Calls()
    (row,) = method(calls, 40)(torch.zeros(1, 1, 40, 70))[0, 1, :1]
    assert calls.sizes == [(72, 72), (72, 72)]
    assert torch.all(row[:30] < 1e-6)
    assert torch.all(row[40:] > 1 - 1e-6)
    torch.testing.assert_close(row[30:40], torch.arange(1.0, 11) / 11)


@torch.no_grad()
def test_smaller_frames_are_not_cut() -> None:
    calls = Calls()
    method(calls, 64)(torch.zeros(1, 1, 64, 50))
    assert calls.sizes == [(96, 82)]
