"""Probabilities averaged over frames and their mirror images."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_cells.errors import InputError
from lightning_cells.instances.components import ArgmaxDecoder
from lightning_cells.instances.linkers import Overlap
from lightning_cells.methods import RSHN, ULSTM
from lightning_cells.methods.segmented import SegmentedVideo
from lightning_cells.tracking import Tracker


def video(probabilities: object, flips: bool) -> SegmentedVideo:
    opened = SegmentedVideo(probabilities, (20, 24), ArgmaxDecoder(), Overlap().start(0))  # type: ignore[arg-type]
    opened.flips = flips
    return opened


def test_the_average_is_over_the_four_views_each_with_its_own_state() -> None:
    torch.manual_seed(0)
    place = torch.rand(2, 20, 24)

    def probabilities(frames: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """What depends on the place, on the frame, and on the frames before."""
        before = torch.zeros(20, 24) if state is None else state
        after = before + frames.sum((0, 1))
        return place * frames + before, after

    frames = torch.rand(5, 1, 20, 24)
    total = torch.zeros(())
    for axes in [(), (2,), (3,), (2, 3)]:
        seen = [probabilities(frames[:2].flip(axes), None)]
        seen.append(probabilities(frames[2:].flip(axes), seen[0][1]))
        total = total + torch.cat([one for one, _ in seen]).flip(axes) / 4
    opened = video(probabilities, flips=True)
    found = torch.cat([opened.segment(frames[:2]), opened.segment(frames[2:])])
    torch.testing.assert_close(found, total)


def test_a_mirrored_video_gives_mirrored_cells() -> None:
    torch.manual_seed(0)
    method = ULSTM(channels=(4, 6), lstm_kernel=3, warm_up_frames=1).eval()
    frames = torch.randn(3, 1, 20, 24)
    said = []
    for given in (frames, frames.flip(-1)):
        opened = method.open_video((20, 24))
        opened.flips = True
        said.append(opened.segment(given).numpy())
    np.testing.assert_allclose(said[0], said[1][..., ::-1], atol=1e-5)


def test_embeddings_are_not_averaged() -> None:
    tracker = object.__new__(Tracker)
    tracker._flips = True

    class Frames:
        size, numbers = (20, 24), (0,)

    with pytest.raises(InputError, match="--flips: RSHN has no probabilities to average"):
        tracker._opened(RSHN(features=2, levels=1), Frames())  # type: ignore[arg-type]
