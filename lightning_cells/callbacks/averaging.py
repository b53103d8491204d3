"""Averaged weights, for whose sake no step of a training waits."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging


class AveragedWeights(EMAWeightAveraging):
    """Lightning's exponential moving average of the weights, kept on the network's device.

    Lightning makes the average before the network is moved to its device, so that on a GPU every step would copy all
    weights to the host. The number of steps is counted on the CPU, since each step asks for it.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Moves the average to where the network is."""
        assert self._average_model is not None
        steps = self._average_model.n_averaged.cpu()
        self._average_model.to(pl_module.device)
        self._average_model.n_averaged = steps
