"""Averaged weights, for whose sake no step of a training waits."""

from itertools import chain
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor

from lightning_cells.errors import InputError


class AveragedWeights(EMAWeightAveraging):
    """Lightning's exponential moving average of the weights, kept on the network's device.

    Lightning makes the average before the network is moved to its device, so that on a GPU every step would copy all
    weights to the host. The number of steps is counted on the CPU, since each step asks for it.

    A training that begins with a model may keep a share of it: ``beginning * w_0 + (1 - beginning) * average`` is
    what is validated and saved. Half way between, networks are better on data unlike those of the further training, and
    on those hardly worse or better, too (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022, sec. 3).

    Args:
        decay: share of the average before in the one after a step; 0 takes the newest weights.
        beginning: share of the weights that the training begins with.
        options: others of Lightning's.

    Raises:
        InputError: if one of them is not from 0 to 1.
    """

    def __init__(self, decay: float = 0.999, beginning: float = 0.0, **options: Any) -> None:
        for name, value in (("decay", decay), ("beginning", beginning)):
            if not 0 <= value <= 1:
                raise InputError(f"AveragedWeights: {name} {value}: must be from 0 to 1")
        super().__init__(decay=decay, **options)
        self._decay = decay
        self.beginning = beginning
        self._first: list[Tensor] = []  # empty where nothing of it is kept

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Notes the weights that the training begins with; one that goes on has them from its checkpoint."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and self.beginning:
            self._first = [value.detach().clone() for value in self._values(pl_module)]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Moves the average to where the network is."""
        assert self._average_model is not None
        steps = self._average_model.n_averaged.cpu()
        self._average_model.to(pl_module.device)
        self._average_model.n_averaged = steps
        self._first = [value.to(pl_module.device) for value in self._first]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Updates the average."""
        assert self._average_model is not None
        before = int(self._average_model.n_averaged)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._first and self._average_model.n_averaged > before:
            share = self.beginning * (1 - self._decay if before else 1)  # the first one was taken whole
            self._towards_the_beginning(share, pl_module)

    @torch.no_grad()
    def _towards_the_beginning(self, share: float, pl_module: LightningModule) -> None:
        """Has what the newest weights gave to the average come from the first ones, as far as `share` goes."""
        assert self._average_model is not None
        for average, newest, first in zip(
            self._values(self._average_model.module), self._values(pl_module), self._first, strict=True
        ):
            if average.is_floating_point():
                average.add_(first - newest, alpha=share)

    def state_dict(self) -> dict[str, Any]:
        """What a training that goes on needs."""
        return {**super().state_dict(), "first": self._first} if self._first else super().state_dict()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes up what a training that goes on began with, which an earlier version did not write."""
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        self._first = checkpoint.get("callbacks", {}).get(self.state_key, {}).get("first", [])

    def _values(self, module: torch.nn.Module) -> chain[Tensor]:
        """What is averaged, in a fixed order."""
        return chain(module.parameters(), module.buffers() if self._use_buffers else ())
