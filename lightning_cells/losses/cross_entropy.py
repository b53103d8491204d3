"""Pixel-wise cross-entropy over clips whose truth is known only in places."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cells.errors import InputError


class ThreeClassLoss(nn.Module):
    """Cross-entropy over background, foreground and contour, averaged over the pixels whose class is known.

    The loss of Arbelle and Raviv (2018), eq. 3, with the sign put right; ``(1, 1, 1)`` is the paper, which
    says that weighting is not required, ``(0.15, 0.25, 0.6)`` what the authors' later code uses.

    Args:
        class_weights: weight of each class, as many as the network has logits; none negative, not all zero.
        normalize: divide the weighted sum by the summed weights of the known pixels (``"weights"``), which
            keeps the step size independent of the weights, or by their number (``"pixels"``), as the authors
            do.
        background_weight: weight of a further class of the target, which is background to the network, such as what
            it would take for a cell; None knows no such class.

    Raises:
        InputError: a weight is negative, or all are zero.
    """

    class_weights: Tensor

    def __init__(
        self,
        class_weights: Sequence[float] = (1.0, 1.0, 1.0),
        normalize: Literal["pixels", "weights"] = "weights",
        background_weight: float | None = None,
    ) -> None:
        super().__init__()
        if not class_weights or min(class_weights) < 0 or max(class_weights) == 0:
            raise InputError(f"class_weights {tuple(class_weights)}: give weights >= 0, at least one above 0")
        if background_weight is not None and background_weight < 0:
            raise InputError(f"background_weight {background_weight}: give a weight >= 0")
        if normalize not in ("pixels", "weights"):
            raise InputError(f"normalize {normalize!r} of the loss: use pixels or weights")
        self.normalize = normalize
        self.background_weight = background_weight
        # Not in the checkpoint: the weights are settings.
        self.register_buffer("class_weights", torch.tensor(tuple(class_weights)), persistent=False)

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Compute the loss, in float32 also under autocast.

        Args:
            logits: (B,T,C,H,W).
            classes: (B,T,H,W) of any integer dtype: 0 to C-1, and C for the further class of background if that has a
                weight; anything else, by convention -1, is ignored.

        Returns:
            A scalar; zero, still connected to `logits`, where no pixel counts.

        Raises:
            InputError: C differs from the number of class weights.
        """
        if logits.shape[2] != len(self.class_weights):
            raise InputError(
                f"class_weights: {len(self.class_weights)} given for a network of {logits.shape[2]} classes; "
                "give one for each class"
            )
        chosen = _one_hot(classes, logits.shape[2])
        weights = chosen * self.class_weights.view(-1, 1, 1)
        if self.background_weight is not None:
            further = classes == logits.shape[2]
            chosen[:, :, 0] |= further
            weights[:, :, 0] += self.background_weight * further
        total = weights.sum() if self.normalize == "weights" else chosen.sum()
        return -_divide((_log_softmax(logits) * weights).sum(), total)


class WeightedTwoClassLoss(nn.Module):
    """Cross-entropy over background and foreground, each pixel weighted (Ronneberger et al. 2015, eq. 1-2).

    The weighted sum is divided by the number of pixels whose class is known.
    """

    def forward(self, logits: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
        """Compute the loss, in float32 also under autocast.

        Args:
            logits: (B,T,2,H,W).
            classes: (B,T,H,W) of any integer dtype: 0 or 1; anything else, by convention -1, is ignored.
            weights: (B,T,H,W), >= 0, of the border and the class balance.

        Returns:
            A scalar; zero, still connected to `logits`, where no pixel counts.
        """
        chosen = _one_hot(classes, logits.shape[2])
        loss = (_log_softmax(logits) * chosen * weights.unsqueeze(2)).sum()
        return -_divide(loss, chosen.sum())


def _one_hot(target: Tensor, classes: int) -> Tensor:
    """(B,T,H,W) -> (B,T,C,H,W) bool, all false where ignored.

    A comparison takes int8 as it is and, unlike a gather or `F.cross_entropy` over images, is deterministic
    on a GPU.
    """
    return target.unsqueeze(2) == torch.arange(classes, device=target.device).view(-1, 1, 1)


def _log_softmax(logits: Tensor) -> Tensor:
    return F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=2)


def _divide(total: Tensor, count: Tensor) -> Tensor:
    """Divide, where the total is zero if the count is."""
    return total / torch.where(count > 0, count, torch.ones_like(count))
