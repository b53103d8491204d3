"""Checkpoint files that are whole, whatever happens while they are written."""

import os
import sys
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from tqdm import tqdm

from lightning_cells.data.atomic import writing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and then renames it; Lightning's own may copy from another disk.

    A checkpoint that cannot be written, as on a full disk, leaves the one before as it was. It is told on stderr, once
    until one can be written again, and noted, and the training goes on: with several processes an error in the one that
    writes would leave the others waiting.

    Attributes:
        failure: what kept the newest checkpoint from being written; None if it was written.
    """

    def __init__(self) -> None:
        self.failure: OSError | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any | None = None
    ) -> None:
        """Writes, or notes why it is impossible."""
        try:
            with writing(Path(path)) as temporary, _File(temporary) as file:
                torch.save(checkpoint, cast(IO[bytes], file))
            self.failure = None
        except OSError as error:
            if self.failure is None:
                tqdm.write(
                    f"lightning-cells: {path} could not be written ({error.strerror}): the training goes on, and one "
                    "that is continued starts from the checkpoint before",
                    file=sys.stderr,
                )
            self.failure = OSError(error.errno, error.strerror, str(path))


class _File:
    """A file for `torch.save`, which would hide why something cannot be written; on disk when it is closed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._error: OSError | None = None

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                self.flush()
                os.fsync(self._file.fileno())
        except OSError as error:
            self._error = self._error or error
        finally:
            self._file.close()
        if self._error is not None:
            raise self._error

    def write(self, content: bytes) -> int:
        """Writes, or notes the error for the end."""
        try:
            return self._file.write(content)
        except OSError as error:
            self._error = self._error or error
            raise

    def flush(self) -> None:
        """Hands what is buffered to the operating system."""
        self._file.flush()
