"""Every segmentation network, by the name that configuration files and the command line give it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn

from lightning_cells.networks import deeplab, gruunet, hourglass, rib_cage, tiramisu, unet


@dataclass(frozen=True, kw_only=True)
class Architecture(ABC):
    """Which network to build: subclasses are its kinds, their attributes its sizes.

    A method that takes an `Architecture` trains any of them: ``--model.network UNet --model.network.width 0.25``.
    """

    @abstractmethod
    def build(self, classes: int) -> nn.Module:
        """Returns a fresh network: float32 (B, 1, H, W) frames of any size -> (B, `classes`, H, W) logits."""


@dataclass(frozen=True, kw_only=True)
class GRUUNet(Architecture):
    """GRUU-Net; the defaults have 956,242 parameters with two classes. See `networks.gruunet.GRUUNet`.

    Attributes:
        stem: channels of the first and the last convolutions, at full resolution.
        hidden: channels of the GRU's state, at full resolution.
        widths: channels of the pooling stream at scales 2, 4, 8, ...
        down: units per scale on the way down, finest scale first, as many as `widths`.
        up: units per scale on the way up, finest scale first too, one fewer.
        growth: channels that each layer of a unit adds.
        layers: layers of a unit.
        share: one GRU for all steps; else each step has its own.
        gather: ``sum`` adds the features to the state, in place of the GRU.
        recompute: save memory in training by running the GRU's steps again in the backward pass.
    """

    stem: int = 48
    hidden: int = 32
    widths: tuple[int, ...] = (64, 64, 64, 64)
    down: tuple[int, ...] = (2, 2, 2, 2)
    up: tuple[int, ...] = (2, 2, 2)
    growth: int = 12
    layers: int = 4
    share: bool = True
    gather: gruunet.Gather = "gru"
    recompute: bool = False

    def build(self, classes: int) -> nn.Module:
        """Returns a fresh network: float32 (B, 1, H, W) frames of any size -> (B, `classes`, H, W) logits."""
        return gruunet.GRUUNet(
            stem=self.stem,
            hidden=self.hidden,
            widths=self.widths,
            down=self.down,
            up=self.up,
            growth=self.growth,
            layers=self.layers,
            share=self.share,
            gather=self.gather,
            recompute=self.recompute,
            classes=classes,
        )


@dataclass(frozen=True, kw_only=True)
class UNet(Architecture):
    """The U-Net of the bright-field submission to MIDL 2019; see `unet.UNet`.

    Attributes:
        width: factor of the number of channels, 16 on the first level.
        levels: number of poolings.
        bn_momentum: weight of a batch in the running statistics of batch norm (Keras' 0.99 is 0.01).
    """

    width: float = 1.0
    levels: int = 4
    bn_momentum: float = 0.01

    def build(self, classes: int) -> nn.Module:
        """Returns a fresh network: float32 (B, 1, H, W) frames of any size -> (B, `classes`, H, W) logits."""
        return unet.UNet(classes, self.width, self.levels, self.bn_momentum)


@dataclass(frozen=True, kw_only=True)
class Estimator(Architecture):
    """A few convolutions at full resolution; see `rib_cage.Estimator`.

    Attributes:
        filters: width of each layer.
        kernels: side of the kernel of each layer.
    """

    filters: tuple[int, ...] = (16, 32, 64, 64)
    kernels: tuple[int, ...] = (9, 7, 5, 4)

    def build(self, classes: int) -> rib_cage.Estimator:
        """Returns a fresh network: float32 (B, 1, H, W) frames of any size -> (B, `classes`, H, W) logits."""
        return rib_cage.Estimator(classes, self.filters, self.kernels)


@dataclass(frozen=True, kw_only=True)
class Hourglass(Architecture):
    """RSHN's stacked hourglass without recurrence; see `hourglass.HourglassSegmenter`.

    Attributes:
        features: channels of every hidden layer.
        levels: resolutions of an hourglass.
        embedding: channels that one hourglass hands to the next.
        stacks: number of hourglasses.
    """

    features: int = 64
    levels: int = 7
    embedding: int = 16
    stacks: int = 2

    def build(self, classes: int) -> nn.Module:
        """Returns a fresh network: float32 (B, 1, H, W) frames of any size -> (B, `classes`, H, W) logits."""
        return hourglass.HourglassSegmenter(classes, self.features, self.levels, self.embedding, self.stacks)


@dataclass(frozen=True, kw_only=True)
class Tiramisu(Architecture):
    """FC-DenseNet103 of the bright-field submission to MIDL 2019; see `tiramisu.Tiramisu`.

    Attributes:
        width: factor of the number of channels.
        layers: layers of the dense blocks on the way down, from full resolution; on the way up they come in reverse.
        bottleneck: layers of the dense block at the bottom.
        dropout: probability with which a value is dropped in training.
        bn_momentum: weight of a batch in the running statistics of batch norm (Keras' 0.99 is 0.01).
    """

    width: float = 1.0
    layers: tuple[int, ...] = (4, 5, 7, 10, 12)
    bottleneck: int = 15
    dropout: float = 0.2
    bn_momentum: float = 0.01

    def build(self, classes: int) -> nn.Module:
        """Returns a fresh network: float32 (B, 1, H, W) frames of any size -> (B, `classes`, H, W) logits."""
        return tiramisu.Tiramisu(classes, self.width, self.layers, self.bottleneck, self.dropout, self.bn_momentum)


@dataclass(frozen=True, kw_only=True)
class DeepLab(Architecture):
    """DeepLabv3+ on Xception-65 of the bright-field submission to MIDL 2019; see `deeplab.DeepLab`.

    Attributes:
        width: factor of the number of channels.
        middle: blocks of the encoder's middle flow.
        dropout: probability with which a value is dropped in training.
        bn_momentum: weight of a batch in the running statistics of batch norm (Keras' 0.99 is 0.01).
    """

    width: float = 1.0
    middle: int = 16
    dropout: float = 0.1
    bn_momentum: float = 0.01

    def build(self, classes: int) -> nn.Module:
        """Returns a fresh network: float32 (B, 1, H, W) frames of any size -> (B, `classes`, H, W) logits."""
        return deeplab.DeepLab(classes, self.width, self.middle, self.dropout, self.bn_momentum)
