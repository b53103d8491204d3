"""Where the trials of a worker run: each has devices of its own and a fair share of the cores."""

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lightning_cells.errors import InputError


@dataclass(frozen=True)
class Place:
    """What a trial may use.

    Attributes:
        cores: numbers of the cores that it is pinned to; none where the system cannot pin.
        gpus: names of its GPUs, as ``CUDA_VISIBLE_DEVICES`` has them; None leaves that variable alone.
        processes: how many processes share it.
    """

    cores: tuple[int, ...]
    gpus: tuple[str, ...] | None
    processes: int = 1

    def environment(self) -> dict[str, str]:
        """Variables of the trial's process."""
        variables = dict(os.environ)
        for name in list(variables):  # the trial is no task of its own for Lightning
            if name.startswith("SLURM_"):
                del variables[name]
        variables.setdefault("OMP_NUM_THREADS", str(max(1, len(self.cores) // self.processes)))
        if self.gpus is not None:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus)
        return variables

    def pin(self, process: int) -> None:
        """Binds a process that was just started, and so all that it will start, to the cores."""
        if self.cores:
            with suppress(ProcessLookupError):
                os.sched_setaffinity(process, self.cores)


def places(workers: int, accelerator: Any, devices: Any) -> list[Place]:
    """Divides this machine.

    Args:
        workers: trials at a time.
        accelerator: ``trainer.accelerator`` of the trials.
        devices: ``trainer.devices``.

    Raises:
        InputError: if there are too few GPUs.
    """
    if workers < 1:
        raise InputError(f"--workers {workers}: must be at least 1")
    each = len(devices) if isinstance(devices, list) else int(devices) if str(devices).isdecimal() else 1
    gpus = [] if accelerator in ("cpu", "mps", "tpu") else _gpus()
    if gpus and workers * each > len(gpus):
        raise InputError(
            f"--workers {workers}: need {workers * each} GPUs at {each} for each trial, but there are {len(gpus)}: "
            f"give --workers {max(1, len(gpus) // each)}" + (" or fewer trainer.devices" if each > len(gpus) else "")
        )
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return [
        Place(
            _share(cores, number, workers),
            tuple(gpus[number * each : (number + 1) * each]) if gpus else None,
            each,
        )
        for number in range(workers)
    ]


def _gpus() -> list[str]:
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


def _share(cores: list[int], number: int, workers: int) -> tuple[int, ...]:
    if not cores:
        return ()
    if workers >= len(cores):
        return (cores[number % len(cores)],)
    return tuple(cores[number * len(cores) // workers : (number + 1) * len(cores) // workers])
