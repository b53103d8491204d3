"""Embeddings of whole videos on disk: what the network says of them, computed once and read by every trial."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from lightning_cells.data.cache import entry, open_array
from lightning_cells.data.locking import exclusive
from lightning_cells.experiments.tuning.mistakes import StudyMistake
from lightning_cells.instances.embedding import foreground_mask

FORMAT = 1
"""To be raised when entries are written in another way."""
_FILES: dict[str, np.dtype] = {"values": np.dtype(np.float32), "masks": np.dtype(np.uint8)}


class Writer:
    """Writes the embeddings of one video: of each tile the foreground's, and which pixels these are.

    The others are not clustered, whatever they say.

    Args:
        folder: where the files go.
        limit: most bytes.
        option: what to raise if that is too few, for the message.
    """

    def __init__(self, folder: Path, limit: int, option: str) -> None:
        self._open = ExitStack()
        self._files: dict[str, IO[bytes]] = {
            name: self._open.enter_context((folder / f"{name}.bin").open("wb")) for name in _FILES
        }
        self._limit = limit
        self._option = option
        self.tiles: list[list[list[int]]] = []

    def add(self, frame: int, embeddings: Tensor) -> None:
        """Adds the next tile of a frame, float32 (T, D, h, w).

        Raises:
            StudyMistake: if there is too little room.
        """
        while len(self.tiles) <= frame:
            self.tiles.append([])
        mask = foreground_mask(embeddings).cpu().numpy()
        place = [self._files[name].tell() // dtype.itemsize for name, dtype in _FILES.items()]
        self.tiles[frame].append([*place, *embeddings.shape])
        self._files["masks"].write(np.packbits(mask).tobytes())
        for one, inside in zip(embeddings.cpu().numpy(), mask, strict=True):
            self._files["values"].write(np.ascontiguousarray(one[:, inside]).tobytes())
        if sum(file.tell() for file in self._files.values()) > self._limit:
            raise StudyMistake(
                f"{self._option}: embeddings of the validation videos need more than "
                f"{self._limit / 1e9:.3g} GB on disk: raise it, or validate on fewer frames by data.val"
            )

    def close(self) -> None:
        """Ends the files."""
        self._open.close()


class Stored:
    """The embeddings of one video.

    Args:
        folder: where they are.
        tiles: for each frame and tile, where its values and its mask begin, and its shape (T, D, h, w).
    """

    def __init__(self, folder: Path, tiles: list[list[list[int]]]) -> None:
        self.folder = folder
        self._tiles = tiles
        self._values, self._masks = (open_array(folder / f"{name}.bin", dtype) for name, dtype in _FILES.items())

    def frame(self, index: int, device: torch.device) -> Iterator[Tensor]:
        """Yields the tiles of a frame, float32 (T, D, h, w), with zeros for background."""
        for begin, bits, frames, depth, height, width in self._tiles[index]:
            size = height * width
            packed = self._masks[bits : bits + (frames * size + 7) // 8]
            inside = np.unpackbits(packed, count=frames * size).reshape(frames, size)
            tile = torch.zeros((frames, depth, size), device=device)
            for target, mask in zip(tile, inside, strict=True):
                pixels = np.flatnonzero(mask)
                values = torch.from_numpy(self._values[begin : begin + depth * len(pixels)].reshape(depth, -1).copy())
                target.index_copy_(1, torch.from_numpy(pixels).to(device), values.to(device))
                begin += depth * len(pixels)
            yield tile.view(frames, depth, height, width)


class EmbeddingCache:
    """Entries of a folder, each one video seen through one network and tiling.

    Args:
        folder: the cache.
        limit: most bytes of all entries; those not used for longest make room.
        option: name of that limit, for messages.
    """

    def __init__(self, folder: Path, limit: int, option: str = "cache_gigabytes") -> None:
        self.folder = folder
        self.limit = limit
        self._option = option

    def entry(self, key: str, compute: Callable[[Writer], None]) -> Stored:
        """Returns an entry, which is computed first if it is not there, by one process at a time.

        Args:
            key: all that it depends on, as a digest.
            compute: writes it.

        Raises:
            StudyMistake: if it takes more room than there is.
        """
        place = self.folder / key

        def build(temporary: Path) -> Any:
            writer = Writer(temporary, self.limit, self._option)
            try:
                compute(writer)
            finally:
                writer.close()
            return writer.tiles

        self.folder.mkdir(parents=True, exist_ok=True)
        with exclusive(self.folder / f".{key}.lock"):
            tiles = entry(place, build)
            return Stored(place, tiles)

    def use(self, stored: Stored) -> None:
        """Notes that an entry is in use."""
        with suppress(FileNotFoundError):
            os.utime(stored.folder)

    def make_room(self, keep: set[Path]) -> None:
        """Removes the entries that were not used for longest, as far as all take more room than there is.

        Args:
            keep: entries that stay.

        Raises:
            StudyMistake: if these alone take more.
        """
        known = {path: _size(path) for path in self.folder.glob("[!.]*") if path.is_dir()}
        total = sum(known.values())
        for path in sorted(known, key=_age):
            if total > self.limit and path not in keep:
                shutil.rmtree(path, ignore_errors=True)
                total -= known[path]
        if total > self.limit:
            raise StudyMistake(
                f"{self._option}: embeddings of the validation videos need {total / 1e9:.3g} GB on disk: raise it to "
                "that, or validate on fewer frames by data.val"
            )


def _size(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir())
    except FileNotFoundError:
        return 0  # another process removed it


def _age(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0
