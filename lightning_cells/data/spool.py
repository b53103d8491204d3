"""What a long computation has done so far, kept on disk so that a killed one can go on."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from lightning_cells.data.atomic import writing


class _Sink:
    """Takes what torch writes, and keeps why a file cannot be written, which torch would hide.

    Args:
        file: open for writing.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, part: bytes) -> int:
        if self.error is None:
            try:
                self._file.write(part)
            except OSError as error:
                self.error = error
        return len(part)

    def flush(self) -> None:
        """Closing the file does that."""


class Spool:
    """Results of consecutive chunks, and the state in which the computation was after the last of them.

    A state can be large, so it is written now and then; chunks after it are computed again.

    Args:
        folder: where all is kept; made if it is missing.
        key: tells what is computed of what. A folder of another key, or a damaged one, is emptied.
        interval: seconds from one writing of the state to the next.

    Attributes:
        done: number of chunks to go on after.
        state: state after them, None at the start: tensors, and tuples of these.
    """

    def __init__(self, folder: Path, key: str, interval: float) -> None:
        self.folder = folder
        self.interval = interval
        self._saved = time.monotonic()
        found = self._read(key)
        if found is None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            with writing(folder / "key") as temporary:
                temporary.write_text(key, encoding="utf-8")
            found = [], None
        self._sizes: list[int] = found[0]
        self.state: Any = found[1]
        self.done = len(self._sizes)

    def chunks(self) -> Iterator[list[np.ndarray]]:
        """Yields the results of the chunks that were done, one after another."""
        for number in range(self.done):
            with np.load(self._chunk(number), allow_pickle=False) as arrays:
                yield [arrays[name] for name in arrays.files]

    def append(self, arrays: list[np.ndarray], state: Any) -> None:
        """Keeps the results of the next chunk, and the state after it if it is time.

        Raises:
            OSError: for instance if the disk is full; what was kept before stays.
        """
        path = self._chunk(len(self._sizes))
        with writing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, *arrays)
        self._sizes.append(path.stat().st_size)
        if time.monotonic() - self._saved < self.interval:
            return
        with writing(self.folder / "state.pt") as temporary, temporary.open("wb") as file:
            sink = _Sink(file)
            torch.save({"sizes": self._sizes, "state": state}, sink)  # type: ignore[arg-type]  # all that it asks for
            if sink.error is not None:
                raise sink.error
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Removes all that was kept."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, key: str) -> tuple[list[int], Any] | None:
        """Sizes of the chunk files and the state after them; None if there is nothing to go on from."""
        try:
            if (self.folder / "key").read_text(encoding="utf-8") != key:
                return None
            record = torch.load(self.folder / "state.pt", map_location="cpu", weights_only=True)
            if [self._chunk(number).stat().st_size for number in range(len(record["sizes"]))] != record["sizes"]:
                return None
            return record["sizes"], record["state"]
        except Exception:  # not there, or damaged in any way
            return None

    def _chunk(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"
