"""A lock between processes, given back by the operating system when its holder dies, and names under it."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

POLL_S = 0.2
"""Seconds between two looks at a lock that another process holds."""


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds the lock file `path` for the length of a `with` block; waits while another process has it.

    The file holds the process id of its holder and is removed at the end. A file that a killed process left
    behind does not block: what counts is the operating system's lock on it, and that went with the process.

    Raises:
        OSError: if the file cannot be made, or its file system has no locks.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        with suppress(OSError):
            holder = path.read_text(errors="replace") or "unknown"
            tqdm.write(f"waiting for process {holder}, which holds {path}", file=sys.stderr)
        lock.acquire(poll_interval=POLL_S)
    try:
        path.write_text(str(os.getpid()))
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file: a left-over file does no harm
            path.unlink()
        lock.release()


@contextmanager
def reserved(hidden: Path) -> Iterator[Path]:
    """Gives a hidden name, the same in each process, to one process alone, for what will be renamed from it.

    What a killed process left under the name is removed, at first; what was not renamed, at the end. Missing parents
    are made.

    Raises:
        OSError: if the folder cannot be written to, or its file system has no locks.
    """
    hidden.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(lock_of(hidden)):
        _remove(hidden)
        try:
            yield hidden
        finally:
            _remove(hidden)


def lock_of(hidden: Path) -> Path:
    """The lock file of a name that is `reserved`."""
    return hidden.with_name(f"{hidden.name}.lock")


def _remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
