"""Videos for the method that embeds pixels in sliding windows and tracks by what it finds in pairs of frames."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from lightning_cells.data.intensity import resize_labels
from lightning_cells.data.tracks import Lineage
from lightning_cells.instances.embedding import EmbeddingDecoder
from lightning_cells.instances.emptiness import is_empty
from lightning_cells.instances.tiling import Tile, Tiling
from lightning_cells.instances.windows import PairLinker
from lightning_cells.methods.base import Video
from lightning_cells.networks.hourglass import StackedHourglass

GPU_TILES = 16  # fewer leave a GPU idle


class EmbeddedVideo(Video):
    """Embeddings of windows -> cells of pairs of frames -> tracks.

    Each frame but the first ends a window of the frames before it, which the network sees from a state of zero; the
    cells of its last two frames are linked with those of the window before. Windows of a tile share the contracting
    path of their frames; between calls only the window's frames are kept.

    Args:
        network: embeds the end of a window.
        window: frames per window; at the start of a video they are fewer.
        size: (H, W) on disk, to which cells are resampled before they are linked.
        tiling: cuts frames into tiles and merges their cells.
        tile_batch: tiles that go through the network together, and on a GPU through the clustering; there they are
            `GPU_TILES` at least.
        decoder: embeddings of a tile in two frames -> cells.
        linker: cells of consecutive pairs of frames -> tracks.
    """

    def __init__(
        self,
        network: StackedHourglass,
        window: int,
        size: tuple[int, int],
        tiling: Tiling,
        tile_batch: int,
        decoder: EmbeddingDecoder,
        linker: PairLinker,
    ) -> None:
        self._network = network
        self._window = window
        self._size = size
        self._tiling = tiling
        self._tile_batch = tile_batch
        self._decoder = decoder
        self._linker = linker
        self.state: Tensor | None = None  # (t, 1, h, w), the last frames

    @property
    def lineage(self) -> Lineage:
        """Rows of the tracks in the frames returned so far."""
        return self._linker.lineage

    def instances(self, frames: Tensor) -> list[np.ndarray]:
        """Finds the cells of the next frames, float32 (T, 1, h, w).

        Returns:
            For each of them int32 (2, h, w), the cells of the frame before and of this one: for the first frames of a
            video one array less than there are frames, and (1, h, w) for a frame that is alone.
        """
        empty = [True, *(is_empty(frame) for (frame,) in frames.cpu())]
        if self.state is not None and len(self.state):
            empty[0] = is_empty(self.state[-1, 0].cpu())
        found: list[list[np.ndarray]] = [[] for _ in frames]
        for number, tiles in self.embeddings(frames):
            found[number] += self._decoder.of_tiles(tiles)
        size = (frames.shape[-2], frames.shape[-1])
        pairs = [self._tiling.merge(labels, size) for labels in found if labels]
        for pair, of_pair in zip(pairs, list(pairwise(empty))[-len(pairs) :], strict=True):
            pair[list(of_pair[-len(pair) :])] = 0
        return pairs

    @torch.no_grad()
    def embeddings(self, frames: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Embeds the next frames, float32 (T, 1, h, w).

        Yields:
            Which of the frames ends the window, and float32 (B, 2, D, h, w) embeddings of some tiles in the last two
            frames of that window: for each frame all tiles, in their order. The first frame of a video ends no window,
            its cells are those of its pair with the second; if it comes alone, (B, 1, D, h, w).
        """
        known = 0 if self.state is None else len(self.state)
        frames = frames if self.state is None else torch.cat([self.state, frames])
        alone = len(frames) == 1
        ends = range(known + 1 if known or alone else 2, len(frames) + 1)
        layout = self._tiling.layout((frames.shape[-2], frames.shape[-1]))
        together = self._tile_batch if frames.device.type == "cpu" else max(self._tile_batch, GPU_TILES)
        for first in range(0, len(layout), together):
            windows = self._windows(frames, layout[first : first + together], ends)
            for end, tiles in zip(ends, windows, strict=True):
                yield end - 1 - known, tiles.float()
        # a copy: a view would keep, and save, the whole chunk
        self.state = (frames[-(self._window - 1) :] if self._window > 1 else frames[:0]).clone()

    def link(self, found: list[np.ndarray]) -> list[np.ndarray]:
        """Links what `instances` found, and returns the frames whose tracks are certain."""
        return [done for pair in found for done in self._linker.push(resize_labels(pair, self._size))]

    def finish(self) -> list[np.ndarray]:
        """Returns the frames that waited for what might come after them."""
        return self._linker.finish()

    def _windows(self, frames: Tensor, tiles: list[Tile], ends: range) -> Iterator[Tensor]:
        """Yields, window by window, the embeddings of some tiles."""
        clips = torch.stack([frames[..., tile.rows, tile.columns] for tile in tiles])
        contracted = self._network.contract(clips)
        for end in ends:
            part = slice(max(0, end - self._window), end)
            shared = tuple(level[:, part] for level in contracted)
            yield self._network.embed(clips[:, part], shared, last=2)
