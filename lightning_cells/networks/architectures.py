"""Every segmentation network, by the name that configuration files and the command line give it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, kw_only=True)
class Architecture(ABC):
    """Which network to build: subclasses are its kinds, their attributes its sizes.

    A method that takes an `Architecture` trains any of them: ``--model.network UNet --model.network.width 0.25``.
    """

    @abstractmethod
    def build(self, classes: int) -> nn.Module:
        """Returns a fresh network: float32 (B, 1, H, W) frames of any size -> (B, `classes`, H, W) logits."""
