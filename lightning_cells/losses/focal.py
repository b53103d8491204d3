"""Focal cross-entropy, normalised so that its gradient does not fade as the network learns."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cells.errors import InputError

Normalize = Literal["sum", "batch_mean", "none"]

CERTAIN = 1e-6  # 1 - p is not taken to be smaller: weights stay above zero, and their powers differentiable


class FocalLoss(nn.Module):
    """Cross-entropy with the weights ``w = a (1 - p)^gamma`` of pixels whose true class has probability ``p``.

    The plain focal loss (Lin et al. 2017) shrinks with its weights as a network learns, while the moments of Adam still
    have the scale of old gradients. Divided by the total weight, it only says which pixels matter more (the normalised
    focal loss of Wollmann et al. 2019, whose formula is reconstructed here; Sofiiuk et al. 2019 have it too).

    With ``CE = -log p``, over the pixels whose class is known, and no gradient through what is divided by:

    * ``sum``: ``sum(w CE) / sum(w)`` over the whole batch;
    * ``batch_mean``: ``sum(w CE) / sum(w)`` of each image by itself, averaged over the images in which a pixel counts;
    * ``none``: the plain focal loss, ``sum(w CE) / sum(a)``, where ``sum(a)`` is the number of pixels unless there are
      class weights.

    With gamma 0, ``sum`` and ``none`` are the mean cross-entropy, weighted by class as in `F.cross_entropy`, and so is
    ``batch_mean`` if as much is known of each image.

    Args:
        gamma: exponent, >= 0: how much more unsure pixels matter than sure ones.
        normalize: see above.
        class_weights: ``a`` of each class, as many as the network has logits; None is 1 for all.

    Raises:
        InputError: gamma or a weight is negative, all weights are zero, or `normalize` is unknown.
    """

    class_weights: Tensor | None

    def __init__(
        self, gamma: float = 2.0, normalize: Normalize = "sum", class_weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        if not gamma >= 0:
            raise InputError(f"gamma {gamma} of the focal loss: must be 0 or more")
        if normalize not in ("sum", "batch_mean", "none"):
            raise InputError(f"normalize {normalize!r} of the focal loss: use sum, batch_mean or none")
        if class_weights is not None and (not class_weights or min(class_weights) < 0 or max(class_weights) == 0):
            raise InputError(f"class_weights {tuple(class_weights)}: give weights >= 0, at least one above 0")
        self.gamma = gamma
        self.normalize = normalize
        # Not in the checkpoint: the weights are settings.
        weights = None if class_weights is None else torch.tensor(tuple(map(float, class_weights)))
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Compute the loss, in float32 also under autocast.

        Args:
            logits: (B,T,C,H,W); each of the B times T images is one by itself. Or (B,C,H,W).
            classes: (B,T,H,W) of any integer dtype: 0 to C-1; anything else, by convention a negative, is ignored.

        Returns:
            A scalar; zero, still connected to `logits`, where no pixel counts.

        Raises:
            InputError: C differs from the number of class weights.
        """
        logits, classes = logits.flatten(0, -4), classes.flatten(0, -3)
        number = logits.shape[1]
        if self.class_weights is not None and number != len(self.class_weights):
            raise InputError(
                f"class_weights: {len(self.class_weights)} given for a network of {number} classes; "
                "give one for each class"
            )
        # A comparison takes int8 as it is and, unlike a gather, is deterministic on a GPU.
        chosen = classes.unsqueeze(1) == torch.arange(number, device=classes.device).view(-1, 1, 1)
        logp = F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=1)
        entropy = -logp.masked_fill(~chosen, 0).sum(1)
        known = chosen.any(1).to(logp.dtype)
        if self.class_weights is not None:
            known = (chosen * self.class_weights.view(-1, 1, 1)).sum(1).to(logp.dtype)
        weights = known
        if self.gamma > 0:
            weights = known * (-torch.expm1(-entropy)).clamp_min(CERTAIN) ** self.gamma
        if self.normalize == "none":
            return _divide((weights * entropy).sum(), known.sum())
        if self.normalize == "sum":
            return _divide((weights * entropy).sum(), weights.sum().detach())
        each = _divide((weights * entropy).sum((1, 2)), weights.sum((1, 2)).detach())
        return _divide(each.sum(), known.any((1, 2)).sum())


def _divide(total: Tensor, count: Tensor) -> Tensor:
    """Divide, where the total is zero if the count is."""
    return total / torch.where(count > 0, count, torch.ones_like(count))
