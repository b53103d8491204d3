"""ConvGRU against a cell written out frame by frame."""

import pytest
import torch
from torch.nn import functional as F

from lightning_cells.errors import InputError
from lightning_cells.networks.gru import ConvGRU, variance_scaling_
from lightning_cells.networks.recurrent import detach_state, merge_time, reset_state, split_time

CANDIDATES = {"relu": torch.relu, "tanh": torch.tanh}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def plain_gru(layer, clip, h):
    """Three convolutions over concatenated inputs per frame."""
    n = layer.hidden
    wx, bias = layer.input_conv.weight, layer.input_conv.bias
    wr, wu = layer.gate_conv.weight[:n], layer.gate_conv.weight[n:]
    pad = wx.shape[-1] // 2

    def conv(x, part, hidden):
        weight = torch.cat([wx[part * n : (part + 1) * n], hidden], 1)
        return F.conv2d(x, weight, bias[part * n : (part + 1) * n], padding=pad)

    outputs = []
    for t in range(clip.shape[1]):
        x = clip[:, t]
        r = torch.sigmoid(conv(torch.cat([x, h], 1), 0, wr))
        u = torch.sigmoid(conv(torch.cat([x, h], 1), 1, wu))
        y = CANDIDATES[layer.candidate](conv(torch.cat([x, r * h], 1), 2, layer.candidate_conv.weight))
        h = u * h + (1 - u) * y
        outputs.append(h)
    return torch.stack(outputs, 1), h


def random_layer(candidate, kernel=3):
    layer = ConvGRU(2, 3, kernel, candidate).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


@pytest.mark.parametrize("candidate", CANDIDATES)
@pytest.mark.parametrize("given", [True, False])
def test_equals_a_plain_cell_in_value_and_gradient(candidate, given):
    layer = random_layer(candidate)
    clip = torch.randn(2, 4, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    state = torch.randn(2, 3, 6, 5, dtype=torch.float64) if given else torch.zeros(2, 3, 6, 5, dtype=torch.float64)
    output, after = layer(clip, state if given else None)
    expected, expected_after = plain_gru(layer, clip, state)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(after, expected_after)

    wanted = [clip, *layer.parameters()]
    probe = torch.randn_like(expected)
    got = torch.autograd.grad((output * probe).sum() + after.sum(), wanted)
    want = torch.autograd.grad((expected * probe).sum() + expected_after.sum(), wanted)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)
        assert b.abs().sum() > 0


def test_state_carried_over_two_halves_equals_one_clip():
    layer = random_layer("relu", kernel=5)
    clip = torch.randn(2, 5, 2, 6, 5, dtype=torch.float64)
    whole, last = layer(clip)
    first, state = layer(clip[:, :2])
    second, state = layer(clip[:, 2:], detach_state(state))
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(state, last)
    anew, _ = layer(clip[:, 2:], reset_state(state, torch.tensor([True, True])))
    torch.testing.assert_close(anew, layer(clip[:, 2:])[0])


def test_overlapping_clips_share_their_gates():
    layer = random_layer("relu")
    clip = torch.randn(2, 6, 2, 6, 5, dtype=torch.float64)
    gates = layer.gates(clip)
    for start in (0, 2):
        shared = layer.unroll(gates[:, start : start + 3])
        torch.testing.assert_close(shared, layer(clip[:, start : start + 3]))


def test_one_input_convolution_per_clip():
    layer = ConvGRU(2, 3, 3)
    seen = {"input": [], "gate": [], "candidate": []}
    for name, calls in seen.items():
        getattr(layer, f"{name}_conv").register_forward_hook(lambda _, x, y, calls=calls: calls.append(len(x[0])))
    layer(torch.randn(2, 5, 2, 6, 6))
    assert seen == {"input": [10], "gate": [2] * 4, "candidate": [2] * 4}  # no hidden state at the first frame


@pytest.mark.parametrize(("candidate", "scale"), [("relu", 2.0), ("tanh", 1.0)])
def test_initialisation_sees_both_halves_as_one_kernel(candidate, scale):
    layer = ConvGRU(40, 24, 3, candidate)
    fan_in = 9 * (40 + 24)
    gates, last = layer.input_conv.weight[:48], layer.input_conv.weight[48:]
    for weight, factor in [
        (gates, 1.0),
        (layer.gate_conv.weight, 1.0),
        (last, scale),
        (layer.candidate_conv.weight, scale),
    ]:
        assert weight.var().item() == pytest.approx(factor / fan_in, rel=0.05)
        assert weight.abs().max() <= 2 / 0.8796 * (factor / fan_in) ** 0.5
    assert not layer.input_conv.bias.any()


def test_variance_scaling_has_the_variance_it_says():
    weight = variance_scaling_(torch.empty(200, 300), fan_in=50, scale=2.0)
    assert weight.mean().item() == pytest.approx(0, abs=0.005)
    assert weight.var().item() == pytest.approx(2 / 50, rel=0.02)


def test_zero_input_stays_zero():
    output, state = ConvGRU(1, 4, 3)(torch.zeros(2, 3, 1, 5, 5))
    assert not output.any()
    assert not state.any()


def test_bfloat16_and_channels_last():
    layer = ConvGRU(8, 8, 3)
    clip = torch.randn(2, 3, 8, 6, 6)
    expected, last = layer(clip)
    layer = layer.to(memory_format=torch.channels_last)
    frames = split_time(merge_time(clip).to(memory_format=torch.channels_last), 2)
    output, state = layer(frames)
    assert merge_time(output).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output, expected)
    with torch.autocast("cpu", torch.bfloat16):
        output, state = layer(frames)
        layer(frames, state.float())
    assert output.dtype == state.dtype == torch.bfloat16
    torch.testing.assert_close(state.float(), last, atol=0.05, rtol=0.05)
    output.float().sum().backward()
    assert layer.gate_conv.weight.grad.isfinite().all()


def test_each_weight_has_a_gradient_after_a_single_frame():
    """Without one DDP waits for it in vain."""
    gru = ConvGRU(2, 3, 3)
    clip = torch.randn(2, 1, 2, 5, 6)
    outputs, _ = gru(clip)
    outputs.sum().backward()
    assert all(weight.grad is not None for weight in gru.parameters())
    torch.testing.assert_close(outputs, gru.eval()(clip)[0])


def test_wrong_options_are_named():
    with pytest.raises(InputError, match="kernel 4"):
        ConvGRU(1, 2, 4)
    with pytest.raises(InputError, match="candidate 'elu'"):
        ConvGRU(1, 2, 3, "elu")
