"""What a training needs to go on as if it had not been interrupted, beside what Lightning keeps in checkpoints."""

import os
import random
import signal
import subprocess
import sys
import threading
from types import FrameType
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from tqdm import tqdm

from lightning_cells.callbacks.checkpoint import Checkpoints, between_steps
from lightning_cells.loggers.mlflow import RunLogger

_RANDOM = "lightning_cells_random_state"


class Continuation(Callback):
    """Brings back the random generators, and lets the configuration decide what the checkpoint would.

    Optimisers take their momenta from the checkpoint, and their options (learning rate, weight decay, ...) from the
    configuration, so that what the user gives wins.
    """

    def __init__(self) -> None:
        self._random: dict[str, Any] | None = None
        self._configured: list[list[dict[str, Any]]] = []

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the state of this process's generators: of all processes' only the first one's is kept."""
        checkpoint[_RANDOM] = _random_state()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes the state, for when all is set up."""
        self._random = checkpoint.get(_RANDOM)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes the optimisers' options before those of the checkpoint replace them."""
        self._configured = [
            [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts all in place."""
        if self._random is None:
            return
        _set_random_state(self._random)
        self._random = None
        # Schedules ask for the number of steps, for which Lightning opens the loader before it has the position in it.
        trainer.fit_loop._load_combined_loader_states()
        for optimizer, groups in zip(trainer.optimizers, self._configured, strict=True):
            for group, configured in zip(optimizer.param_groups, groups, strict=True):
                _configure(group, configured)
        for config in trainer.lr_scheduler_configs:
            groups = config.scheduler.optimizer.param_groups
            if hasattr(config.scheduler, "base_lrs"):
                config.scheduler.base_lrs = [group["initial_lr"] for group in groups]


def _configure(group: dict[str, Any], configured: dict[str, Any]) -> None:
    """Replaces the options of a parameter group; a scheduled rate keeps its place in the schedule."""
    rate = group["lr"]
    if "initial_lr" not in configured:
        rate = configured["lr"]
    elif configured["initial_lr"] != group["initial_lr"]:
        rate = rate / group["initial_lr"] * configured["initial_lr"]
    group.update(configured, lr=rate)


def _random_state() -> dict[str, Any]:
    """In plain values and tensors, which can be loaded without executing anything."""
    name, keys, *rest = tuple(np.random.get_state(legacy=True))  # noqa: NPY002 - it is others that draw from it
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_state(state: dict[str, Any]) -> None:
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if len(state["cuda"]) == torch.cuda.device_count():  # another number of GPUs draws differently anyway
        torch.cuda.set_rng_state_all([generator.cpu() for generator in state["cuda"]])


SIGNAL = signal.SIGUSR1
"""What SLURM is asked to send some time before it ends a job (``sbatch --signal``)."""


class Requeue(Checkpoint):
    """Under SLURM: when the signal comes, writes ``last.ckpt`` after the step and asks for the job to be queued again.

    Lightning's own handler writes wherever the training stands, which may be between the two halves of a step. The job
    then finds its run again by itself. (A checkpoint callback, since these come after all others.)
    """

    def __init__(self) -> None:
        self._asked = False
        self._at_work = False
        self._before: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listens to the signal; Lightning then does not."""
        in_main = threading.current_thread() is threading.main_thread()
        self._at_work = stage == "fit" and "SLURM_JOB_ID" in os.environ and in_main
        if self._at_work:
            self._before = signal.signal(SIGNAL, self._note)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listens no longer."""
        if self._at_work:
            signal.signal(SIGNAL, self._before)
            self._at_work = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Acts, on all processes after the same step.

        Raises:
            SystemExit: when the job is in the queue again.
        """
        if not self._at_work or not between_steps(trainer):
            return
        if not trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            return
        assert isinstance(trainer.checkpoint_callback, Checkpoints)
        trainer.checkpoint_callback.save_last_now(trainer)
        if trainer.is_global_zero:
            if isinstance(trainer.logger, RunLogger):
                trainer.logger.ending = "SCHEDULED"
            _requeue(os.environ["SLURM_JOB_ID"])
        trainer.strategy.barrier("requeue")
        raise SystemExit(0)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True


def _requeue(job: str) -> None:
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True, timeout=60)
        said = f"job {job} is in the queue again; its training goes on from the checkpoint that was just written"
    except (OSError, subprocess.SubprocessError) as error:
        why = str(getattr(error, "stderr", "") or error).strip()
        said = f"job {job} could not be queued again ({why}): submit it again with --resume"
    tqdm.write(f"lightning-cells: {said}", file=sys.stderr)
