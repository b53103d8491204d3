"""Optimisers and learning-rate schedules that the papers and our presets use."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import Adam, Optimizer, RMSprop
from torch.optim.lr_scheduler import LambdaLR

from lightning_cells.errors import InputError

Optimiser = Literal["adam", "amsgrad", "rmsprop"]
Schedule = Literal["constant", "decay", "halving", "tenth", "one_cycle"]


@dataclass(frozen=True)
class Optimization:
    """How a network is trained.

    Attributes:
        optimizer: ``adam``; ``amsgrad``: Adam that divides by the largest of its second moments so far; ``rmsprop`` has
            TensorFlow's decay 0.9 instead of torch's 0.99; its epsilon 1e-8 stands outside of the root, where
            TensorFlow has 1e-10 inside.
        lr: peak learning rate.
        schedule: course of the learning rate: ``constant`` after the warm-up; ``decay``: constant, then falling to 1 %
            over the last fifth; ``halving``: half of it after each sixth of the training (every 50 of 300 epochs in
            the bright-field submission to MIDL 2019); ``tenth``: a tenth of it from the middle of the training on
            (after 30,000 of 60,000 steps in Payer et al. 2019); ``one_cycle``: a half cosine from the peak to 1 %.
        warm_up: share of the training in which the learning rate rises linearly from 4 % to its peak.
        weight_decay: L2 regularisation of kernels, not of biases and norms, coupled (a term in the loss) as in all
            papers. Keras' ``l2`` with the same effect is half as large. None keeps all parameters in one group.

    Raises:
        InputError: for a value out of range.
    """

    optimizer: Optimiser = "adam"
    lr: float = 1e-3
    schedule: Schedule = "constant"
    warm_up: float = 0.0
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise InputError(f"model.optimization.lr={self.lr}: must be positive")
        if self.weight_decay is not None and self.weight_decay < 0:
            raise InputError(f"model.optimization.weight_decay={self.weight_decay}: must be 0 or more")

    def start(self, network: nn.Module) -> Optimizer:
        """Returns the optimiser of a network's parameters."""
        parameters: list[Any] = list(network.parameters())
        if self.weight_decay is not None:
            kernels, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
            parameters = [
                {"params": kernels, "weight_decay": self.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ]
        if self.optimizer == "rmsprop":
            return RMSprop(parameters, lr=self.lr, alpha=0.9, eps=1e-8)
        fused = all(p.is_cuda for p in network.parameters()) or None  # one kernel instead of hundreds
        return Adam(parameters, lr=self.lr, amsgrad=self.optimizer == "amsgrad", fused=fused)

    def scheduled(self, network: nn.Module, steps: float) -> OptimizerLRScheduler:
        """What `configure_optimizers` returns for a training of so many steps: the rate changes with each of them."""
        optimizer = self.start(network)
        rates = schedule(optimizer, self.schedule, steps, self.warm_up)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}


def schedule(optimizer: Optimizer, name: Schedule, steps: float, warm_up: float = 0.1) -> LambdaLR:
    """Returns a schedule over all `steps` of the training, to be stepped after each of them.

    Args:
        optimizer: its learning rates are the peaks.
        name: see `Optimization`.
        steps: optimiser steps of the whole training; infinite if its end is not known, which only ``constant`` without
            warm-up allows.
        warm_up: share of the steps in which the rate rises.

    Raises:
        InputError: if the schedule needs to know the end of the training.
    """
    if math.isinf(steps):
        if name != "constant" or warm_up > 0:
            raise InputError(
                f"model.optimization.schedule={name}, model.optimization.warm_up={warm_up}: the training has no known "
                "end: set trainer.max_epochs or trainer.max_steps"
            )
        return LambdaLR(optimizer, lambda step: 1.0)
    rising = max(1, round(warm_up * steps))

    def factor(step: int) -> float:
        if step < rising and warm_up > 0:
            return 0.04 + 0.96 * step / rising
        if name == "decay":
            return min(1.0, max(0.01, 5 * (1 - step / steps)))
        if name == "halving":
            return 0.5 ** min(5, int(6 * step / steps))
        if name == "tenth":
            return 1.0 if 2 * step < steps else 0.1
        if name == "one_cycle":
            progress = min(1.0, (step - rising) / max(1, steps - rising))
            return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
        return 1.0

    return LambdaLR(optimizer, factor)
