"""Large frames go through a network a few at a time, which changes nothing but the memory."""

import numpy as np
import pytest
import torch

from lightning_cells.methods import segmented as module
from lightning_cells.methods.gruunet import GRUUNet
from lightning_cells.methods.ulstm import ULSTM
from lightning_cells.networks.architectures import UNet


def methods():
    torch.manual_seed(0)
    yield ULSTM(channels=(4, 6), warm_up_frames=3)
    yield ULSTM(channels=(4, 6), temporal="single-frame")
    yield GRUUNet(network=UNet(width=0.1))
    yield GRUUNet(network=UNet(width=0.1), tile=32)


@pytest.mark.parametrize("method", list(methods()), ids=["ulstm", "single-frame", "whole", "tiles"])
def test_few_frames_at_once(method, monkeypatch):
    method.eval()
    frames = torch.randn(7, 1, 40, 48)
    given = []
    method.network.register_forward_pre_hook(lambda network, inputs: given.append(inputs[0].shape))

    def probabilities() -> np.ndarray:
        given.clear()
        return method.open_video((40, 48)).segment(frames).numpy()

    whole = probabilities()
    pixels = max(shape[-1] * shape[-2] for shape in given)
    assert {shape.numel() // pixels for shape in given} >= {7}
    monkeypatch.setattr(module, "_PIXELS", 2 * pixels + 1)
    np.testing.assert_allclose(probabilities(), whole, atol=1e-5)
    assert {shape.numel() // pixels for shape in given} == {1, 2}
    monkeypatch.setattr(module, "_PIXELS", 1)
    np.testing.assert_allclose(probabilities(), whole, atol=1e-5)
    assert {shape.numel() // pixels for shape in given} == {1}
