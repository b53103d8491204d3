"""What a network says of each pixel, as a colour picture to look at."""

import numpy as np
import torch
from torch import Tensor

from lightning_cells.instances.embedding import foreground_mask

BLACK, BLUE, ORANGE, GREEN = (0.0, 0.0, 0.0), (0.34, 0.71, 0.91), (0.9, 0.62, 0.0), (0.0, 0.62, 0.45)
_CLASSES = (BLACK, BLUE, ORANGE, GREEN)  # after Okabe and Ito, for colour-blind people too
_SPREAD = 2.0  # standard deviations of a component from the middle of its range to the end
_DARKEST = 0.12  # so that dark colours are not taken for background


def embedding_colours(embeddings: Tensor) -> np.ndarray:
    """Draws the embeddings of a frame: like embeddings have like colours, and background is black.

    Red, green and blue are the first three principal components of the foreground's unit vectors, each from -2 to 2
    standard deviations. A component's sign is such that its largest entry is positive, so that colours stay alike from
    epoch to epoch. The more a pixel points along the background's embedding, (1, 0, ...), the darker it is.

    Args:
        embeddings: (D, H, W) floating point, of any length.

    Returns:
        uint8 (H, W, 3).
    """
    units = torch.nan_to_num(torch.nn.functional.normalize(embeddings.float(), dim=0))
    mask = foreground_mask(embeddings[None])[0]
    if not mask.any():
        return _bytes(torch.zeros(3, *embeddings.shape[1:]))
    return _bytes((_DARKEST + (1 - _DARKEST) * _components(units, mask)) * units[1:].square().sum(0))


def component_colours(features: Tensor) -> np.ndarray:
    """Draws features of any kind: red, green and blue are their first three principal components.

    Args:
        features: (D, H, W) floating point.

    Returns:
        uint8 (H, W, 3), each component from -2 to 2 standard deviations.
    """
    return _bytes(_components(features, torch.ones_like(features[0], dtype=torch.bool)))


def _components(features: Tensor, mask: Tensor) -> Tensor:
    """The first three principal components of the features within a mask, (3, H, W), 0..1 for -2 to 2 deviations."""
    chosen = features[:, mask].double()
    mean = chosen.mean(1, keepdim=True)
    variances, axes = torch.linalg.eigh((chosen - mean) @ (chosen - mean).T / chosen.shape[1])  # rising
    count = min(3, len(features))
    axes, deviations = axes.flip(1)[:, :count], variances.flip(0)[:count].clamp(min=1e-12).sqrt()
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    components = torch.einsum("dhw,dk->khw", features.double() - mean[..., None], axes) / deviations[:, None, None]
    picture = torch.zeros(3, *features.shape[1:], device=features.device)
    picture[:count] = (0.5 + 0.5 * components / _SPREAD).clamp(0, 1).float()
    return picture


def class_colours(probabilities: Tensor) -> np.ndarray:
    """Draws class probabilities: background black, then blue, orange and green, mixed by their shares.

    Args:
        probabilities: (C, H, W) floating point, 0..1, of up to four classes.

    Returns:
        uint8 (H, W, 3).
    """
    palette = torch.tensor(_CLASSES[: len(probabilities)], device=probabilities.device)
    return _bytes(torch.einsum("chw,ck->khw", probabilities.float(), palette))


def _bytes(picture: Tensor) -> np.ndarray:
    """(3, H, W), 0..1 -> uint8 (H, W, 3)."""
    return (255 * picture.clamp(0, 1)).round().byte().permute(1, 2, 0).cpu().numpy()
