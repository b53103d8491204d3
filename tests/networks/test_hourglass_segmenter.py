"""The hourglass that a cross entropy is trained on, in the comparison of losses on the same network."""

import torch

from lightning_cells.networks.architectures import Hourglass
from lightning_cells.networks.hourglass import StackedHourglass


def test_it_is_the_network_of_the_embeddings_but_for_its_last_layer():
    torch.manual_seed(0)
    segmenter = Hourglass(features=4, levels=3, embedding=5).build(2)
    embedder = StackedHourglass(4, 3, 5, 2, "single-frame")
    ours = {name.removeprefix("network."): value.shape for name, value in segmenter.state_dict().items()}
    theirs = {name: value.shape for name, value in embedder.state_dict().items()}
    assert {name for name in ours if ours[name] != theirs[name]} == {"stacks.1.exit.weight", "stacks.1.exit.bias"}
    assert ours.keys() == theirs.keys()

    weights = {
        name: value for name, value in segmenter.state_dict().items() if ".exit." not in name or "stacks.0" in name
    }
    embedder.load_state_dict({name.removeprefix("network."): value for name, value in weights.items()}, strict=False)
    seen = {}
    for name, network in (("ours", segmenter.network), ("theirs", embedder)):
        network.stacks[1].exit.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]}))
    frames = torch.randn(2, 1, 21, 30)
    logits = segmenter(frames)
    embedder(frames[:, None])
    assert logits.shape == (2, 2, 21, 30)
    torch.testing.assert_close(seen["ours"], seen["theirs"])
    torch.testing.assert_close(logits, segmenter.network.stacks[1].exit(seen["ours"]))


def test_the_papers_size():
    assert sum(p.numel() for p in Hourglass().build(2).parameters()) == 1_554_336 - 14 * 65  # 14 of 16 results less
