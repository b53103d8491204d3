"""DeepLabv3+ on Xception-65 (Chen et al., ECCV 2018), as in the bright-field submission to MIDL 2019."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cells.errors import InputError
from lightning_cells.networks.parts import he_initialise, scaled
from lightning_cells.networks.xception import HIGH_LEVEL, LOW_LEVEL, Xception, convolution, separable

_STRIDE = 16
_RATES = (6, 12, 18)


class DeepLab(nn.Module):
    """Atrous encoder, spatial pyramid pooling, and a decoder at a quarter of the resolution, for frames of any size.

    With the layers of the Keras port of the original 41,253,011 parameters, statistics of batch norm included. The
    paper's table has 12 more, which is what a 1x1 convolution of the upsampled logits has; so there is one here.

    Frames are extended to a multiple of 16 plus one pixel: then features lie on every sixteenth pixel, first and last
    one included, and upsampling meets the pixels that they came from (the original crops training images to 513).

    Args:
        classes: channels of the output.
        width: factor of the number of channels.
        middle: blocks of the encoder's middle flow.
        dropout: probability with which a value is dropped behind the pyramid in training.
        bn_momentum: weight of a batch in the running statistics of batch norm.

    Raises:
        InputError: `width` is not positive, `middle` is negative, or `dropout` is outside of 0 to 1.
    """

    def __init__(
        self,
        classes: int,
        width: float = 1.0,
        middle: int = 16,
        dropout: float = 0.1,
        bn_momentum: float = 0.01,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise InputError(f"model.network.dropout={dropout}: must be 0 or more, and below 1")
        low, high, features, projected = (scaled(n, width) for n in (LOW_LEVEL, HIGH_LEVEL, 256, 48))
        self.encoder = Xception(width, middle, bn_momentum)
        self.image_pooling = convolution(high, features, 1, bn_momentum)
        self.pyramid = nn.ModuleList(
            [
                convolution(high, features, 1, bn_momentum),
                *(separable(high, features, bn_momentum, rate=rate) for rate in _RATES),
            ]
        )
        self.fusion = nn.Sequential(
            convolution((len(_RATES) + 2) * features, features, 1, bn_momentum), nn.Dropout(dropout)
        )
        self.low_level = convolution(low, projected, 1, bn_momentum)
        self.decoder = nn.Sequential(
            separable(features + projected, features, bn_momentum), separable(features, features, bn_momentum)
        )
        self.head = nn.Conv2d(features, classes, 1)
        self.soft_max = nn.Conv2d(classes, classes, 1)
        he_initialise(self)

    def forward(self, frames: Tensor) -> Tensor:
        """Float32 (B,1,H,W) frames -> (B,classes,H,W) logits."""
        height, width = frames.shape[-2:]
        extended = F.pad(frames, (0, -(width - 1) % _STRIDE, 0, -(height - 1) % _STRIDE), mode="replicate")
        low, high = self.encoder(extended)
        pooled = self.image_pooling(high.mean((2, 3), keepdim=True)).expand(-1, -1, *high.shape[-2:])
        x = self.fusion(torch.cat([pooled, *(branch(high) for branch in self.pyramid)], dim=1))
        low = self.low_level(low)
        x = self.decoder(torch.cat([_resize(x, low), low], dim=1))
        return self.soft_max(_resize(self.head(x), extended))[..., :height, :width]


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=True)
