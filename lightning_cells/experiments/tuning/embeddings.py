"""Embeddings of whole videos on disk, computed once and read by every trial, and RSHN that writes or reads them."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from lightning_cells.data.cache import entry, make_room, open_array
from lightning_cells.errors import InputError
from lightning_cells.instances.embedding import foreground_mask
from lightning_cells.instances.windows import PairLinker
from lightning_cells.methods.embedded import EmbeddedVideo
from lightning_cells.methods.rshn import RSHN

FORMAT = 2
"""To be raised when entries are written in another way."""
_TOO_MUCH = "cache_gigabytes: embeddings of the validation videos need {}, or validate on fewer frames by data.val"
_FILES: dict[str, np.dtype] = {"values": np.dtype(np.float32), "masks": np.dtype(np.uint8)}


class StudyMistake(InputError):
    """Something that spoils every trial of a study, not only the one that noticed it."""


class Writer(ExitStack):
    """Writes the embeddings of one video: of each tile the foreground's, and which pixels these are.

    The others are not clustered, whatever they say.

    Args:
        folder: where the files go.
        limit: most bytes.

    Attributes:
        tiles: what `StoredEmbeddings` needs to find them.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        super().__init__()
        self._files = {name: self.enter_context((folder / f"{name}.bin").open("wb")) for name in _FILES}
        self._limit = limit
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
            raise StudyMistake(_TOO_MUCH.format(f"more than {self._limit / 1e9:.3g} GB on disk: raise it"))


class StoredEmbeddings:
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
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def entry(self, key: str, compute: Callable[[Writer], None]) -> StoredEmbeddings:
        """Returns an entry, which is computed first if it is not there, by one process at a time.

        Args:
            key: all that it depends on, as a digest.
            compute: writes it.

        Raises:
            StudyMistake: if it takes more room than there is.
        """

        def build(temporary: Path) -> Any:
            with Writer(temporary, self.limit) as writer:
                compute(writer)
            return writer.tiles

        return StoredEmbeddings(self.folder / key, entry(self.folder / key, build))

    def use(self, stored: StoredEmbeddings) -> None:
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
        left = make_room(self.folder, self.limit, keep)
        if left > self.limit:
            raise StudyMistake(_TOO_MUCH.format(f"{left / 1e9:.3g} GB on disk: raise it to that"))


class HalvedRSHN(RSHN):
    """RSHN whose videos write their embeddings instead of tracking, or track by embeddings that were written.

    Attributes:
        kept: to be set: where each video, in the order in which they come, writes or reads.
    """

    kept: Iterator[Writer | StoredEmbeddings]

    @classmethod
    def make(cls, kept: Iterable[Writer | StoredEmbeddings], **options: Any) -> Self:
        """Returns the method with some of its options, and a network that is to be replaced if it is needed."""
        method = cls(features=1, levels=1, stacks=1, **options)
        method.kept = iter(kept)
        return method

    def open_video(self, size: tuple[int, int], first_frame: int = 0) -> EmbeddedVideo:
        """Returns the next video."""
        return _HalfVideo(self, size, first_frame, next(self.kept))


class _HalfVideo(EmbeddedVideo):
    def __init__(self, method: RSHN, size: tuple[int, int], first_frame: int, kept: Writer | StoredEmbeddings) -> None:
        window, batch = method.hparams["window"], method.hparams["tile_batch"]
        linker = PairLinker(method.linking, first_frame)
        super().__init__(method.network, window, size, method.tiling, batch, method.decoder, linker)
        self._kept = kept
        self._frames = 0

    def push(self, frames: Tensor) -> list[np.ndarray]:
        if isinstance(self._kept, StoredEmbeddings):
            return super().push(frames)
        for number, tiles in super().embeddings(frames):
            for tile in tiles:
                self._kept.add(self._frames + number, tile)
        self._frames += len(frames)
        return []

    def embeddings(self, frames: Tensor) -> Iterator[tuple[int, Tensor]]:
        assert isinstance(self._kept, StoredEmbeddings)
        for number in range(len(frames)):
            for tile in self._kept.frame(self._frames + number, frames.device):
                yield number, tile[None]
        self._frames += len(frames)

    def finish(self) -> list[np.ndarray]:
        return super().finish() if isinstance(self._kept, StoredEmbeddings) else []
