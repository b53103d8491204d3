"""Frames in which there is nothing to find: of one value, or of a camera's noise alone."""

import math

import torch.nn.functional as F
from torch import Tensor

_APART = 4  # pixels between two that have nothing to do with each other in noise, also if it was resampled
_CORRELATED = 0.08  # least correlation of such pixels that shows structure in a frame of any size
_BOX = 8  # side of the squares whose means are compared, about that of a small cell
_CHANCE = 1e-4  # of a frame of noise in which one of the squares stands out
_SMALLEST = 4 * _BOX  # side of a frame that can be judged


def is_empty(frame: Tensor) -> bool:
    """Whether a frame shows nothing of the size of a cell.

    A network that has learnt from normalised frames with cells finds some in noise, too. But in noise pixels at some
    distance do not go together, so that what is seen everywhere is told from it by their correlation; and the means of
    small squares scatter little, so that what is seen in one place alone stands out from them.

    Args:
        frame: (H, W) floating point, normalised in any way.

    Returns:
        True for a frame of one value, and for one of noise without structure; False where that cannot be told, as in a
        frame of less than 32 pixels a side.
    """
    frame = frame.float() - frame.float().mean()
    power = frame.square().mean()
    if power < 1e-8:
        return True
    if min(frame.shape) < _SMALLEST:
        return False
    across = (frame[:, _APART:] * frame[:, :-_APART]).mean() / power
    down = (frame[_APART:] * frame[:-_APART]).mean() / power
    if max(abs(across), abs(down)) > max(_CORRELATED, 5 / frame.numel() ** 0.5):
        return False
    means = F.avg_pool2d(frame[None], _BOX, stride=2)
    away = (means - means.median()).abs()
    spread = 1.4826 * away.median()  # the standard deviation, which a few cells do not change
    seldom = math.sqrt(2 * math.log(frame.numel() / _BOX**2 / _CHANCE))  # as many deviations none of so many reaches
    return bool(away.max() < seldom * spread)
