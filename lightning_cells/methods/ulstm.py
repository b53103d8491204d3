"""U-LSTM: a U-Net with convolutional LSTMs in its decoder (Arbelle & Riklin Raviv, ISBI 2019)."""

from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cells.data.clips import Clip
from lightning_cells.errors import InputError
from lightning_cells.instances.components import Decoder, SeedDecoder
from lightning_cells.instances.linkers import Linker, Overlap
from lightning_cells.methods.colours import class_colours
from lightning_cells.methods.lanes import Lanes
from lightning_cells.methods.objectives import Objective, ThreeClass
from lightning_cells.methods.optimisation import Optimization
from lightning_cells.methods.segmented import SegmentingMethod, few_at_once
from lightning_cells.networks.ulstm import ULSTM as Network

_PADDING = 8  # pixels mirrored around a frame at inference, so that its border is seen like its middle


class ULSTM(SegmentingMethod):
    """Segments with temporal context carried by convolutional LSTMs, and leaves tracking to a linker.

    Trained by truncated backpropagation through time: with ``data.streaming`` each lane of the batch runs through a
    video in clips, and its recurrent state is carried, detached, from clip to clip.

    Args:
        channels: width of each level, from full resolution down.
        kernel: side of the encoder's convolutions.
        lstm_kernel: side of the recurrent convolutions (paper 7; the authors' parameter file for SIM+ has 5).
        norm: normalisation of the gates: ``none`` as in the paper, ``group`` or ``layer``.
        temporal: ``recurrent``, or ``single-frame`` with plain convolutions in place of the LSTMs.
        recompute: save memory in training by running the LSTMs again in the backward pass.
        bn_momentum: batch norm's momentum in torch's sense (TensorFlow's 0.99 is 0.01).
        bn_eval: statistics of batch norm in evaluation: ``running``, or the ``batch``'s as in the authors' code.
        loss: what the network is trained for: `ThreeClass` cross entropy (equation 3), or U-Net's weighted
            cross entropy `TwoClass` (appendix A).
        optimization: how it is trained; the paper's optimiser is ``rmsprop``.
        warm_up_frames: frames played backwards before a video starts, to fill the recurrent state.
        decoder: class probabilities -> cells.
        linker: cells of consecutive frames -> tracks.
    """

    paper = "Arbelle & Riklin Raviv, ISBI 2019"

    def __init__(
        self,
        channels: tuple[int, ...] = (32, 64, 128, 256),
        kernel: int = 3,
        lstm_kernel: int = 7,
        norm: Literal["none", "group", "layer"] = "none",
        temporal: Literal["recurrent", "single-frame"] = "recurrent",
        recompute: bool = False,
        bn_momentum: float = 0.01,
        bn_eval: Literal["running", "batch"] = "running",
        loss: Objective = ThreeClass(),  # noqa: B008 - frozen
        optimization: Optimization = Optimization("rmsprop", 1e-4),  # noqa: B008 - frozen
        warm_up_frames: int = 4,
        decoder: Decoder = SeedDecoder(),  # noqa: B008 - frozen
        linker: Linker = Overlap(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        if warm_up_frames < 0:
            raise InputError(f"model.warm_up_frames={warm_up_frames}: must be 0 or more")
        if not 0 <= bn_momentum <= 1:
            raise InputError(f"model.bn_momentum={bn_momentum}: must be between 0 and 1")
        self.remember()
        self.optimization = optimization
        self.decoder = decoder
        self.linker = linker
        self.network = Network(
            channels=tuple(channels),
            kernel=kernel,
            lstm_kernel=lstm_kernel,
            classes=len(loss.names),
            norm=norm,
            temporal=temporal,
            bn_momentum=bn_momentum,
            bn_eval=bn_eval,
            recompute=recompute,
        )
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a tenth faster with bfloat16
        self.clip_target = loss.target
        self.objective, self.loss = loss, loss.build()
        self._lanes = Lanes()

    def training_step(self, clip: Clip, batch_idx: int) -> Tensor:
        """One clip of every lane."""
        logits, state = self.network(clip.frames, self._lanes.before(clip))
        self._lanes.after(clip, state)
        loss = self.loss(logits, **self.objective.truth(clip))
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(clip.frames))
        return loss

    def on_fit_start(self) -> None:
        """Refuses layers that have lost what `bn_eval` asks for.

        Raises:
            InputError: for ``trainer.sync_batchnorm``, which replaces them, with ``bn_eval`` ``batch``.
        """
        replaced = any(isinstance(layer, nn.SyncBatchNorm) for layer in self.network.modules())
        if replaced and self.hparams["bn_eval"] == "batch":
            raise InputError(
                "trainer.sync_batchnorm=true: does not go with model.bn_eval=batch: leave out one of the two"
            )

    def on_train_epoch_end(self) -> None:
        """Forgets the lanes, which start anew with each epoch."""
        self._lanes.forget()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remembers the lanes, too, so that training can go on in the middle of an epoch."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["lanes"] = self._lanes.save()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes up the lanes where they were."""
        if self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING and "lanes" in checkpoint:
            count = self.trainer.datamodule.batch_size  # type: ignore[attr-defined]
            self._lanes.load(checkpoint["lanes"], self.trainer.global_rank * count, count)

    @property
    def first_chunk(self) -> int:
        """How many frames the first chunk of a video needs, if the video has as many: those of the warm-up, too."""
        return 1 + self.hparams["warm_up_frames"]

    def picture(self, frames: Tensor) -> np.ndarray:
        """Draws the class probabilities of the last of some frames, float32 (T, 1, h, w): uint8 (h, w, 3)."""
        return class_colours(self.of_frames(frames, None)[0][-1])

    def probabilities(self, frames: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Class probabilities, float32 (B, T, C, h, w), of the frames that follow a state, and the state after them."""
        height, width = frames.shape[-2:]
        padded = _mirror(frames)
        if state is None:
            state = self._played_backwards(padded)
        probabilities = []
        for part in few_at_once(padded, 1):
            logits, state = self.network(part, state)
            inside = logits[..., _PADDING : _PADDING + height, _PADDING : _PADDING + width]
            probabilities.append(inside.float().softmax(2))
        return torch.cat(probabilities, 1), state

    def warmed(self, frames: Tensor) -> Any:
        """The state after the frames behind the first one, (B, T, 1, h, w), played backwards."""
        return self._played_backwards(_mirror(frames[:, : self.first_chunk]))

    def _played_backwards(self, padded: Tensor) -> Any:
        state = None
        before = padded[:, 1 : self.first_chunk]
        if before.shape[1] and self.hparams["temporal"] == "recurrent":
            for part in few_at_once(before.flip(1), 1):
                _, state = self.network(part, state)
        return state


def _mirror(frames: Tensor) -> Tensor:
    """Pads (B, T, 1, H, W) by `_PADDING` pixels on all sides."""
    fits = min(frames.shape[-2:]) > _PADDING
    padded = F.pad(frames.flatten(0, 1), [_PADDING] * 4, mode="reflect" if fits else "replicate")
    return padded.unflatten(0, frames.shape[:2])
