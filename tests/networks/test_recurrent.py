"""ConvLSTM against a cell written out frame by frame, and the helpers for its state."""

import pytest
import torch
from torch.nn import functional as F

from lightning_cells.errors import InputError
from lightning_cells.networks.recurrent import (
    ConvLSTM,
    detach_state,
    merge_time,
    reset_state,
    split_time,
)

NORMS = ["none", "group", "layer"]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def standardise(x, groups):
    """Zero mean and unit variance over equal slices of channels and all pixels, by hand."""
    parts = []
    for part in x.chunk(groups, dim=1):
        mean = part.mean(dim=(1, 2, 3), keepdim=True)
        var = ((part - mean) ** 2).mean(dim=(1, 2, 3), keepdim=True)
        parts.append((part - mean) / (var + 1e-5).sqrt())
    return torch.cat(parts, dim=1)


def plain_lstm(layer, clip, state):
    """One convolution over [x, h] per frame (two for the layer-norm cell); state always given."""
    p = dict(layer.named_parameters())

    def channels(name):
        return p[name].view(-1, 1, 1)

    wx, wh = p["input_conv.weight"], p["hidden_conv.weight"]
    pad = wx.shape[-1] // 2
    h, c = state
    outputs = []
    for t in range(clip.shape[1]):
        x = clip[:, t]
        if layer.norm == "layer":
            gates = standardise(F.conv2d(x, wx, padding=pad), 1) * channels("input_norm.weight")
            gates = gates + standardise(F.conv2d(h, wh, padding=pad), 1) * channels("hidden_gain")
            gates = gates + channels("input_norm.bias")
        else:
            gates = F.conv2d(torch.cat([x, h], 1), torch.cat([wx, wh], 1), p["input_conv.bias"], padding=pad)
        if layer.norm == "group":
            gates = standardise(gates, 4) * channels("gate_norm.weight") + channels("gate_norm.bias")
        i, g, f, o = torch.split(gates, layer.hidden, dim=1)
        c = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(g)
        if layer.norm == "layer":
            c = standardise(c, 1) * channels("cell_norm.weight") + channels("cell_norm.bias")
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs, dim=1), (h, c)


def random_layer(norm, inputs=2, hidden=3, kernel=3):
    layer = ConvLSTM(inputs, hidden, kernel, norm).double()
    with torch.no_grad():
        for parameter in layer.parameters():  # gains and shifts too, so that each is seen
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


def random_state(batch=2, hidden=3, size=(6, 5)):
    return tuple(torch.randn(batch, hidden, *size, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("given", [True, False])
def test_equals_a_plain_cell_in_value_and_gradient(norm, given):
    layer = random_layer(norm)
    clip = torch.randn(2, 4, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    state = random_state()
    zero = tuple(torch.zeros_like(part) for part in state)
    output, after = layer(clip, state if given else None)
    expected, expected_after = plain_lstm(layer, clip, state if given else zero)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(after, expected_after)

    wanted = [clip, *layer.parameters()]
    probe = torch.randn_like(expected)
    got = torch.autograd.grad((output * probe).sum() + after[1].sum(), wanted)
    want = torch.autograd.grad((expected * probe).sum() + expected_after[1].sum(), wanted)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)
        assert b.abs().sum() > 0


@pytest.mark.parametrize("norm", NORMS)
def test_state_carried_over_two_halves_equals_one_clip(norm):
    layer = random_layer(norm, kernel=5)
    clip = torch.randn(2, 5, 2, 6, 5, dtype=torch.float64)
    whole, last = layer(clip)
    first, state = layer(clip[:, :2])
    second, state = layer(clip[:, 2:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(state, last)


def test_one_input_convolution_per_clip():
    layer = ConvLSTM(2, 3, 3)
    seen = {"input": [], "hidden": []}
    layer.input_conv.register_forward_hook(lambda _, x, y: seen["input"].append(len(x[0])))
    layer.hidden_conv.register_forward_hook(lambda _, x, y: seen["hidden"].append(len(x[0])))
    layer(torch.randn(2, 5, 2, 6, 6))
    assert seen == {"input": [10], "hidden": [2] * 4}  # no hidden state at the first frame


def test_zero_input_stays_zero():
    output, state = ConvLSTM(1, 4, 3)(torch.zeros(2, 3, 1, 5, 5))
    assert not output.any()
    assert not state[0].any()
    assert not state[1].any()


def test_forget_gate_starts_at_sigmoid_of_one():
    layer = ConvLSTM(1, 2, 3)
    torch.nn.init.zeros_(layer.input_conv.weight)
    torch.nn.init.zeros_(layer.hidden_conv.weight)
    state = (torch.zeros(1, 2, 4, 4), torch.ones(1, 2, 4, 4))
    _, (_, c) = layer(torch.randn(1, 1, 1, 4, 4), state)
    torch.testing.assert_close(c, torch.full_like(c, 0.7310586))


def test_kernels_are_glorot_uniform_and_biases_zero():
    layer = ConvLSTM(20, 12, 5)
    bound = (6 / (25 * (20 + 12) + 25 * 48)) ** 0.5
    for weight in (layer.input_conv.weight, layer.hidden_conv.weight):
        assert weight.abs().max() <= bound
        assert weight.abs().max() > 0.98 * bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert not layer.input_conv.bias.any()
    assert layer.hidden_conv.bias is None


def test_detach_stops_gradients_and_keeps_values():
    layer = ConvLSTM(1, 2, 3)
    early = torch.randn(1, 2, 1, 4, 4, requires_grad=True)
    late = torch.randn(1, 2, 1, 4, 4)
    _, state = layer(early)
    connected = layer(late, state)[0]
    cut = layer(late, detach_state(state))[0]
    torch.testing.assert_close(cut, connected)
    assert torch.autograd.grad(connected.sum(), early)[0].abs().sum() > 0
    cut.sum().backward()
    assert early.grad is None
    assert layer.input_conv.weight.grad is not None


def test_reset_starts_a_lane_anew_and_leaves_the_others():
    layer = ConvLSTM(1, 2, 3)
    early = torch.randn(3, 2, 1, 4, 4, requires_grad=True)
    late = torch.randn(3, 2, 1, 4, 4)
    _, state = layer(early)
    after = layer(late, reset_state(state, torch.tensor([False, True, False])))[0]
    fresh = layer(late)[0]
    carried = layer(late, state)[0]
    torch.testing.assert_close(after[1], fresh[1])
    torch.testing.assert_close(after[[0, 2]], carried[[0, 2]])
    assert not torch.allclose(fresh, carried)
    (gradient,) = torch.autograd.grad(after.sum(), early)
    assert not gradient[1].any()
    assert gradient[0].any()
    assert gradient[2].any()


def test_state_helpers_follow_nesting_and_clear_nan():
    level = (torch.full((2, 1, 2, 2), float("nan")), torch.ones(2, 1, 4, 4))
    state = (level, (torch.ones(2, 3), None))
    cleared = reset_state(state, torch.tensor([True, False]))
    assert not cleared[0][0][0].any()
    assert cleared[0][0][1].isnan().all()
    assert cleared[0][1].sum() == 16
    torch.testing.assert_close(cleared[1][0], torch.tensor([[0.0] * 3, [1.0] * 3]))
    assert cleared[1][1] is None
    assert state[0][1].sum() == 32  # the given one is not changed
    assert detach_state(state)[1][1] is None
    assert detach_state(None) is None
    assert reset_state(None, torch.tensor([True])) is None


def test_time_is_merged_and_split_without_copies():
    clip = torch.randn(2, 3, 4, 5, 6)
    merged = merge_time(clip)
    torch.testing.assert_close(merged[0 * 2 + 1], clip[1, 0])
    torch.testing.assert_close(merged[2 * 2 + 0], clip[0, 2])
    back = split_time(merged, 2)
    torch.testing.assert_close(back, clip)
    assert merge_time(back).data_ptr() == merged.data_ptr()


@pytest.mark.parametrize("norm", NORMS)
def test_bfloat16_keeps_the_cell_in_float32(norm):
    layer = ConvLSTM(2, 4, 3, norm)
    clip = torch.randn(1, 3, 2, 8, 8)
    expected, _ = layer(clip)
    with torch.autocast("cpu", torch.bfloat16):
        output, state = layer(clip)
        output, state = layer(clip, reset_state(detach_state(state), torch.tensor([True])))
    assert state[1].dtype == torch.float32
    torch.testing.assert_close(output.float(), expected, atol=0.05, rtol=0.05)
    output.float().sum().backward()
    assert layer.hidden_conv.weight.grad.isfinite().all()


def test_channels_last_is_kept():
    layer = ConvLSTM(8, 8, 3)
    clip = torch.randn(2, 3, 8, 6, 6)
    expected, _ = layer(clip)
    layer = layer.to(memory_format=torch.channels_last)
    frames = merge_time(clip).to(memory_format=torch.channels_last)
    output, state = layer(split_time(frames, 2))
    assert merge_time(output).is_contiguous(memory_format=torch.channels_last)
    assert state[1].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("norm", ["none", "group", "layer"])
def test_each_weight_has_a_gradient_after_a_single_frame(norm):
    """Without one DDP waits for it in vain."""
    lstm = ConvLSTM(2, 3, 3, norm)
    clip = torch.randn(2, 1, 2, 5, 6)
    outputs, _ = lstm(clip)
    outputs.sum().backward()
    assert all(weight.grad is not None for weight in lstm.parameters())
    torch.testing.assert_close(outputs, lstm.eval()(clip)[0])


def test_wrong_options_are_named():
    with pytest.raises(InputError, match="kernel 4"):
        ConvLSTM(1, 2, 4)
    with pytest.raises(InputError, match="norm 'batch'"):
        ConvLSTM(1, 2, 3, "batch")
