"""The three networks of the bright-field paper: sizes, shapes, wiring, initialisation."""

import math

import pytest
import torch
from torch import nn

from lightning_cells.errors import InputError
from lightning_cells.networks.architectures import Architecture, DeepLab, Tiramisu, UNet
from lightning_cells.networks.parts import BatchNorm, he_initialise

TINY = [
    UNet(width=0.25),
    UNet(width=0.25, levels=0),
    Tiramisu(width=0.25, layers=(1, 2), bottleneck=1),
    DeepLab(width=0.03, middle=1),
]


def keras_total(network: nn.Module) -> int:
    """Parameters and the statistics of batch norm."""
    statistics = [b.numel() for name, b in network.named_buffers() if name.endswith(("running_mean", "running_var"))]
    return sum(p.numel() for p in network.parameters()) + sum(statistics)


@pytest.mark.parametrize(
    ("architecture", "total", "trainable"),
    [
        (UNet(), 1_942_023, 1_941_317),
        (Tiramisu(), 9_419_011, 9_315_939),
        (DeepLab(), 41_253_023, 41_050_223),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Architecture) else "",
)
def test_sizes_of_table_1(architecture: Architecture, total: int, trainable: int) -> None:
    with torch.device("meta"):
        network = architecture.build(classes=3)
    assert keras_total(network) == total
    assert sum(p.numel() for p in network.parameters()) == trainable


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (17, 40), (33, 31)])
@pytest.mark.parametrize("architecture", TINY, ids=repr)
def test_any_size(architecture: Architecture, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = architecture.build(classes=2)
    frame = torch.randn(1, 1, *size)
    for mode in (True, False):  # a batch of one, in training, too
        logits = network.train(mode)(frame)
        assert logits.shape == (1, 2, *size)
        assert logits.isfinite().all()
    network.train()(frame).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("architecture", TINY, ids=repr)
def test_frames_of_a_batch_do_not_mix(architecture: Architecture) -> None:
    torch.manual_seed(0)
    network = architecture.build(classes=3).eval()
    frames = torch.randn(3, 1, 20, 24)
    with torch.no_grad():
        together = network(frames)
        for frame, logits in zip(frames, together, strict=True):
            torch.testing.assert_close(network(frame[None])[0], logits, atol=1e-5, rtol=1e-4)


def _shift_of(network: nn.Module, size: int, step: int) -> float:
    """How much the logits change, in their own units, when a frame moves by `step` pixels and the logits with it."""
    frame = torch.zeros(1, 1, size, size)
    middle = slice(size // 2 - 8, size // 2 + 8)
    frame[..., middle, middle] = torch.randn(16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        still, moved = network(frame), network(frame.roll((step, step), (2, 3)))
    inner = slice(size // 2 - 16, size // 2 + 16)
    difference = (moved.roll((-step, -step), (2, 3)) - still)[..., inner, inner]
    return float(difference.std() / still[..., inner, inner].std())


@pytest.mark.parametrize(
    ("architecture", "stride"),
    [(UNet(width=0.25, levels=2), 4), (Tiramisu(width=0.25, layers=(1, 1), bottleneck=1), 4)],
    ids=["UNet", "Tiramisu"],
)
def test_a_frame_that_moves_by_the_stride_moves_the_logits(architecture: Architecture, stride: int) -> None:
    torch.manual_seed(0)
    network = architecture.build(classes=3).eval()
    assert _shift_of(network, 96, stride) < 1e-4
    assert _shift_of(network, 96, 1) > 1e-3, "or the test is blind"


class Columns(nn.Module):
    """In place of DeepLab's decoder: features that say which column of the frame they look at."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (4.0 * torch.arange(x.shape[-1])).expand(1, 1, *x.shape[-2:])


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (65, 49), (50, 72)])
def test_deeplab_upsamples_to_the_pixels_that_features_came_from(size: tuple[int, int]) -> None:
    network = DeepLab(width=1 / 32, middle=0).build(classes=2).eval()
    network.decoder, network.head, network.soft_max = Columns(), nn.Identity(), nn.Identity()
    torch.testing.assert_close(network(torch.zeros(1, 1, *size))[0, 0], torch.arange(float(size[1])).expand(size))


def test_encoder_looks_at_every_fourth_and_sixteenth_pixel() -> None:
    """The gradient of a feature is centred on its pixel."""
    torch.manual_seed(0)
    encoder = DeepLab(width=1 / 32, middle=1).build(classes=2).encoder.eval()
    for layer in encoder.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
    frame = torch.ones(1, 1, 257, 257, requires_grad=True)
    for features, stride, place in zip(encoder(frame), (4, 16), (32, 8), strict=True):
        (gradient,) = torch.autograd.grad(features[0, :, place, place].sum(), frame, retain_graph=True)
        weights = gradient[0, 0].sum(0)
        centre = float((weights * torch.arange(257)).sum() / weights.sum())
        assert centre == pytest.approx(stride * place, abs=0.01)


def test_tiramisu_sends_up_what_the_last_block_has_made_alone() -> None:
    """Widths by hand, of layers (2, 3) and a bottleneck of 4 at growth 4 after 12 channels."""
    network = Tiramisu(width=0.25, layers=(2, 3), bottleneck=4).build(classes=3)
    assert [layer.in_channels for layer in network.upsampling] == [4 * 4, 3 * 4]
    assert [down[2].in_channels for down in network.downsampling] == [12 + 8, 20 + 12]
    first = [block.layers[0][2].in_channels for block in network.expanding]
    assert first == [32 + 16, 20 + 12]
    assert network.head.in_channels == 20 + 12 + 2 * 4


def test_he_initialisation() -> None:
    """Standard deviations by hand; the values follow from chance alone to within a few percent."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(32, 64, 3),
        nn.ConvTranspose2d(64, 64, 2, stride=2),
        nn.Conv2d(64, 64 * 16, 3, groups=64),
    )
    he_initialise(network)
    for layer, taps in zip(network, (32 * 9, 64, 9), strict=True):
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / taps), rel=0.05)
        assert abs(layer.weight.mean().item()) < 0.1 * math.sqrt(2 / taps)
        assert not layer.bias.any()


def test_batch_norm_of_a_single_value_uses_what_it_knows() -> None:
    norm = BatchNorm(2, momentum=0.5)
    batch = torch.tensor([[1.0, 5.0], [3.0, 9.0]])[..., None, None]
    norm(batch)  # the running statistics are now halfway from (0, 1) to mean (2, 7) and variance (2, 8)
    single = norm(torch.tensor([[2.0, 3.5]])[..., None, None])[0, :, 0, 0]
    expected = torch.tensor([(2 - 1) / math.sqrt(1.5 + 1e-3), 0.0])
    torch.testing.assert_close(single, expected)
    torch.testing.assert_close(norm.running_mean, torch.tensor([1.0, 3.5]))


@pytest.mark.parametrize(
    ("architecture", "option"),
    [
        (UNet(width=0), "width"),
        (UNet(levels=-1), "levels"),
        (Tiramisu(layers=(2, 0)), "layers"),
        (Tiramisu(bottleneck=0), "bottleneck"),
        (Tiramisu(dropout=1.0), "dropout"),
        (DeepLab(width=-1.0), "width"),
        (DeepLab(middle=-1), "middle"),
        (DeepLab(dropout=-0.1), "dropout"),
    ],
    ids=repr,
)
def test_sizes_that_cannot_be(architecture: Architecture, option: str) -> None:
    with pytest.raises(InputError, match=option):
        architecture.build(classes=3)
