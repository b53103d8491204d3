"""Crops that nothing deforms are read as they are: the pixels that the map of the same place would read."""

import numpy as np
import pytest

from lightning_cells.data import crop, deformation
from lightning_cells.data.crop import Place, read_clip

SIGNED = [[[a, 0], [0, b]] for a in (1, -1) for b in (1, -1)] + [[[0, a], [b, 0]] for a in (1, -1) for b in (1, -1)]


@pytest.fixture(scope="module")
def video():
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(3, 12, 17)).astype(np.float16)
    return frames, rng.integers(-1, 9, frames.shape, np.int32), rng.integers(-1, 3, frames.shape, np.int8)


@pytest.mark.parametrize("matrix", SIGNED)
@pytest.mark.parametrize(("shape", "origin"), [((6, 6), (2, 9)), ((5, 5), (7, 0)), ((12, 12), (0, 5))])
def test_a_window_has_the_pixels_that_a_map_reads(video, matrix, shape, origin):
    place = Place(shape, origin, np.array(matrix, float), [None])
    assert crop.window_of(place, video[0].shape[1:]) is not None
    found = read_clip(place, [2, 0], *video)
    grid = deformation.sampling_map(shape, origin, place.matrix)
    rows, columns = np.rint(grid).astype(int)
    for array, given in zip(found, video, strict=True):
        assert np.array_equal(array, given[[2, 0]][:, rows, columns])
        assert array.flags.c_contiguous
    assert [array.dtype for array in found] == [np.float32, np.int32, np.int8]


@pytest.mark.parametrize(
    ("shape", "origin", "matrix", "bent"),
    [
        ((6, 6), (-1, 2), SIGNED[0], False),  # leaves the frame
        ((6, 6), (7, 2), SIGNED[0], False),
        ((6, 4), (2, 2), SIGNED[4], False),  # a turn that changes the shape
        ((6, 6), (2, 2), [[0.5, 0], [0, 1]], False),
        ((6, 6), (2, 2), [[0.8, -0.6], [0.6, 0.8]], False),
        ((6, 6), (2, 2), SIGNED[0], True),
    ],
)
def test_what_is_deformed_or_leaves_the_frame_has_no_window(video, shape, origin, matrix, bent):
    place = Place(shape, origin, np.array(matrix, float), [np.zeros((2, *shape), np.float32)] if bent else [None])
    assert crop.window_of(place, video[0].shape[1:]) is None


def test_a_margin_is_unknown(video):
    place = Place((12, 12), (0, 5), np.eye(2), [None])
    frames, labels, classes = video
    _, found, _ = read_clip(place, [0], frames, labels, classes, unknown_border=2)
    expected = labels[:1, :, 5:].copy()
    margin = np.ones(expected.shape, bool)
    margin[:, 2:-2, :-2] = False
    expected[(expected == 0) & margin] = -1
    assert np.array_equal(found, expected)
