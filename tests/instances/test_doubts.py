"""Results that cannot be right are told; those that can are not."""

import numpy as np
import pytest

from lightning_cells.data.tracks import Lineage, Track
from lightning_cells.instances.doubts import Doubts

AREA = 400.0


def squares(side: int, apart: int, size: int = 200) -> np.ndarray:
    """Squares on a grid, each with a number of its own."""
    rows, columns = np.indices((size, size))
    inside = (rows % apart < side) & (columns % apart < side)
    return np.where(inside, rows // apart * size + columns // apart + 1, 0).astype(np.int32)


def said(frames: list[np.ndarray], lineage: Lineage | None = None, area: float | None = AREA) -> list[str]:
    doubts = Doubts(area)
    for frame in frames:
        doubts.see(frame)
    tracks = {number: Track(number, 0, len(frames) - 1, 0) for number in np.unique(frames).tolist() if number}
    return doubts.said(tracks if lineage is None else lineage)


@pytest.mark.parametrize("side", [10, 20, 40])
def test_cells_are_not_doubted(side):
    assert said([squares(side, 50)] * 4) == []
    assert said([squares(side, 50)]) == []


def test_some_pieces_beside_the_cells():
    frame = squares(20, 50)
    frame[45:48, 45:48] = 9999
    assert said([frame] * 4) == []


def test_fragments():
    (line,) = said([squares(5, 50)] * 4)
    assert line.startswith("most of what was found is tiny, 25 pixels where a cell has about 400: ")
    assert "--diameter" in line
    assert said([squares(5, 50)] * 4, area=None) == []


def test_one_object_over_most_of_a_frame():
    (line,) = said([np.ones((50, 50), np.int32)] * 3)
    assert "covers most of a frame" in line
    assert said([np.ones((50, 50), np.int32), *[squares(20, 50, 50)] * 2]) == []  # of one frame alone


def test_crowds_without_tracks():
    frame = squares(10, 15)  # 196 of them
    one_frame = {k: Track(k, k % 4, k % 4, 0) for k in range(1, 800)}
    (line,) = said([frame] * 4, one_frame)
    assert line.startswith("196 objects in a frame, and most tracks have one frame only")
    assert said([frame] * 4) == []  # they live as long as the video
    assert said([squares(10, 50)] * 4, one_frame) == []  # there are few
    assert said([frame], {k: Track(k, 0, 0, 0) for k in range(1, 197)}) == []  # a still image


def test_nothing_at_all():
    (line,) = said([np.zeros((20, 20), np.int32)] * 3)
    assert line.startswith("no cells were found in any frame")
