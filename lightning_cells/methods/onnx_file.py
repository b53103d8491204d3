"""The network of a method that segments frame by frame, as an ONNX file for other programs."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_cells.data.atomic import writing
from lightning_cells.errors import InputError
from lightning_cells.methods.base import CellMethod
from lightning_cells.methods.building import Preprocessing
from lightning_cells.methods.frame_method import FrameMethod
from lightning_cells.methods.ulstm import ULSTM

_SIDE = 64  # of the frames by which the network is traced; any others go, too


def write_onnx(method: CellMethod, preprocessing: Preprocessing, path: Path) -> Path:
    """Writes a network with what its frames need, of any number and size.

    Its input ``frames`` is float32 (N, 1, H, W): normalised and scaled as the file's metadata ``normalisation``,
    ``scale`` and ``smoothing`` say, in the words of `data.intensity.prepare`; its output ``probabilities`` is float32
    (N, C, H, W), background first. Cells are cut out of these, and linked, by whoever reads it.

    Raises:
        InputError: for a method that remembers frames or does not give probabilities, and without the package onnx.
    """
    network = _Probabilities(_network(method)).eval()
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError("--to onnx: needs two packages more: pip install 'lightning-cells[onnx]'") from None
    example = torch.zeros(2, 1, _SIDE, _SIDE + 16)  # two unlike sides, so that neither is taken for the other
    free = torch.export.Dim.DYNAMIC
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["frames"],
            output_names=["probabilities"],
            dynamic_shapes={"frames": {0: free, 2: free, 3: free}},
        )
    assert program is not None
    facts = {**preprocessing._asdict(), "method": type(method).__name__}
    program.model.metadata_props.update({name: str(value) for name, value in facts.items()})
    with writing(path) as temporary:
        program.save(temporary)
    return path


class _Probabilities(nn.Module):
    """Frames (N, 1, H, W) -> class probabilities (N, C, H, W)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Tensor:
        return self.network(frames).softmax(1)


class _EachAlone(nn.Module):
    """A network of clips without memory, for frames: (N, 1, H, W) -> logits (N, C, H, W)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Tensor:
        logits, _ = self.network(frames[:, None])
        return logits[:, 0]


def _network(method: CellMethod) -> nn.Module:
    if isinstance(method, FrameMethod):
        return method.network
    if isinstance(method, ULSTM) and method.hparams["temporal"] == "single-frame":
        return _EachAlone(method.network)
    raise InputError(
        f"--to onnx: {type(method).__name__} looks at several frames, which no reader of ONNX hands on: register the "
        "model instead, whose server takes whole videos"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torch's exporter from speaking of packages that it does not need."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
