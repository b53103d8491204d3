"""A network that is compiled for training, where a card waits for the launches of many small steps."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_cells.methods.base import CellMethod


class CompiledNetwork(Callback):
    """Compiles a method's network by `torch.compile` while it is trained; weights and checkpoints stay the same.

    The first steps take a minute or more. Videos are evaluated by the network as it is, for each has a size of its own.

    Args:
        mode: ``default``; ``reduce-overhead``, which replays CUDA graphs; ``max-autotune``, which tries more.
        backend: of `torch.compile`.
    """

    def __init__(self, mode: str = "default", backend: str = "inductor") -> None:
        self.mode, self.backend = mode, backend

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Has the network compiled with its first batch."""
        assert isinstance(pl_module, CellMethod)
        mode = self.mode if self.backend == "inductor" else None  # no other backend has modes
        pl_module.network.compile(backend=self.backend, mode=mode)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Videos go through the network as it is."""
        torch.compiler.set_stance("force_eager")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Batches go through the compiled network."""
        torch.compiler.set_stance("default")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Other networks of this process may be compiled."""
        torch.compiler.set_stance("default")
