"""Estimator and discriminator: sizes of the paper, wiring, any frame."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_cells.errors import InputError
from lightning_cells.networks import architectures
from lightning_cells.networks.rib_cage import Discriminator, Estimator


@pytest.fixture(autouse=True)
def _fixed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameters_of_the_estimator():
    assert count(Estimator()) == 143_843
    assert count(architectures.Estimator().build(3)) == 143_843


@pytest.mark.parametrize(
    ("filters", "kernels", "size", "parameters"),
    [
        ((8, 32, 64), (9, 5, 3), 64, 1_268_920),
        ((8, 32, 64), (9, 5, 3), 43, 550_072),
        ((8, 32, 64, 64), (9, 5, 3, 4), 64, 597_496),
        ((32, 64, 128), (3, 3, 3), 64, 2_665_824),
    ],
)
def test_parameters_of_the_discriminator(filters, kernels, size, parameters):
    assert count(Discriminator(3, filters, kernels, size)) == parameters


@pytest.mark.parametrize("size", [(1, 1), (5, 2), (53, 67), (64, 64)])
def test_the_estimator_keeps_the_size_of_any_frame(size):
    with torch.no_grad():
        assert Estimator(2).eval()(torch.randn(2, 1, *size)).shape == (2, 2, *size)


def test_the_estimator_reaches_eleven_pixels():
    """A change of one pixel is seen by no other farther away; by one more to the left and above, as 4 is even."""
    network = Estimator().eval()
    frame = torch.zeros(1, 1, 41, 41, requires_grad=True)
    (slope,) = torch.autograd.grad(network(frame)[0, :, 20, 20].sum(), frame)
    rows, columns = slope[0, 0].nonzero().unbind(1)
    assert (rows.min(), rows.max()) == (columns.min(), columns.max()) == (10, 31)


def rib(block: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """Convolution, statistics of the batch, leaky ReLU, pooling."""
    convolution = next(part for part in block if isinstance(part, nn.Conv2d))
    x = F.conv2d(x, convolution.weight, padding="same")
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    x = (x - mean) / (variance + 1e-3).sqrt()
    x = torch.where(x > 0, x, 0.1 * x)
    rows, columns = x.shape[2] // 2, x.shape[3] // 2
    return x[..., : 2 * rows, : 2 * columns].unflatten(2, (rows, 2)).unflatten(4, (columns, 2)).amax((3, 5))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("kernels", [(3, 5), (4, 3)])
def test_the_discriminator_is_wired_as_in_the_paper(kernels):
    network = Discriminator(3, (4, 6), kernels, size=18, hidden=5)
    frames, segmentation = torch.randn(3, 1, 18, 18), torch.rand(3, 3, 18, 18)
    left, right, spine = frames, segmentation, torch.cat([frames, segmentation], 1)
    for cage in network.ribs:
        new_left, new_right, centre = rib(cage.left, left), rib(cage.right, right), rib(cage.centre, spine)
        left, right, spine = new_left, new_right, torch.cat([new_left, new_right, centre], 1)
    assert [part.shape[1:] for part in (left, right, spine)] == [(6, 4, 4), (6, 4, 4), (15, 4, 4)]
    x = torch.cat([left, right, spine], 1).flatten(1)
    first, second, last = (part.weight for part in network.head if isinstance(part, nn.Linear))
    for weight in (first, second):
        x = x @ weight.T
        x = torch.where(x > 0, x, 0.1 * x)
    torch.testing.assert_close(network(frames, segmentation), (x @ last.T)[:, 0], rtol=1e-4, atol=1e-5)


def test_crops_of_another_size_are_averaged_to_the_grid():
    network = Discriminator(3, (4, 6), (3, 3), size=16).eval()
    seen = []
    network.head.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    frames, segmentation = torch.randn(2, 1, 32, 48), torch.rand(2, 3, 32, 48)
    assert network(frames, segmentation).shape == (2,)
    left, right, spine = frames, segmentation, torch.cat([frames, segmentation], 1)
    for cage in network.ribs:
        left, right, spine = cage(left, right, spine)
    joined = torch.cat([left, right, spine], 1)  # 8 x 12
    torch.testing.assert_close(seen[0], joined.unflatten(2, (4, 2)).unflatten(4, (4, 3)).mean((3, 5)))


def test_crops_that_are_too_small():
    network = Discriminator(3, (4, 4), (3, 3), size=16)
    assert network(torch.randn(1, 1, 4, 9), torch.rand(1, 3, 4, 9)).shape == (1,)
    with pytest.raises(InputError, match=r"crops of 3 x 9 pixels .* data\.augmentation\.crop to 4"):
        network(torch.randn(1, 1, 3, 9), torch.rand(1, 3, 3, 9))


@pytest.mark.parametrize(
    "wrong",
    [
        {"filters": (8, 16)},
        {"filters": (8, 16, 1)},
        {"filters": (), "kernels": ()},
        {"kernels": (9, 5, 0)},
        {"size": 7},
    ],
)
def test_sizes_that_cannot_be(wrong):
    with pytest.raises(InputError, match="discriminator"):
        Discriminator(**wrong)
    if "size" not in wrong and wrong.get("filters") != (8, 16, 1):
        with pytest.raises(InputError, match="estimator"):
            Estimator(**{"kernels": (9, 5, 4), "filters": (4, 4, 4), **wrong})
