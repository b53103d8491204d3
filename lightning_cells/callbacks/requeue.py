"""Jobs of SLURM whose time is up: a last checkpoint, and back into the queue."""

import os
import signal
import subprocess
import sys
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from tqdm import tqdm

from lightning_cells.callbacks.checkpoint import Checkpoints, between_steps
from lightning_cells.loggers.mlflow import RunLogger

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
