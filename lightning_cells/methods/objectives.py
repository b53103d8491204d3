"""What a network can be trained for: classes, the target that the labels become, and the loss between the two."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from lightning_cells.data.clips import Clip, Target
from lightning_cells.data.targets import CYTOPLASM, Contour, ForegroundTarget, ThreeClassTarget, TwoClassTarget
from lightning_cells.errors import InputError
from lightning_cells.losses.cross_entropy import ThreeClassLoss, WeightedTwoClassLoss
from lightning_cells.losses.focal import FocalLoss, Normalize


class Objective(ABC):
    """What a network is trained for: subclasses are its kinds, their attributes its settings.

    A method that takes an `Objective` trains for any of them: ``--model.loss TwoClass --model.loss.border_weight 5``,
    or ``--model.loss my_lab.Dice``.
    """

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the classes that the network tells apart, background first."""

    @property
    def target(self) -> Target | None:
        """Turns the labels of a clip, int32 (T, H, W), into arrays (T, H, W) by name.

        Among them is ``classes``: 0, 1, ... in the order of `names`, -1 unknown. Called by the loader's workers, so it
        must be picklable. None, the default, takes the semantic classes of the data instead.
        """
        return None

    @abstractmethod
    def build(self) -> nn.Module:
        """Returns the loss.

        It is called with logits (B, T, C, H, W), and with the arrays (B, T, H, W) of `truth` by name, and returns a
        scalar.
        """

    def truth(self, clip: Clip) -> dict[str, Tensor]:
        """What the loss compares logits with: the arrays of a clip's target, by name.

        Raises:
            InputError: if the objective has no target, and the data have no semantic classes.
        """
        if clip.target:
            return clip.target
        if clip.classes is None:
            raise InputError(
                "model.loss: needs semantic classes, which the data lack: take another, such as ThreeClass"
            )
        return {"classes": clip.classes}


@dataclass(frozen=True)
class ThreeClass(Objective):
    """Cross entropy over background, interior and contour (Arbelle & Riklin Raviv 2019, equation 3).

    Attributes:
        class_weights: of background, interior and contour.
        contour: ``inner`` or ``outer`` single-pixel contour.
        cytoplasm_weight: of background that the semantic classes of the data call cytoplasm, which looks most like a
            cell; None counts it as any background.
    """

    class_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    contour: Contour = "inner"
    cytoplasm_weight: float | None = None

    names = ("background", "interior", "contour")

    @property
    def target(self) -> ThreeClassTarget:
        """Background, interior and contour."""
        return ThreeClassTarget(self.contour)

    def build(self) -> ThreeClassLoss:
        """Returns the loss."""
        return ThreeClassLoss(self.class_weights, background_weight=self.cytoplasm_weight)

    def truth(self, clip: Clip) -> dict[str, Tensor]:
        """See `Objective.truth`; cytoplasm is a class after the others, which the loss knows as background."""
        target = super().truth(clip)
        if self.cytoplasm_weight is None or clip.classes is None:
            return target
        cytoplasm = (target["classes"] == 0) & (clip.classes == CYTOPLASM)
        return {**target, "classes": target["classes"].masked_fill(cytoplasm, len(self.names))}


@dataclass(frozen=True)
class TwoClass(Objective):
    """U-Net's cross entropy over background and cell, with a higher weight between cells (Ronneberger et al. 2015).

    Attributes:
        border_weight: w0, how much more the background between two cells counts.
        border_sigma: sigma, how fast that falls with the distance, in pixels.
    """

    border_weight: float = 10.0
    border_sigma: float = 5.0

    names = ("background", "cell")

    @property
    def target(self) -> TwoClassTarget:
        """Background and cell, and the weight of each pixel."""
        return TwoClassTarget(self.border_weight, self.border_sigma)

    def build(self) -> WeightedTwoClassLoss:
        """Returns the loss."""
        return WeightedTwoClassLoss()


@dataclass(frozen=True)
class Focal(Objective):
    """The normalised focal loss (Wollmann et al. 2019).

    Attributes:
        classes: 2 (background and cell, with a pixel of background between cells that touch), or 3 (background,
            interior, contour).
        contour: ``inner`` or ``outer`` single-pixel contour of the third class.
        gamma: exponent of the focal loss; 0 is cross-entropy.
        normalize: what the focal loss is divided by, see `FocalLoss`; ``none`` is the plain focal loss.
        class_weights: weight of each class in the loss; None weights none.
    """

    classes: Literal[2, 3] = 2
    contour: Contour = "inner"
    gamma: float = 2.0
    normalize: Normalize = "sum"
    class_weights: tuple[float, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the two or three classes."""
        return TwoClass.names if self.classes == 2 else ThreeClass.names

    @property
    def target(self) -> ForegroundTarget | ThreeClassTarget:
        """The two or three classes."""
        return ForegroundTarget() if self.classes == 2 else ThreeClassTarget(self.contour)

    def build(self) -> FocalLoss:
        """Returns the loss."""
        return FocalLoss(self.gamma, self.normalize, self.class_weights)


@dataclass(frozen=True)
class NucleusCytoplasm(Objective):
    """Cross entropy over the semantic classes of the data (bright-field segmentation, MIDL 2019 submission)."""

    names = ("background", "nucleus", "cytoplasm")

    def build(self) -> ThreeClassLoss:
        """Returns the loss."""
        return ThreeClassLoss()
