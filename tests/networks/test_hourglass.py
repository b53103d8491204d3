"""The stacked hourglass against one that goes frame by frame, and its windows against whole clips."""

import copy

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lightning_cells.errors import InputError
from lightning_cells.networks.hourglass import StackedHourglass
from lightning_cells.networks.recurrent import detach_state, reset_state

TEMPORAL = ["recurrent", "volumetric", "single-frame"]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def network(temporal="recurrent", features=6, levels=4, embedding=5, stacks=2):
    made = StackedHourglass(features, levels, embedding, stacks, temporal)
    with torch.no_grad():
        for parameter in made.parameters():  # biases too
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


def plain_hourglass(stack, frame, states):
    """One hourglass on one frame (B,C,H,W), with the GRU cells called one frame at a time."""
    x = F.relu(F.conv2d(frame, stack.entry.weight, stack.entry.bias))
    skips, after = [], []
    for level, conv in enumerate(stack.contracting):
        if level:
            height, width = x.shape[-2:]
            x = F.max_pool2d(F.pad(x, (0, width % 2, 0, height % 2)), 2)  # inputs are not negative
        x = F.relu(F.conv2d(x, conv.weight, conv.bias, padding=1))
        parallel = stack.parallel[level]
        if states is None:
            skips.append(F.relu(F.conv2d(x, parallel.weight, parallel.bias, padding=1)))
        else:
            output, state = parallel(x[:, None], states[level])
            skips.append(output[:, 0])
            after.append(state)
    x = torch.zeros_like(skips[-1])
    for level in reversed(range(len(skips))):
        conv, skip = stack.expanding[level], skips[level]
        if level + 1 < len(skips):
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = skip + x[:, :, : skip.shape[2], : skip.shape[3]]
        x = F.relu(F.conv2d(x, conv.weight, conv.bias, padding=1))
    return F.conv2d(x, stack.exit.weight, stack.exit.bias), after


def plain_network(net, frames):
    """Frame by frame through both hourglasses, as the paper draws it."""
    recurrent = net.temporal == "recurrent"
    levels = len(net.stacks[0].contracting)
    states = [[None] * levels if recurrent else None for _ in net.stacks]
    outputs = [[] for _ in net.stacks]
    for t in range(frames.shape[1]):
        x = frames[:, t]
        for number, stack in enumerate(net.stacks):
            embedding, after = plain_hourglass(stack, x, states[number])
            states[number] = after if recurrent else None
            outputs[number].append(embedding)
            square = embedding.square().sum(1, keepdim=True).clamp(min=1e-4)
            x = torch.cat([frames[:, t], embedding / square.sqrt()], 1)
    return [torch.stack(each, 1) for each in outputs], states


@pytest.mark.parametrize(
    ("temporal", "number"), [("recurrent", 4_136_608), ("single-frame", 1_554_336), ("volumetric", 4_650_912)]
)
def test_number_of_parameters_is_the_papers(temporal, number):
    assert sum(p.numel() for p in StackedHourglass(temporal=temporal).parameters()) == number


@pytest.mark.parametrize("temporal", ["recurrent", "single-frame"])
def test_equals_the_network_frame_by_frame(temporal):
    net = network(temporal).double()
    frames = torch.randn(2, 3, 1, 21, 18, dtype=torch.float64, requires_grad=True)
    outputs, state = net(frames)
    expected, expected_state = plain_network(net, frames)
    assert len(outputs) == 2
    torch.testing.assert_close(outputs, expected)
    if temporal == "recurrent":
        torch.testing.assert_close([list(levels) for levels in state], expected_state)
    else:
        assert state is None
    wanted = [frames, *net.parameters()]
    got = torch.autograd.grad(sum(each.square().sum() for each in outputs), wanted)
    want = torch.autograd.grad(sum(each.square().sum() for each in expected), wanted)
    torch.testing.assert_close(got, want)


def test_short_embeddings_are_divided_by_the_floor():
    net = network("single-frame", levels=1)
    with torch.no_grad():
        net.stacks[0].exit.weight.mul_(1e-4)
        net.stacks[0].exit.bias.zero_()
    frames = torch.randn(1, 1, 1, 8, 8)
    assert net(frames)[0][0].norm(dim=2).max() < 0.01
    torch.testing.assert_close(net(frames)[0], plain_network(net, frames)[0])


def test_volumetric_layers_see_three_frames_and_pool_in_the_plane():
    net = network("volumetric", levels=1, stacks=1)
    frames = torch.randn(1, 9, 1, 8, 8, requires_grad=True)
    (output,), _ = net(frames)
    (gradient,) = torch.autograd.grad(output[0, 4].square().sum(), frames)
    seen = gradient[0].flatten(1).abs().sum(1) > 0
    assert seen.tolist() == [False] + [True] * 7 + [False]  # three convolutions with kernels of three frames

    stack = network("volumetric", levels=3).stacks[0]
    shapes = [tuple(level.shape) for level in stack.contract(torch.randn(2, 5, 1, 9, 6))]
    assert shapes == [(2, 5, 6, 9, 6), (2, 5, 6, 5, 3), (2, 5, 6, 3, 2)]


def test_volumetric_first_hourglass_equals_the_layers_written_out():
    stack = network("volumetric", levels=2, stacks=1).stacks[0]
    clip = torch.randn(2, 4, 1, 7, 6)

    def conv(layer, x):
        return F.relu(F.conv3d(x, layer.weight, layer.bias, padding=1))

    top = conv(stack.contracting[0], F.relu(F.conv3d(clip.transpose(1, 2), stack.entry.weight, stack.entry.bias)))
    pooled = F.max_pool3d(F.pad(top, (0, 0, 0, 1)), (1, 2, 2))
    below = conv(stack.expanding[1], conv(stack.parallel[1], conv(stack.contracting[1], pooled)))
    large = below.repeat_interleave(2, 3).repeat_interleave(2, 4)[..., :7, :]
    last = conv(stack.expanding[0], conv(stack.parallel[0], top) + large)
    expected = F.conv3d(last, stack.exit.weight, stack.exit.bias).transpose(1, 2)
    levels, state = stack.remember(stack.contract(clip))
    torch.testing.assert_close(stack.expand(levels), expected)
    assert state is None


@pytest.mark.parametrize("temporal", TEMPORAL)
def test_any_size_with_all_seven_levels(temporal):
    net = network(temporal, features=4, levels=7)
    (first, second), _ = net(torch.randn(1, 2, 1, 67, 53))
    assert first.shape == second.shape == (1, 2, 5, 67, 53)
    assert net(torch.randn(1, 1, 1, 1, 3))[0][1].shape == (1, 1, 5, 1, 3)


def test_state_is_carried_reset_and_detached():
    net = network()
    frames = torch.randn(2, 4, 1, 16, 13)
    whole, last = net(frames)
    _, state = net(frames[:, :2])
    outputs, after = net(frames[:, 2:], detach_state(state))
    torch.testing.assert_close(outputs, [each[:, 2:] for each in whole])
    torch.testing.assert_close(after, last)
    assert not torch.allclose(net(frames[:, 2:])[0][1], outputs[1])
    anew, _ = net(frames[:, 2:], reset_state(state, torch.tensor([True, True])))
    torch.testing.assert_close(anew, net(frames[:, 2:])[0])


@pytest.mark.parametrize("temporal", TEMPORAL)
@pytest.mark.parametrize("stacks", [1, 2])
def test_windows_that_share_frames_equal_whole_ones(temporal, stacks):
    net = network(temporal, stacks=stacks)
    video = torch.randn(2, 6, 1, 19, 22)
    contracted = net.contract(video)
    for start in (0, 1, 2):
        part = slice(start, start + 4)
        window = video[:, part]
        expected = net(window)[0][-1]
        shared = tuple(level[:, part] for level in contracted)
        torch.testing.assert_close(net.embed(window, shared), expected[:, -2:], atol=1e-5, rtol=0)
        torch.testing.assert_close(net.embed(window, last=3), expected[:, -3:], atol=1e-5, rtol=0)
    torch.testing.assert_close(net.embed(window, shared, last=4), expected, atol=1e-5, rtol=0)


def test_a_window_expands_no_more_frames_than_asked_for():
    net = network()
    seen = []
    net.stacks[1].exit.register_forward_hook(lambda _, x, y: seen.append(len(x[0])))
    net.embed(torch.randn(1, 5, 1, 16, 16), last=2)
    assert seen == [2]


def window_cost(network: StackedHourglass, size: tuple[int, int], length: int, last: int = 2) -> tuple[int, int]:
    """Multiply-adds of `forward` over a whole window, and of `contract` for one frame plus `embed` for a window.

    The convolutions are counted as they run, on tensors without data.
    """
    network = copy.deepcopy(network).to("meta")
    window = torch.empty(1, length, 1, *size, device="meta")
    with torch.no_grad():
        shared = network.contract(window)
        with FlopCounterMode(display=False) as whole:
            network(window)
        with FlopCounterMode(display=False) as parts:
            network.contract(window[:, :1])
            network.embed(window, shared, last)
    return whole.get_total_flops() // 2, parts.get_total_flops() // 2


def test_cost_of_windows_counted_by_hand():
    net = StackedHourglass(8, 1, 4, 2)
    pixels, length = 12 * 10, 5
    convolution, one, exit_ = 9 * 8 * 8, 8, 8 * 4
    # Per frame: contracting 1, input half 3, hidden half 3 (none at the first frame), expanding 1 convolution.
    first = (one + 4 * convolution) * length + 3 * convolution * (length - 1) + (convolution + exit_) * length
    whole = 2 * first + 4 * one * length  # the second's input has four channels more
    after = 3 * convolution * (length - 1) + (convolution + exit_) * length
    second = (5 * one + 4 * convolution) * length + 3 * convolution * (length - 1) + (convolution + exit_) * 2
    shared = (one + 4 * convolution) + after + second
    assert window_cost(net, (12, 10), length) == (pixels * whole, pixels * shared)
    assert next(net.parameters()).device.type == "cpu"


@pytest.mark.parametrize("temporal", TEMPORAL)
def test_cost_of_windows_of_every_kind(temporal):
    whole, shared = window_cost(StackedHourglass(8, 3, 4, 2, temporal), (32, 24), 8)
    if temporal == "volumetric":
        assert shared >= whole
    else:
        assert shared < 0.75 * whole


@pytest.mark.parametrize("temporal", TEMPORAL)
def test_bfloat16_and_channels_last(temporal):
    # torch 2.13 reads memory that was never written for bfloat16 gradients of channels_last_3d layers; RSHN avoids it
    layout = torch.contiguous_format if temporal == "volumetric" else torch.channels_last
    net = network(temporal, features=8).to(memory_format=layout)
    frames = torch.randn(2, 2, 1, 17, 16)
    expected, _ = net(frames)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, state = net(frames)
        net(frames, state)
        window = net.embed(frames, net.contract(frames), last=1)
    for each, want in zip(outputs, expected, strict=True):
        assert each.dtype == torch.bfloat16
        assert (each.float() - want).abs().max() < 0.05 * want.abs().max()
    torch.testing.assert_close(window, outputs[1][:, -1:], atol=0.02, rtol=0.02)
    sum(each.float().square().mean() for each in outputs).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())
    if temporal == "recurrent":  # no layer falls back to another layout
        hidden = net.stacks[0].remember(net.stacks[0].contract(frames))[0][0]
        assert hidden[:, 0].is_contiguous(memory_format=torch.channels_last)


def kept_bytes(net, frames):
    """What the forward pass keeps for the backward pass."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs, _ = net(frames)
    return sum(kept.values()), outputs


def test_recomputing_saves_memory_and_changes_nothing():
    keeping, frames = network(), torch.randn(2, 4, 1, 33, 32)
    saving = StackedHourglass(6, 4, 5, recompute=True)
    saving.load_state_dict(keeping.state_dict())
    (most, expected), (least, outputs) = kept_bytes(keeping, frames), kept_bytes(saving, frames)
    assert least < 0.7 * most
    for each in (expected, outputs):
        sum(o.square().sum() for o in each).backward()
    for one, other in zip(expected, outputs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    for one, other in zip(keeping.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-6)


def test_wrong_options_are_named():
    with pytest.raises(InputError, match="levels 0"):
        StackedHourglass(levels=0)
    with pytest.raises(InputError, match="temporal 'lstm'"):
        StackedHourglass(temporal="lstm")
