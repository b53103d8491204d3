"""Jobs of a cluster that are started again: how a training finds the run that it began."""

import hashlib
import os
from pathlib import Path

from lightning_cells.data.atomic import writing
from lightning_cells.paths import output_dir


def interrupted_run(words: tuple[str, ...]) -> str | None:
    """Name of the run that an earlier attempt of this job has begun with the same command line, if there is one.

    An attempt is what SLURM calls a restart, after a job was queued again, and torchrun a restart of its workers.

    Args:
        words: the command line, which tells apart several trainings of a job.
    """
    note = _note(words)
    if note is None or not _attempt():
        return None
    try:
        return note.read_text().strip()
    except FileNotFoundError:
        return None


def remember_job(words: tuple[str, ...], run: str) -> None:
    """Notes which run this job trains, for `interrupted_run`; does nothing outside of a job."""
    note = _note(words)
    if note is not None:
        with writing(note) as temporary:
            temporary.write_text(f"{run}\n")


def _note(words: tuple[str, ...]) -> Path | None:
    """``outputs/runs/.jobs/<digest of job and command line>``; None outside of a job."""
    slurm, elastic = os.environ.get("SLURM_JOB_ID"), os.environ.get("TORCHELASTIC_RUN_ID")
    if slurm:
        job = f"slurm-{slurm}"
    elif elastic and elastic != "none":  # torchrun's default, which says nothing
        job = f"torchrun-{elastic}"
    else:
        return None
    digest = hashlib.blake2b("\0".join((job, *words)).encode(), digest_size=8).hexdigest()
    return output_dir() / "runs" / ".jobs" / digest


def _attempt() -> int:
    """How often the job was started before."""
    counts = (os.environ.get(name, "0") for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))
    return sum(int(count) for count in counts if count.isdecimal())
