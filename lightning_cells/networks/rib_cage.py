"""Estimator and rib-cage discriminator (Arbelle & Riklin Raviv, ISBI 2018, section 2.4)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cells.errors import InputError

SLOPE = 0.1  # of the leaky ReLU, from the authors' code
EPS = 1e-3  # of batch norm


class Estimator(nn.Sequential):
    """Convolutions at full resolution, each with batch norm and a leaky ReLU, then one of side 1 to the classes.

    Maps float32 (B, 1, H, W) frames of any size to (B, classes, H, W) logits. A pixel is decided by what lies within 11
    pixels of it (default kernels). With the defaults it has 143,843 parameters.

    Args:
        classes: number of classes.
        filters: width of each layer.
        kernels: side of the kernel of each layer; an even one reaches further to the right and down.

    Raises:
        InputError: not one positive kernel for each positive width.
    """

    def __init__(
        self,
        classes: int = 3,
        filters: Sequence[int] = (16, 32, 64, 64),
        kernels: Sequence[int] = (9, 7, 5, 4),
    ) -> None:
        _check(filters, kernels, "estimator")
        layers: list[nn.Module] = []
        inputs = 1
        for width, kernel in zip(filters, kernels, strict=True):
            layers += _same(inputs, width, kernel, bias=True)
            layers += [nn.BatchNorm2d(width, eps=EPS), nn.LeakyReLU(SLOPE)]
            inputs = width
        super().__init__(*layers, nn.Conv2d(inputs, classes, 1))


class RibCage(nn.Module):
    """One block: left and right rib look at one input each, the spine at all that came before.

    The output is half as large. In the authors' code the pooling is part of the block, and no convolution has a bias.

    Args:
        left: channels of the left input.
        right: channels of the right input.
        spine: channels of the spine, which holds both of them.
        filters: width of either rib; the centre has half of it.
        kernel: side of the kernels.
    """

    def __init__(self, left: int, right: int, spine: int, filters: int, kernel: int) -> None:
        super().__init__()
        self.left = _rib(left, filters, kernel)
        self.right = _rib(right, filters, kernel)
        self.centre = _rib(spine, filters // 2, kernel)

    def forward(self, left: Tensor, right: Tensor, spine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return left rib, right rib (B, filters, H // 2, W // 2), and the spine: both and the centre."""
        left, right = self.left(left), self.right(right)
        return left, right, torch.cat([left, right, self.centre(spine)], 1)


class Discriminator(nn.Module):
    """Tells manual from estimated segmentations of an image: rib cages, then three fully connected layers.

    The left ribs see the image, the right ribs the segmentation. The paper lists four convolutions for its "three
    consecutive rib cages"; the fourth, of side 4 with 64 filters, is left out by default. Sizes for three classes:

    =======================  ===============  ====  ==========
    kernels                  filters          size  parameters
    =======================  ===============  ====  ==========
    (9, 5, 3), paper         (8, 32, 64)      64    1,268,920
    (9, 5, 3), valid crops   (8, 32, 64)      43      550,072
    (9, 5, 3, 4), as listed  (8, 32, 64, 64)  64      597,496
    (3, 3, 3), code          (32, 64, 128)    64    2,665,824
    =======================  ===============  ====  ==========

    Args:
        classes: channels of a segmentation.
        filters: width of the ribs of each block; centres have half of it.
        kernels: side of the kernels of each block.
        size: side of the crops that the fully connected layers are made for. What remains of crops of another size is
            averaged to theirs.
        hidden: width of the fully connected layers.

    Raises:
        InputError: not one positive kernel for each width of 2 or more, or crops too small for so many blocks.
    """

    def __init__(
        self,
        classes: int = 3,
        filters: Sequence[int] = (8, 32, 64),
        kernels: Sequence[int] = (9, 5, 3),
        size: int = 64,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        _check(filters, kernels, "discriminator", least=2)
        self.side = size >> len(filters)
        if self.side < 1:
            raise InputError(
                f"a discriminator of {len(filters)} rib cages for crops of {size} pixels: each halves them: set "
                f"{1 << len(filters)} pixels or more, or fewer rib cages"
            )
        self.ribs = nn.ModuleList()
        left, right, spine = 1, classes, 1 + classes
        for width, kernel in zip(filters, kernels, strict=True):
            self.ribs.append(RibCage(left, right, spine, width, kernel))
            left, right, spine = width, width, 2 * width + width // 2
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear((left + right + spine) * self.side**2, hidden, bias=False),
            nn.LeakyReLU(SLOPE),
            nn.Linear(hidden, hidden, bias=False),
            nn.LeakyReLU(SLOPE),
            nn.Linear(hidden, 1, bias=False),
        )

    def forward(self, frames: Tensor, segmentation: Tensor) -> Tensor:
        """Judge segmentations.

        Args:
            frames: float32 (B, 1, H, W), what was segmented.
            segmentation: float32 (B, classes, H, W), class probabilities, or one-hot classes of a manual one.

        Returns:
            (B,) logits of the probability that the segmentation is manual.

        Raises:
            InputError: nothing would be left of so small a crop.
        """
        if min(frames.shape[-2:]) >> len(self.ribs) < 1:
            raise InputError(
                f"crops of {frames.shape[-2]} x {frames.shape[-1]} pixels are too small for a discriminator of "
                f"{len(self.ribs)} rib cages, each of which halves them: set data.augmentation.crop to "
                f"{1 << len(self.ribs)} or more"
            )
        left, right, spine = frames, segmentation, torch.cat([frames, segmentation], 1)
        for rib in self.ribs:
            left, right, spine = rib(left, right, spine)
        joined = torch.cat([left, right, spine], 1)
        if joined.shape[-2:] != (self.side, self.side):
            joined = F.adaptive_avg_pool2d(joined, self.side)
        return self.head(joined).squeeze(1)


def _rib(inputs: int, filters: int, kernel: int) -> nn.Sequential:
    norm = nn.BatchNorm2d(filters, eps=EPS)
    return nn.Sequential(*_same(inputs, filters, kernel, bias=False), norm, nn.LeakyReLU(SLOPE), nn.MaxPool2d(2))


def _same(inputs: int, outputs: int, kernel: int, bias: bool) -> list[nn.Module]:
    """A convolution that keeps the size; torch's own ``same`` warns of even kernels."""
    before, after = (kernel - 1) // 2, kernel // 2
    if before == after:
        return [nn.Conv2d(inputs, outputs, kernel, padding=before, bias=bias)]
    return [nn.ZeroPad2d((before, after, before, after)), nn.Conv2d(inputs, outputs, kernel, bias=bias)]


def _check(filters: Sequence[int], kernels: Sequence[int], part: str, least: int = 1) -> None:
    if not filters or len(filters) != len(kernels) or min(filters) < least or min(kernels) < 1:
        raise InputError(
            f"filters {tuple(filters)} and kernels {tuple(kernels)} of the {part}: give as many kernels as filters, "
            f"each filter number {least} or more, each kernel side 1 or more"
        )
