"""Videos of the method that embeds pixels: which pair of frames gives which cells."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lightning_cells.instances.embedding import EmbeddingDecoder
from lightning_cells.instances.link_options import LinkOptions
from lightning_cells.instances.tiling import Tiling
from lightning_cells.instances.windows import PairLinker
from lightning_cells.methods.embedded import EmbeddedVideo


class Perfect:
    """Embeddings along an axis for each grey value of the frames, which are the cells' numbers."""

    def contract(self, frames):
        return ()

    def embed(self, frames, contracted=(), last=2):
        return F.one_hot(frames[:, -last:, 0].long(), 8).movedim(-1, 2).float()


def video() -> EmbeddedVideo:
    linker = PairLinker(LinkOptions(t_length=1))
    return EmbeddedVideo(
        Perfect(), 3, (24, 32), Tiling(tile=64, overlap=32, margin=0), 1, EmbeddingDecoder(min_size=30), linker
    )


def frames(count: int) -> torch.Tensor:
    """A large cell, and one of 20 pixels a frame, less than the 30 that two frames must have together."""
    cells = torch.zeros(count, 1, 24, 32)
    cells[:, :, 2:12, 3:13] = 1
    cells[:, :, 15:20, 20:24] = 2
    return cells + 1e-3 * torch.rand(cells.shape, generator=torch.Generator().manual_seed(0))


def tracked(parts: list[torch.Tensor]) -> np.ndarray:
    state = video()
    return np.stack([*(labels for part in parts for labels in state.push(part)), *state.finish()])


def test_the_first_frame_is_that_of_the_first_pair():
    labels = tracked([frames(4)])
    assert labels.shape == (4, 24, 32)
    assert [len(np.unique(frame)) - 1 for frame in labels] == [2, 2, 2, 2]
    np.testing.assert_array_equal(labels[0] > 0, frames(4)[0, 0].round() > 0)


def test_a_video_of_one_frame_is_decoded_alone():
    assert [len(np.unique(frame)) - 1 for frame in tracked([frames(1)])] == [1]  # 20 pixels are too few in one frame


@pytest.mark.parametrize("sizes", [(2, 3), (5,), (3, 1, 1), (2, 1, 1, 1)])
def test_chunks_make_no_difference(sizes):
    np.testing.assert_array_equal(tracked([*frames(5).split(sizes)]), tracked([frames(5)]))
