"""Dice's coefficient of semantic classes (L. R. Dice, Ecology 26, 1945) in all its readings."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_cells.errors import InputError

# The sums over images are kept as integers in this unit: the same whatever the order of summing, and on devices
# without float64. An int64 holds eight million images.
_UNIT = 2.0**-40


class Dice(Metric):
    """Pools the pixels of images, over batches and processes.

    With TP, P and T the pixels of a class in both, in the prediction and in the truth, its coefficient is
    2 TP / (P + T), nan where P + T = 0. Pixels of unknown class do not count, in the prediction neither. Papers mean
    different things by "the" coefficient, so `compute` returns each:

    - ``Dice``: mean over all classes, background included, of the coefficients of the pooled pixels. The headline.
    - ``Dice_cells``: the same without background.
    - ``Dice_micro``: TP, P and T summed over the classes, too; of one class per pixel it is the share of pixels that
      are right. ``Dice_micro_cells`` leaves out the background.
    - ``Dice_images``: mean over the images of the mean over the classes that occur in an image's truth or prediction.
      ``Dice_images_cells`` leaves out the background, and images without any other class.
    - ``Dice_NAME``: of each class by itself.

    A class that occurs nowhere is left out of means. Each image must be counted once: a sampler that pads the last
    batch by repeating samples would count some twice.

    Args:
        names: of the classes, background first.
    """

    full_state_update = False
    is_differentiable = False
    common: Tensor
    predicted: Tensor
    true: Tensor
    images_sum: Tensor
    images: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        for name in ("common", "predicted", "true"):  # pixels of each class
            self.add_state(name, default=torch.zeros(len(names), dtype=torch.long), dist_reduce_fx="sum")
        for name in ("images_sum", "images"):  # of all classes, and without background
            self.add_state(name, default=torch.zeros(2, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, truth: Tensor) -> None:
        """Adds one image.

        Args:
            prediction: (H, W) integers, a class from 0 on.
            truth: (H, W) integers likewise, -1 where it is not known.

        Raises:
            InputError: on a class beyond the names, or images of different sizes.
        """
        if prediction.shape != truth.shape:
            raise InputError(
                f"Dice: prediction {tuple(prediction.shape)} and truth {tuple(truth.shape)}: give one size"
            )
        known = truth >= 0
        prediction, truth = prediction[known].long(), truth[known].long()
        classes = len(self.names)
        if len(truth) and int(torch.maximum(truth.max(), prediction.max())) >= classes:
            raise InputError(f"Dice: there is a class above {classes - 1}: give a name for each")
        pairs = torch.bincount(truth * classes + prediction, minlength=classes**2).view(classes, classes)
        common, predicted, true = pairs.diagonal(), pairs.sum(0), pairs.sum(1)
        self.common += common
        self.predicted += predicted
        self.true += true
        of_image = _coefficients(common, predicted, true)
        for index, values in enumerate((of_image, of_image[1:])):
            mean = values.nanmean()
            if not mean.isnan():
                self.images_sum[index] += round(float(mean) / _UNIT)
                self.images[index] += 1

    def compute(self) -> dict[str, Tensor]:
        """Returns the coefficients by name, float32 scalars from 0 to 1, nan where there was nothing to measure."""
        pooled = _coefficients(self.common, self.predicted, self.true)
        micro = [
            _coefficients(*(n[first:].sum() for n in (self.common, self.predicted, self.true))) for first in (0, 1)
        ]
        images = self.images_sum * _UNIT / self.images
        return {
            "Dice": pooled.nanmean(),
            "Dice_cells": pooled[1:].nanmean(),
            "Dice_micro": micro[0],
            "Dice_micro_cells": micro[1],
            "Dice_images": images[0],
            "Dice_images_cells": images[1],
            **{f"Dice_{name}": value for name, value in zip(self.names, pooled, strict=True)},
        }


def _coefficients(common: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
    return 2 * common / (predicted + true)  # 0 / 0 is nan
