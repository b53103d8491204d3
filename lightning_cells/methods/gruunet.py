"""GRUU-Net: a recurrence over scales segments frames, with a focal loss (Wollmann et al., MedIA 2019; paper 002)."""

from typing import Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from lightning_cells.data.clips import Clip
from lightning_cells.data.targets import Contour, ForegroundTarget, ThreeClassTarget
from lightning_cells.instances.components import ArgmaxDecoder, Decoder
from lightning_cells.instances.linkers import Linker, Overlap
from lightning_cells.losses.focal import FocalLoss, Normalize
from lightning_cells.methods.frame_method import FrameMethod
from lightning_cells.methods.optimisation import Optimiser, Schedule, optimiser
from lightning_cells.networks import architectures
from lightning_cells.networks.architectures import Architecture


class GRUUNet(FrameMethod):
    """Segments each frame by itself, trained with the normalised focal loss, and leaves tracking to a linker.

    The frames of a clip are a batch like any other: ``data.clip_length`` is 1 unless several of a video are wanted.

    Args:
        network: which network to train: the GRU-U-Net, or another in the same setting, as a baseline.
        classes: 2 (background and cell, with a pixel of background between cells that touch), or 3 (background,
            interior, contour).
        contour: ``inner`` or ``outer`` single-pixel contour of the third class.
        gamma: exponent of the focal loss; 0 is cross-entropy.
        normalize: what the focal loss is divided by, see `FocalLoss`; ``none`` is the plain focal loss.
        class_weights: weight of each class in the loss; None weights none.
        optimizer: ``amsgrad``, ``adam`` or ``rmsprop``.
        lr: peak learning rate.
        schedule: course of the learning rate.
        warm_up: share of the training in which the learning rate rises.
        decoder: class probabilities -> cells.
        linker: cells of consecutive frames -> tracks.
        tile: side of the tiles into which larger frames are cut at inference, to save memory; None cuts none.
    """

    paper = "Wollmann et al., MedIA 2019"

    def __init__(
        self,
        network: Architecture = architectures.GRUUNet(),  # noqa: B008 - frozen
        classes: Literal[2, 3] = 2,
        contour: Contour = "inner",
        gamma: float = 2.0,
        normalize: Normalize = "sum",
        class_weights: tuple[float, ...] | None = None,
        optimizer: Optimiser = "amsgrad",
        lr: float = 1e-3,
        schedule: Schedule = "one_cycle",
        warm_up: float = 0.0,
        decoder: Decoder = ArgmaxDecoder(),  # noqa: B008 - frozen
        linker: Linker = Overlap(),  # noqa: B008 - frozen
        tile: int | None = None,
    ) -> None:
        super().__init__(network, classes, decoder, linker, tile)
        self.remember(network=network, decoder=decoder, linker=linker)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a fifth faster on a CPU
        self.clip_target = ForegroundTarget() if classes == 2 else ThreeClassTarget(contour)
        self.loss = FocalLoss(gamma, normalize, class_weights)

    def training_step(self, clip: Clip, batch_idx: int) -> Tensor:
        """One batch of frames."""
        logits = self.network(clip.frames.flatten(0, 1))
        loss = self.loss(logits, clip.target["classes"].flatten(0, 1))
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(clip.frames))
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser, with a learning rate that changes with every step."""
        chosen = optimiser(self.network.parameters(), self.hparams["optimizer"], self.hparams["lr"])
        return self.scheduled(chosen)
