"""GRUU-Net: a recurrence over scales segments frames, with a focal loss (Wollmann et al., MedIA 2019)."""

import numpy as np
import torch
from torch import Tensor

from lightning_cells.errors import InputError
from lightning_cells.instances.components import ArgmaxDecoder, Decoder
from lightning_cells.instances.linkers import Linker, Overlap
from lightning_cells.methods.colours import component_colours
from lightning_cells.methods.frame_method import FrameMethod
from lightning_cells.methods.objectives import Focal, Objective
from lightning_cells.methods.optimisation import Optimization
from lightning_cells.networks import architectures, gruunet
from lightning_cells.networks.architectures import Architecture


class GRUUNet(FrameMethod):
    """Segments each frame by itself, trained with the normalised focal loss, and leaves tracking to a linker.

    Args:
        network: which network to train: the GRU-U-Net, or another in the same setting, as a baseline.
        loss: what it is trained for; the paper's loss is `Focal`.
        optimization: how it is trained.
        decoder: class probabilities -> cells.
        linker: cells of consecutive frames -> tracks.
        tile: side of the tiles into which larger frames are cut at inference, to save memory; None cuts none.
    """

    paper = "Wollmann et al., MedIA 2019"

    def __init__(
        self,
        network: Architecture = architectures.GRUUNet(),  # noqa: B008 - frozen
        loss: Objective = Focal(),  # noqa: B008 - frozen
        optimization: Optimization = Optimization("amsgrad", schedule="one_cycle"),  # noqa: B008 - frozen
        decoder: Decoder = ArgmaxDecoder(),  # noqa: B008 - frozen
        linker: Linker = Overlap(),  # noqa: B008 - frozen
        tile: int | None = None,
    ) -> None:
        super().__init__(network, loss, optimization, decoder, linker, tile)
        self.remember()
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a fifth faster on a CPU

    @torch.inference_mode()
    def refinement(self, frame: Tensor) -> np.ndarray:
        """Draws how the state at full resolution is refined: after each step, from left to right.

        Like features have like colours in all of them: red, green and blue are the first three principal components.

        Args:
            frame: float32 (1, 1, h, w), as ``preprocessing.prepare`` gives it.

        Returns:
            uint8 (h, steps x w, 3).

        Raises:
            InputError: if the network is no GRUU-Net.
        """
        if not isinstance(self.network, gruunet.GRUUNet):
            raise InputError(f"refinement: {type(self.network).__name__} has no such steps: train a GRUU-Net")
        return component_colours(torch.cat(self.network.states(frame), -1)[0])
