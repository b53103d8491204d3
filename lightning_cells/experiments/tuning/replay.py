"""RSHN in two halves: one embeds videos and keeps that, the other clusters, links and scores what was kept."""

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from lightning_cells.data.ctc import Lineage
from lightning_cells.experiments.tuning.embeddings import Stored, Writer
from lightning_cells.instances.embedding import EmbeddingDecoder
from lightning_cells.instances.link_options import LinkOptions
from lightning_cells.instances.tiling import Tiling
from lightning_cells.instances.windows import PairLinker
from lightning_cells.methods.embedded import EmbeddedVideo
from lightning_cells.methods.rshn import RSHN


class Embedding(RSHN):
    """Writes the embeddings of videos instead of tracking them.

    Args:
        window: frames that the network sees.
        tiling: how frames are cut into tiles.
        tile_batch: tiles that go through the network together.

    Attributes:
        network: to be replaced by the trained one.
        writers: to be set: one for each video, in the order in which they come.
    """

    def __init__(self, window: int, tiling: Tiling, tile_batch: int) -> None:
        super().__init__(features=1, levels=1, stacks=1, window=window, tiling=tiling, tile_batch=tile_batch)
        self.writers: Iterator[Writer] = iter(())

    def open_video(self, size: tuple[int, int], first_frame: int = 0) -> EmbeddedVideo:
        """Returns a video that writes."""
        return _WrittenVideo(self, size, next(self.writers))


class Replay(RSHN):
    """Tracks and scores videos whose embeddings are there already, exactly as the method would.

    Args:
        tiling: the one that they were made with, as far as tiles go.
        decoder: as of the method.
        linking: as of the method.

    Attributes:
        stored: to be set: embeddings of each video, in the order in which they come.
    """

    def __init__(self, tiling: Tiling, decoder: EmbeddingDecoder, linking: LinkOptions) -> None:
        super().__init__(features=1, levels=1, stacks=1, tiling=tiling, decoder=decoder, linking=linking)
        self.stored: Iterator[Stored] = iter(())

    def open_video(self, size: tuple[int, int], first_frame: int = 0) -> EmbeddedVideo:
        """Returns a video that reads."""
        return _ReadVideo(self, size, first_frame, next(self.stored))


class _WrittenVideo(EmbeddedVideo):
    def __init__(self, method: RSHN, size: tuple[int, int], writer: Writer) -> None:
        window, batch = method.hparams["window"], method.hparams["tile_batch"]
        linker = PairLinker(method.linking)
        super().__init__(method.network, window, size, method.tiling, batch, method.decoder, linker)
        self._writer = writer
        self._frames = 0

    @property
    def lineage(self) -> Lineage:
        return {}

    def push(self, frames: Tensor) -> list[np.ndarray]:
        for number, embeddings in self.embeddings(frames):
            self._writer.add(self._frames + number, embeddings)
        self._frames += len(frames)
        return []

    def finish(self) -> list[np.ndarray]:
        return []


class _ReadVideo(EmbeddedVideo):
    def __init__(self, method: RSHN, size: tuple[int, int], first_frame: int, stored: Stored) -> None:
        linker = PairLinker(method.linking, first_frame)
        super().__init__(method.network, 1, size, method.tiling, 1, method.decoder, linker)
        self._stored = stored
        self._frames = 0

    def embeddings(self, frames: Tensor) -> Iterator[tuple[int, Tensor]]:
        for number in range(len(frames)):
            for tile in self._stored.frame(self._frames + number, frames.device):
                yield number, tile
        self._frames += len(frames)
