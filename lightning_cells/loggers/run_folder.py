"""What this machine keeps of a run, so that it can go on: its configuration, and which process is at work on it."""

import hashlib
import json
import os
import re
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from lightning_cells.data.atomic import writing
from lightning_cells.errors import InputError
from lightning_cells.loggers.store import default_uri, tracking_uri, with_password
from lightning_cells.paths import output_dir


class RunFolder:
    """The folder ``outputs/runs/<name>`` of a run.

    Args:
        name: the run's id; or another one, if the store was away when the run began.

    Raises:
        InputError: if there can be no such run.

    Attributes:
        path: the folder, which may not be there.
        config: the configuration of the training.
        outbox: what is not in the store yet.
    """

    def __init__(self, name: str) -> None:
        if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z_-]*", name):  # it becomes a part of paths
            raise InputError(f"--resume '{name}': is no id of a run: take one from the dashboard or {_runs()}")
        self.name = name
        self.path = _runs() / name
        self.config = self.path / "config.yaml"
        self.outbox = self.path / "outbox"
        self._claimed: FileLock | None = None
        self._writing = threading.Lock()

    def read(self) -> dict[str, Any]:
        """What is noted of the run; nothing if it is not known here."""
        try:
            return json.loads((self.path / "run.json").read_text())
        except FileNotFoundError:
            return {}

    def write(self, **entries: Any) -> None:
        """Adds to what is noted."""
        with self._writing, writing(self.path / "run.json") as temporary:
            temporary.write_text(json.dumps({**self.read(), **entries}, indent=1))

    @property
    def run_id(self) -> str:
        """The id by which the store knows the run."""
        return self.read().get("run_id") or self.name

    @property
    def uri(self) -> str:
        """Address of the store that the run began in; that under the output folder may have moved with it."""
        known = self.read()
        uri = known.get("uri") or (default_uri() if "uri" in known else tracking_uri())
        return with_password(uri)

    @property
    def checkpoints(self) -> Path:
        """The folder that its checkpoints are in."""
        settings = yaml.safe_load(self.config.read_text()) if self.config.is_file() else {}
        return Path((settings.get("checkpoint") or {}).get("folder") or output_dir() / "checkpoints" / self.name)

    def claim(self) -> None:
        """Makes this process the only one that is at work on the run, until `release` or its end.

        Raises:
            InputError: if another one is.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"run {self.name} is at work in another process: wait for its end, or stop it first"
            ) from None
        self._claimed = lock

    def release(self) -> None:
        """Lets others work on it; removes the folder if nothing is kept in it."""
        if self._claimed is None:
            return
        if not self.config.exists() and not self.outbox.exists():
            for name in ("run.json", ".lock"):
                (self.path / name).unlink(missing_ok=True)
            with suppress(OSError):  # another one has just begun something in it
                self.path.rmdir()
        self._claimed.release()
        self._claimed = None


def find_run(run: str) -> RunFolder:
    """Returns the folder of a run of which the training can go on.

    Args:
        run: its id, or the name by which this machine knows it.

    Raises:
        InputError: if nothing is kept of it here.
    """
    folder = RunFolder(run)
    others = (RunFolder(path.name) for path in sorted(_runs().glob("*/")) if path.name[:1] != ".")
    for known in (folder, *others):
        if known.config.is_file() and run in (known.name, known.run_id):
            return known
    raise InputError(f"--resume {run}: {_runs()} has no training of that id: check --output_dir and the id")


def undelivered() -> list[RunFolder]:
    """The runs of which something is not in the store yet."""
    return [RunFolder(path.parent.name) for path in sorted(_runs().glob("*/outbox")) if any(path.glob("*.json"))]


def known_runs() -> int:
    """How many runs this machine keeps something of."""
    return sum(1 for _ in _runs().glob("*"))


def _runs() -> Path:
    return output_dir() / "runs"


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
