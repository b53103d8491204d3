"""Optimisers and learning-rate schedules that the papers and our presets use."""

import math
from collections.abc import Iterable
from typing import Any, Literal

from torch.nn import Parameter
from torch.optim import Adam, Optimizer, RMSprop
from torch.optim.lr_scheduler import LambdaLR

from lightning_cells.errors import InputError

Optimiser = Literal["adam", "amsgrad", "rmsprop"]
Schedule = Literal["constant", "decay", "halving", "tenth", "one_cycle"]


def optimiser(
    parameters: Iterable[Parameter] | Iterable[dict[str, Any]], name: Optimiser, lr: float, weight_decay: float = 0.0
) -> Optimizer:
    """Returns the optimiser `name`.

    ``amsgrad`` is Adam that divides by the largest of its second moments so far. ``rmsprop`` has TensorFlow's decay 0.9
    instead of torch's 0.99; its epsilon 1e-8 stands outside of the root, where TensorFlow has 1e-10 inside. Weight
    decay is coupled (an L2 term in the loss), as in all five papers.

    Raises:
        InputError: if the learning rate is not positive.
    """
    if lr <= 0:
        raise InputError(f"model.lr={lr}: must be positive")
    if name != "rmsprop":
        return Adam(parameters, lr=lr, weight_decay=weight_decay, amsgrad=name == "amsgrad")
    return RMSprop(parameters, lr=lr, alpha=0.9, eps=1e-8, weight_decay=weight_decay)


def schedule(optimizer: Optimizer, name: Schedule, steps: float, warm_up: float = 0.1) -> LambdaLR:
    """Returns a schedule over all `steps` of the training, to be stepped after each of them.

    Args:
        optimizer: its learning rates are the peaks.
        name: ``constant`` after the warm-up; ``decay``: constant, then falling to 1 % over the last fifth;
            ``halving``: half of it after each sixth of the training (paper 004: every 50 of 300 epochs);
            ``tenth``: a tenth of it from the middle of the training on (paper 003: after 30,000 of 60,000 steps);
            ``one_cycle``: a half cosine from the peak to 1 %.
        steps: optimiser steps of the whole training; infinite if its end is not known, which only ``constant`` without
            warm-up allows.
        warm_up: share of the steps in which the rate rises linearly from 4 % to its peak.

    Raises:
        InputError: if the schedule needs to know the end of the training.
    """
    if math.isinf(steps):
        if name != "constant" or warm_up > 0:
            raise InputError(
                f"model.schedule={name}, model.warm_up={warm_up}: the training has no known end: set "
                "trainer.max_epochs or trainer.max_steps"
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
