"""An estimator trained against a discriminator (Arbelle & Riklin Raviv, ISBI 2018)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from lightning_cells.data.clips import Clip
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.errors import InputError
from lightning_cells.instances.components import ArgmaxDecoder, Decoder
from lightning_cells.instances.linkers import Linker, Overlap
from lightning_cells.methods.frame_method import FrameMethod
from lightning_cells.methods.objectives import Objective, ThreeClass
from lightning_cells.methods.optimisation import Optimization
from lightning_cells.networks.architectures import Architecture, Estimator
from lightning_cells.networks.rib_cage import Discriminator


class Adversarial(FrameMethod):
    """An estimator segments; a discriminator learns to tell its segmentations from manual ones, and so teaches it.

    Training goes in cycles: `discriminator_steps`, then `estimator_steps`. Each is one step of one optimiser on one
    batch, so ``trainer.max_steps`` counts them all, and a training that is resumed goes on within the cycle. Of the
    ``data.batch_size`` clips of a batch the discriminator sees one half with its manual and the other with its
    estimated segmentation; the estimator learns from one half. Plain ``ddp`` will do for several processes.

    Where the truth is unknown both kinds of segmentation are blank, so that it does not give them away.

    Args:
        network: the estimator.
        rib_filters: width of the discriminator's ribs, block by block; see `networks.rib_cage.Discriminator`.
        rib_kernels: side of its kernels, block by block.
        rib_size: side of the crops that its fully connected layers are made for.
        discriminator_steps: of the discriminator in each cycle.
        estimator_steps: of the estimator in each cycle.
        ce_weight: share of the cross entropy in the estimator's loss; the rest is adversarial. 1 is the paper's
            baseline: no discriminator is built, and all steps are the estimator's.
        double_softmax: give the cross entropy probabilities as if they were logits, as the authors' code does in its
            baseline.
        loss: what the cross entropy is; both networks see the segmentations into its classes.
        optimization: of both networks, at a constant learning rate; the paper's optimiser is ``rmsprop``.
        decoder: class probabilities -> cells.
        linker: cells of consecutive frames -> tracks.

    Raises:
        InputError: for a value out of range.
    """

    paper = "Arbelle & Riklin Raviv, ISBI 2018"

    def __init__(
        self,
        network: Architecture = Estimator(),  # noqa: B008 - frozen
        rib_filters: tuple[int, ...] = (8, 32, 64),
        rib_kernels: tuple[int, ...] = (9, 5, 3),
        rib_size: int = 64,
        discriminator_steps: int = 20,
        estimator_steps: int = 10,
        ce_weight: float = 0.0,
        double_softmax: bool = False,
        loss: Objective = ThreeClass(),  # noqa: B008 - frozen
        optimization: Optimization = Optimization("rmsprop", 1e-4),  # noqa: B008 - frozen
        decoder: Decoder = ArgmaxDecoder(edge_distance=2.0),  # noqa: B008 - frozen
        linker: Linker = Overlap(),  # noqa: B008 - frozen
    ) -> None:
        for name, value in (("discriminator_steps", discriminator_steps), ("estimator_steps", estimator_steps)):
            if value < 1:
                raise InputError(f"model.{name}={value}: must be at least 1")
        if not 0 <= ce_weight <= 1:
            raise InputError(f"model.ce_weight={ce_weight}: must be between 0 and 1")
        if double_softmax and ce_weight == 0:
            raise InputError("model.double_softmax: is about the cross entropy: set model.ce_weight above 0")
        if optimization.schedule != "constant" or optimization.warm_up > 0:
            raise InputError("model.optimization: the learning rate is constant: leave out schedule and warm_up")
        super().__init__(network, loss, optimization, decoder, linker)
        self.remember()
        self.automatic_optimization = False
        self.classes = len(loss.names)
        self.discriminator = Discriminator(self.classes, rib_filters, rib_kernels, rib_size) if ce_weight < 1 else None

    def check(self, data: SequenceDataModule, stage: str) -> None:
        """Refuses batches of one frame, of which there is no half."""
        if stage == "fit" and self.discriminator is not None and data.batch_size * data.clip_length < 2:
            raise InputError("data.batch_size=1: the discriminator compares two halves of a batch: set 2 or more")

    @property
    def discriminator_turn(self) -> bool:
        """Whether the next step is the discriminator's."""
        first, second = self.hparams["discriminator_steps"], self.hparams["estimator_steps"]
        return self.discriminator is not None and self.global_step % (first + second) < first

    def training_step(self, clip: Clip, batch_idx: int) -> None:
        """One step of one of the two."""
        frames = clip.frames.flatten(0, 1)
        target = {name: each.flatten(0, 1) for name, each in self.objective.truth(clip).items()}
        classes = target["classes"]
        half = max(1, len(frames) // 2)
        if self.discriminator_turn:
            classes = classes.masked_fill(classes == self.classes, 0)  # cytoplasm, see `ThreeClass`
            loss = self.discriminator_loss(frames[:half], classes[:half], frames[-half:], classes[-half:])
            self._move(1, loss, idle=self.network)
        else:
            loss = self.estimator_loss(frames[:half], **{name: each[:half] for name, each in target.items()})
            self._move(0, loss, idle=self.discriminator)

    def discriminator_loss(self, real: Tensor, real_classes: Tensor, other: Tensor, other_classes: Tensor) -> Tensor:
        """How badly manual segmentations of some images are told from estimated ones of others (equation 3, negated).

        Args:
            real: float32 (B, 1, H, W) frames.
            real_classes: int8 (B, H, W) their manual segmentation, -1 unknown.
            other: frames to be estimated.
            other_classes: their manual segmentation, of which only what is unknown counts.

        Returns:
            The mean over both; the estimator takes no part in its gradient.
        """
        assert self.discriminator is not None
        with _still(self.network):
            estimated = _where_known(self.network(other).float().softmax(1), other_classes)
        wanted = torch.arange(self.classes, device=real.device).view(-1, 1, 1)
        manual = (real_classes[:, None] == wanted).to(estimated.dtype)  # unknown is blank
        right, wrong = self.discriminator(real, manual).float(), self.discriminator(other, estimated).float()
        loss = (F.softplus(-right).mean() + F.softplus(wrong).mean()) / 2
        for name, logits in (("real", right), ("estimated", wrong)):
            self._note(f"D_{name}", logits.detach().sigmoid().mean(), real)
        self._note("discriminator_loss", loss, real)
        return loss

    def estimator_loss(self, frames: Tensor, classes: Tensor, **more: Tensor) -> Tensor:
        """How sure the discriminator is that segmentations are estimated, mixed with the cross entropy.

        Equation 4 without its vanishing gradient, as in the authors' code: ``-log D(I, E(I))``.

        Args:
            frames: float32 (B, 1, H, W).
            classes: int8 (B, H, W) manual segmentation, -1 unknown.
            more: (B, H, W) what else the cross entropy needs of the target.

        Returns:
            The mean; the discriminator takes no part in its gradient.
        """
        logits = self.network(frames).float()
        probabilities = logits.softmax(1)
        weight = self.hparams["ce_weight"]
        losses = []
        if weight > 0:
            given = probabilities if self.hparams["double_softmax"] else logits
            each = {name: array[:, None] for name, array in more.items()}
            losses.append(weight * self.loss(given[:, None], classes[:, None], **each))
        if self.discriminator is not None:
            with _still(self.discriminator):
                judged = self.discriminator(frames, _where_known(probabilities, classes)).float()
            losses.append((1 - weight) * F.softplus(-judged).mean())
        loss = torch.stack(losses).sum()
        self._note("estimator_loss", loss, frames)
        return loss

    def configure_optimizers(self) -> list[Optimizer]:
        """One optimiser for each of the two: the estimator's, then the discriminator's if there is one."""
        players = [self.network] if self.discriminator is None else [self.network, self.discriminator]
        return [self.optimization.start(player) for player in players]

    def _move(self, player: int, loss: Tensor, idle: nn.Module | None) -> None:
        if idle is not None and self.trainer.world_size > 1:
            # Distributed training waits for a gradient of every parameter: those who do not move get zeros.
            loss = loss + 0 * torch.stack([parameter.sum() for parameter in idle.parameters()]).sum()
        chosen: Any = self.optimizers()
        optimizer = chosen[player] if isinstance(chosen, list) else chosen
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def _note(self, name: str, value: Tensor, frames: Tensor) -> None:
        bar = name.endswith("loss")
        self.log(f"train/{name}", value.detach(), prog_bar=bar, on_step=True, on_epoch=True, batch_size=len(frames))


@contextmanager
def _still(network: nn.Module) -> Iterator[None]:
    """What passes through a network leaves no trace in it: no gradient of its weights, no running statistics.

    In training mode, batch norm normalises by the batch all the same.
    """
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    norms = [part for part in network.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    for weight in weights:
        weight.requires_grad_(False)
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)
        for norm in norms:
            norm.track_running_stats = True


def _where_known(segmentation: Tensor, classes: Tensor) -> Tensor:
    return segmentation * (classes >= 0)[:, None]
