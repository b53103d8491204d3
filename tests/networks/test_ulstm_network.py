"""The U-LSTM's size, wiring, state and options."""

import pytest
import torch
from torch.nn import functional as F

from lightning_cells.errors import InputError
from lightning_cells.networks.recurrent import detach_state, reset_state
from lightning_cells.networks.ulstm import ULSTM

SMALL = (4, 6, 8, 10)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def small(**options):
    return ULSTM(SMALL, lstm_kernel=3, **options)


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("kernel", "parameters"), [(7, 42_940_067), (5, 22_099_619), (3, 8_205_987)])
def test_parameters_of_the_paper(kernel, parameters):
    with torch.device("meta"):
        network = ULSTM(lstm_kernel=kernel)
    assert count(network) == parameters


def test_parameters_of_a_small_network_with_normalised_gates():
    # 4 gates * (8+16+32+64) channels * (gain and shift) more than without
    with torch.device("meta"):
        plain = ULSTM((8, 16, 32, 64), lstm_kernel=3)
        grouped = ULSTM((8, 16, 32, 64), lstm_kernel=3, norm="group")
    assert count(plain) == 513_579
    assert count(grouped) == 514_539


def plain_forward(network, clip):
    """The same network written out for one frame after the other, in evaluation mode."""
    p = network.state_dict()
    levels = len(network.encoder)
    state = [None] * levels
    outputs = []
    for t in range(clip.shape[1]):
        x = clip[:, t]
        skips = []
        for level in range(levels):
            if level:
                x = F.max_pool2d(x, 2, stride=2, ceil_mode=True)
            weights = {
                name: p[f"encoder.{level}.{name}"]
                for name in ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var")
            }
            x = F.conv2d(x, weights["0.weight"], weights["0.bias"], padding=1)
            mean, var = (weights[f"1.running_{what}"].view(-1, 1, 1) for what in ("mean", "var"))
            x = (x - mean) / (var + 1e-3).sqrt()
            x = x * weights["1.weight"].view(-1, 1, 1) + weights["1.bias"].view(-1, 1, 1)
            x = torch.where(x > 0, x, 0.1 * x)
            skips.append(x)
        for level in range(levels - 1, -1, -1):
            if level < levels - 1:
                size = skips[level].shape[-2:]
                up = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
                x = torch.cat([up, skips[level]], dim=1)
            else:
                x = skips[level]
            wx = p[f"decoder.{level}.input_conv.weight"]
            wh = p[f"decoder.{level}.hidden_conv.weight"]
            if state[level] is None:
                zero = x.new_zeros(len(x), wh.shape[1], *x.shape[-2:])
                state[level] = (zero, zero)
            h, c = state[level]
            bias = p[f"decoder.{level}.input_conv.bias"]
            gates = F.conv2d(torch.cat([x, h], 1), torch.cat([wx, wh], 1), bias, padding=wx.shape[-1] // 2)
            i, g, f, o = gates.chunk(4, dim=1)
            c = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(g)
            x = torch.sigmoid(o) * torch.tanh(c)
            state[level] = (x, c)
        outputs.append(F.conv2d(x, p["head.weight"], p["head.bias"]))
    return torch.stack(outputs, dim=1), tuple(state)


def test_equals_the_network_written_out():
    network = ULSTM(SMALL, lstm_kernel=5).double()
    clip = torch.randn(2, 3, 1, 19, 14, dtype=torch.float64)
    network.train()(clip)  # moves the running statistics from where they start
    network.eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "bias" in name:
                parameter.normal_()
        output, state = network(clip)
        expected, expected_state = plain_forward(network, clip)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(state, expected_state)


def test_any_frame_size_and_state_shapes():
    network = small()
    logits, state = network(torch.randn(2, 3, 1, 67, 53))
    assert logits.shape == (2, 3, 3, 67, 53)
    sizes = [(67, 53), (34, 27), (17, 14), (9, 7)]
    assert [tuple(h.shape) for h, _ in state] == [(2, width, *size) for width, size in zip(SMALL, sizes, strict=True)]
    assert all(h.shape == c.shape for h, c in state)


@pytest.mark.parametrize("norm", ["none", "group", "layer"])
def test_state_carried_over_clips_equals_one_clip(norm):
    network = small(norm=norm).double().eval()
    clip = torch.randn(2, 4, 1, 20, 17, dtype=torch.float64)
    with torch.no_grad():
        whole, last = network(clip)
        first, state = network(clip[:, :1])
        second, state = network(clip[:, 1:], detach_state(state))
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(state, last)
    assert not torch.allclose(network(clip[:, 1:])[0], second)


def test_lanes_are_reset_on_every_level():
    network = small().eval()
    clip = torch.randn(2, 2, 1, 16, 16)
    with torch.no_grad():
        _, state = network(clip)
        after, _ = network(clip, reset_state(state, torch.tensor([True, False])))
        fresh, _ = network(clip)
        carried, _ = network(clip, state)
    torch.testing.assert_close(after[0], fresh[0])
    torch.testing.assert_close(after[1], carried[1])


@pytest.mark.parametrize("norm", ["none", "group", "layer"])
@pytest.mark.parametrize("temporal", ["recurrent", "single-frame"])
def test_gradient_reaches_every_parameter(norm, temporal):
    network = small(norm=norm, temporal=temporal).double()  # in single precision a bias before a norm shows noise
    logits, _ = network(torch.randn(2, 3, 1, 24, 24, dtype=torch.float64))
    (logits * torch.randn_like(logits)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if not (name.startswith("encoder") and name.endswith("0.bias")):  # batch normalisation takes it away
            assert parameter.grad.abs().max() > 1e-6, name


def test_single_frame_network_has_no_memory():
    network = ULSTM(SMALL, temporal="single-frame").eval()
    clip = torch.randn(2, 3, 1, 19, 21)
    with torch.no_grad():
        logits, state = network(clip)
        alone = torch.stack([network(clip[:, t : t + 1])[0][:, 0] for t in range(3)], dim=1)
    assert state is None
    assert logits.shape == (2, 3, 3, 19, 21)
    torch.testing.assert_close(logits, alone)
    convolutions = [m for m in network.decoder.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [m.kernel_size for m in convolutions] == [(3, 3)] * 4


def test_batch_statistics_at_evaluation():
    running, batch = small(), small(bn_eval="batch")
    batch.load_state_dict(running.state_dict())
    clip = 3 + 2 * torch.randn(2, 3, 1, 16, 16)
    with torch.no_grad():
        in_training, _ = batch.train()(clip)
        before = batch.encoder[0][1].running_mean.clone()
        assert before.abs().max() > 0  # training does follow the statistics
        with_batch, _ = batch.eval()(clip)
        with_running, _ = running.eval()(clip)
    torch.testing.assert_close(with_batch, in_training)
    torch.testing.assert_close(batch.encoder[0][1].running_mean, before)
    assert not torch.allclose(with_running, with_batch, atol=1e-3)


def test_batch_norm_constants():
    norms = [m for m in small(bn_momentum=0.01).modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert [(m.eps, m.momentum) for m in norms] == [(1e-3, 0.01)] * 4


def test_channels_last_and_bfloat16_run():
    network = small()
    clip = torch.randn(2, 3, 1, 24, 20)
    expected, _ = network(clip)
    network = network.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        logits, state = network(clip)
        logits, state = network(clip, detach_state(state))
        again, _ = network(clip)
    assert logits.dtype == torch.bfloat16
    assert all(c.dtype == torch.float32 for _, c in state)
    torch.testing.assert_close(again.float(), expected, atol=0.1, rtol=0.1)
    logits.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("norm", ["none", "group", "layer"])
def test_recomputing_changes_nothing(norm):
    keeping, clip = small(norm=norm), torch.randn(2, 3, 1, 24, 20)
    saving = small(norm=norm, recompute=True)
    saving.load_state_dict(keeping.state_dict())
    runs = []
    saving.decoder[0].register_forward_pre_hook(lambda *_: runs.append(1))
    results = []
    for network in (keeping, saving):
        logits, state = network(clip)
        logits, _ = network(clip, detach_state(state))
        logits.square().sum().backward()
        results.append((logits.detach(), [parameter.grad for parameter in network.parameters()]))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
    assert len(runs) == 3  # twice forward, once more for the backward pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 2}, "kernel 2"),
        ({"lstm_kernel": 4}, "kernel 4"),
        ({"channels": ()}, "channels"),
        ({"temporal": "sometimes"}, "temporal"),
        ({"bn_eval": "none"}, "bn_eval"),
    ],
)
def test_wrong_options_are_named(options, message):
    with torch.device("meta"), pytest.raises(InputError, match=message):
        ULSTM(**options)
