"""Ends a training that has diverged: nothing that comes after a loss of NaN is worth its time."""

from typing import Any, NoReturn

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_cells.errors import InputError
from lightning_cells.loggers.mlflow import RunLogger

DIVERGED = "diverged"
"""Tag of a run that ended so: where."""


class Divergence(Callback):
    """Ends the training before the step whose loss is NaN or infinite, and before weights that are so are kept.

    The run ends as FAILED. Its curve of the loss goes on to the last step that had one, however rarely losses are
    logged, its tag ``diverged`` names the step, and its checkpoints are of steps before it.
    """

    def __init__(self) -> None:
        self._last: Tensor | None = None  # the loss of the step before

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Looks at the loss, on all processes.

        Raises:
            InputError: if it is no finite number on one of them.
        """
        broken = not bool(loss.detach().isfinite().all())
        if trainer.world_size > 1:  # else the others would wait for the one that ends
            broken = trainer.strategy.reduce_boolean_decision(broken, all=False)
        if broken:
            self._end(trainer, "the loss")
        self._last = loss.detach()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Looks at the weights, the same on all processes, before they replace those of an earlier step.

        Raises:
            InputError: if one of them is no finite number.
        """
        for name, value in checkpoint["state_dict"].items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                self._end(trainer, name)

    def _end(self, trainer: Trainer, what: str) -> NoReturn:
        step = trainer.global_step
        place = f"step {step} (epoch {trainer.current_epoch + 1})"
        logger = trainer.logger
        if isinstance(logger, RunLogger):
            if self._last is not None and "train/loss_step" in trainer.callback_metrics:
                logger.log_metrics({"train/loss_step": float(self._last.mean())}, max(step - 1, 0))
            logger.experiment.set_tag(str(logger.run_id), DIVERGED, f"{place}: {what}")
        raise InputError(
            f"the training has diverged: in {place} {what} is NaN or infinite: lower --model.lr, or bound gradients by "
            "--trainer.gradient_clip_val 1; checkpoints are of steps before"
        )
