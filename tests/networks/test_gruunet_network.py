"""The GRUU-Net against one written out step by step."""

from pathlib import Path

import pytest
import torch
import yaml
from torch.nn import functional as F

import lightning_cells
from lightning_cells.errors import InputError
from lightning_cells.networks import architectures
from lightning_cells.networks.gruunet import GRUUNet

CONF = Path(lightning_cells.__file__).parents[1] / "conf/method/gruunet"
PRESETS = {"paper": 956_242, "frrn_a": 3_751_650, "slim": 450_626, "tiny": 48_090}
SMALL = {"stem": 6, "hidden": 4, "widths": (5, 7), "down": (2, 1), "up": (1,), "growth": 3, "layers": 2}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def network(**options):
    """A small one, in double precision, with nothing left at its initial value."""
    made = GRUUNet(**{**SMALL, "classes": 3, **options}).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        for name, buffer in made.named_buffers():
            if "running" in name:
                buffer.add_(0.3 * torch.rand_like(buffer))
    return made


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_of_the_presets(preset):
    chosen = yaml.safe_load((CONF / f"{preset}.yaml").read_text())["model"]["init_args"]["network"]
    assert chosen["class_path"] == "lightning_cells.networks.architectures.GRUUNet"
    with torch.device("meta"):
        assert count(architectures.GRUUNet(**chosen["init_args"]).build(2)) == PRESETS[preset]


def test_every_preset_has_a_known_size():
    assert {path.stem for path in CONF.glob("*.yaml")} == set(PRESETS)


def test_the_default_is_that_of_the_paper_preset():
    with torch.device("meta"):
        assert count(architectures.GRUUNet().build(2)) == count(GRUUNet()) == PRESETS["paper"]


def normalise_relu(bn, x):
    shape = (1, -1, 1, 1)
    mean, variance = bn.running_mean.view(shape), bn.running_var.view(shape)
    return torch.clamp((x - mean) / (variance + bn.eps).sqrt() * bn.weight.view(shape) + bn.bias.view(shape), min=0)


def dense(layer, x):
    bn, _, conv = layer
    return F.conv2d(normalise_relu(bn, x), conv.weight, padding=conv.weight.shape[-1] // 2)


def pool(x, stride):
    """Largest value of each square, however much of it lies within."""
    rows = [x[..., y : y + stride, :].amax(-2) for y in range(0, x.shape[-2], stride)]
    x = torch.stack(rows, -2)
    return torch.stack([x[..., y : y + stride].amax(-1) for y in range(0, x.shape[-1], stride)], -1)


def unpool(x, stride, like):
    rows = torch.arange(like.shape[-2]) // stride
    columns = torch.arange(like.shape[-1]) // stride
    return x[..., rows, :][..., columns]


def gru_step(gru, x, h):
    """Three convolutions over concatenated inputs."""
    n = gru.hidden

    def conv(x, h, part, hidden):
        weight = torch.cat([gru.input_conv.weight[part * n : (part + 1) * n], hidden], 1)
        return F.conv2d(torch.cat([x, h], 1), weight, gru.input_conv.bias[part * n : (part + 1) * n], padding=1)

    r = torch.sigmoid(conv(x, h, 0, gru.gate_conv.weight[:n]))
    u = torch.sigmoid(conv(x, h, 1, gru.gate_conv.weight[n:]))
    y = torch.tanh(conv(x, r * h, 2, gru.candidate_conv.weight))
    return u * h + (1 - u) * y


def plain(net, frames):
    """Two scales, with two units, one, and one: 2, 2, 4, 2."""
    conv, bn, _ = net.stem
    z = normalise_relu(bn, F.conv2d(frames, conv.weight, padding=2))
    h = F.conv2d(z, net.entry.weight, net.entry.bias)

    def unit(number, stride, z, h):
        frdu = net.units[number]
        x = torch.cat([z, pool(h, stride)], 1)
        for layer in frdu.layers:
            x = torch.cat([x, dense(layer, x)], 1)
        z = dense(frdu.transition, x)
        features = unpool(F.conv2d(z, frdu.exit.weight, frdu.exit.bias), stride, h)
        if not net.grus:
            return z, h + features
        return z, gru_step(net.grus[0 if len(net.grus) == 1 else number], features, h)

    z, h = unit(0, 2, pool(z, 2), h)
    z, h = unit(1, 2, z, h)
    half = z
    z, h = unit(2, 4, pool(z, 2), h)
    z, h = unit(3, 2, unpool(z, 2, half), h)
    conv, bn, _, last = net.head
    x = F.conv2d(torch.cat([unpool(z, 2, h), h], 1), conv.weight, padding=1)
    return F.conv2d(normalise_relu(bn, x), last.weight, last.bias)


@pytest.mark.parametrize("size", [(8, 12), (13, 10), (7, 5), (1, 1)])
@pytest.mark.parametrize("options", [{}, {"share": False}, {"gather": "sum"}])
def test_equals_a_plain_network_in_value_and_gradient(options, size):
    net = network(**options).eval()
    frames = torch.randn(2, 1, *size, dtype=torch.float64)
    logits, expected = net(frames), plain(net, frames)
    assert logits.shape == (2, 3, *size)
    torch.testing.assert_close(logits, expected)
    probe = torch.randn_like(logits)
    parameters = list(net.parameters())
    got = torch.autograd.grad((logits * probe).sum(), parameters)
    want = torch.autograd.grad((expected * probe).sum(), parameters)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


def test_the_states_are_those_on_the_way_to_the_logits():
    net = network().eval()
    frames = torch.randn(1, 1, 9, 12, dtype=torch.float64)
    states = net.states(frames)
    assert [state.shape for state in states] == [(1, 4, 9, 12)] * 4
    z = net.stem(frames)
    h = F.conv2d(z, net.entry.weight, net.entry.bias)
    z, features = net.units[0](pool(z, 2), pool(h, 2))
    torch.testing.assert_close(states[0], gru_step(net.grus[0], unpool(features, 2, h), h))


def test_a_sum_has_no_weights_and_other_ways_are_refused():
    assert count(network(gather="sum")) == count(network()) - count(network().grus)
    with pytest.raises(InputError, match="gather 'mean' of the GRUU-Net: use gru or sum"):
        network(gather="mean")


def test_a_shared_gru_has_one_set_of_weights():
    shared, own = network(), network(share=False)
    assert (len(shared.grus), len(own.grus)) == (1, 4)
    assert count(own) - count(shared) == 3 * count(shared.grus)


def test_every_parameter_learns():
    net = network()
    net(torch.randn(2, 1, 12, 12, dtype=torch.float64)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in net.parameters())


@pytest.mark.parametrize("size", [(67, 53), (1, 1), (3, 40), (16, 16)])
def test_frames_of_any_size(size):
    net = architectures.GRUUNet(stem=8, hidden=4, widths=(8,) * 4, growth=4, layers=2).build(2).eval()
    with torch.no_grad():
        logits = net(torch.randn(2, 1, *size))
    assert logits.shape == (2, 2, *size)
    assert logits.isfinite().all()


def saved_bytes(net, frames):
    """What the backward pass keeps alive, apart from parameters; one storage counts once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = net(frames)
    return sum(kept.values()), logits


def test_recomputing_gives_the_same_for_less_memory():
    frames = torch.randn(2, 1, 33, 20, dtype=torch.float64)
    net = network()
    results = {}
    for recompute in (False, True):
        torch.manual_seed(1)
        other = network(recompute=recompute)
        other.load_state_dict(net.state_dict())
        memory, logits = saved_bytes(other, frames)
        logits.square().sum().backward()
        statistics = [buffer for name, buffer in other.named_buffers() if "running" in name]
        results[recompute] = (memory, logits.detach(), [p.grad for p in other.parameters()], statistics)
    assert results[True][0] < 0.65 * results[False][0]
    for got, want in zip(results[True][1:], results[False][1:], strict=True):
        torch.testing.assert_close(got, want)  # the running statistics saw the batch once, too


def test_bfloat16_and_channels_last():
    net = GRUUNet(**SMALL).to(memory_format=torch.channels_last)
    frames = torch.randn(2, 1, 17, 16)
    expected = net(frames)
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(frames)
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - expected).abs().max() < 0.1 * expected.abs().max()
    logits.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"up": (1, 1)}, "2 widths, 2 down and 2 up"),
        ({"down": (1,)}, "2 widths, 1 down and 1 up"),
        ({"widths": (), "down": (), "up": ()}, "0 widths"),
        ({"widths": (4, 0)}, r"widths \(4, 0\)"),
        ({"down": (1, 0)}, r"down \(1, 0\)"),
        ({"growth": 0}, "growth 0"),
        ({"hidden": -1}, "hidden -1"),
    ],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(InputError, match=named):
        GRUUNet(**{**SMALL, **options})
