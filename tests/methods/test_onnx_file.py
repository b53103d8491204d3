"""Networks as ONNX files, run by onnxruntime."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_cells.errors import InputError
from lightning_cells.methods import RSHN, ULSTM, GRUUNet
from lightning_cells.methods.base import CellMethod
from lightning_cells.methods.building import Preprocessing
from lightning_cells.methods.onnx_file import write_onnx
from lightning_cells.networks import architectures

PREPROCESSING = Preprocessing("zscore", 0.5, 15.0)


def unet() -> CellMethod:
    return GRUUNet(network=architectures.UNet(width=0.25, levels=2))


def single_frame() -> CellMethod:
    return ULSTM(channels=(4, 8), lstm_kernel=3, temporal="single-frame")


@pytest.mark.slow
@pytest.mark.parametrize("make", [unet, single_frame])
def test_another_program_gets_the_same_probabilities(make: CellMethod, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    method = make().eval()
    path = write_onnx(method, PREPROCESSING, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(path))
    assert session.get_modelmeta().custom_metadata_map["normalisation"] == "zscore"
    for shape in ((1, 1, 40, 56), (3, 1, 33, 71)):
        frames = torch.randn(shape)
        with torch.inference_mode():
            logits = method.network(frames) if isinstance(method, GRUUNet) else method.network(frames[:, None])[0][:, 0]
        (ours,) = session.run(None, {"frames": frames.numpy()})
        np.testing.assert_allclose(ours, logits.softmax(1).numpy(), atol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("method", [ULSTM(channels=(4, 8)), RSHN(features=4, levels=2, embedding=4)])
def test_networks_with_a_memory_are_refused(method: CellMethod, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--to onnx: (ULSTM|RSHN) looks at several frames"):
        write_onnx(method, PREPROCESSING, tmp_path / "net.onnx")
