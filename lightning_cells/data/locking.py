"""A lock between processes, given back by the operating system when its holder dies."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm import tqdm

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> None:
        # far beyond the process id, which others must be able to read
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
else:
    import fcntl

    def _try_lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


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
    descriptor = _acquire(path)
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file: a left-over file does no harm
            path.unlink()
        os.close(descriptor)


def _acquire(path: Path) -> int:
    told = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _try_lock(descriptor)
            if _is_current(descriptor, path):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, str(os.getpid()).encode())
                return descriptor
        except (BlockingIOError, PermissionError):
            if not told:
                holder = os.read(descriptor, 32).decode(errors="replace") or "unknown"
                tqdm.write(f"waiting for process {holder}, which holds {path}", file=sys.stderr)
                told = True
            time.sleep(POLL_S)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_current(descriptor: int, path: Path) -> bool:
    """Whether `path` is still the locked file: its last holder may have removed it while we were waiting."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
