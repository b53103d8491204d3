"""Neighbours against distances between all pixels of all cells."""

import pickle

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from skimage import draw

from lightning_cells.data.neighbours import CosineTarget, neighbours
from lightning_cells.errors import InputError


def plain(labels, radius, dilation):
    """Coordinates of every cell's pixels, and all distances between them."""
    ids = np.where(labels > 0, labels, np.where(labels < -1, -1 - labels, 0))
    found = [i for i in np.unique(ids) if i > 0]
    near = np.zeros((len(found), len(found)), bool)
    for a, i in enumerate(found):
        frames_i, *place_i = np.nonzero(ids == i)
        place_i = np.stack(place_i, 1)
        for b, j in enumerate(found):
            if i == j:
                continue
            frames_j, *place_j = np.nonzero(ids == j)
            place_j = np.stack(place_j, 1)
            near[a, b] = (np.hypot(*(place_j - place_i.mean(0)).T) < radius).any()
            soon = np.abs(frames_i[:, None] - frames_j) <= 1
            near[a, b] |= (cdist(place_i, place_j)[soon] <= dilation).any()
    return found, near


def moving_cells(seed, frames=4, size=(50, 40), number=12):
    """Ellipses that move, lie at all edges, appear and vanish; some are markers, some pixels unknown."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((frames, *size), np.int32)
    for label in rng.choice(60_000, number, replace=False) + 1:
        centre, step, axes = rng.uniform(0, size), rng.uniform(-4, 4, 2), rng.uniform(1, 6, 2)
        begin = rng.integers(frames)
        for t in range(begin, rng.integers(begin, frames) + 1):
            rows, columns = draw.ellipse(*(centre + t * step), *axes, shape=size, rotation=rng.uniform(0, 3))
            labels[t, rows, columns] = label if rng.random() < 0.8 else -1 - label
    labels[rng.random(labels.shape) < 0.05] = -1
    return labels


@pytest.mark.parametrize(("radius", "dilation"), [(12, 5), (0, 5), (12, 0), (0, 3.3), (100, 1), (7.5, 2), (0, 0)])
@pytest.mark.parametrize("seed", range(4))
def test_equals_distances_between_all_pixels(seed, radius, dilation):
    labels = moving_cells(seed)
    ids, near = neighbours(labels, radius, dilation)
    expected_ids, expected = plain(labels, radius, dilation)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(near, expected)
    assert ids.dtype == np.int32


def test_many_pairs_are_and_are_not_neighbours():
    _, near = neighbours(moving_cells(0), 12, 5)
    assert 10 < near.sum() < 100  # else the comparison above would say little


def test_reach_is_exact():
    labels = np.zeros((1, 20, 40), np.int32)
    labels[0, 5, 5] = 1
    labels[0, 8, 9] = 2  # 5 px away
    labels[0, 5, 30] = 3
    for dilation, expected in ((4.99, False), (5, True)):
        assert neighbours(labels, 0, dilation)[1][0, 1] == expected
    for radius, expected in ((5, False), (5.01, True)):  # closer than the radius
        assert neighbours(labels, radius, 0)[1][0, 1] == expected


def test_edges_do_not_touch_each_other():
    labels = np.zeros((2, 8, 9), np.int32)
    labels[0, 3, 0] = 1
    labels[0, 2, 8] = 2  # the pixel before, in memory
    labels[0, 7, 4] = 3
    labels[1, 0, 4] = 4  # the next row, in memory
    assert not neighbours(labels, 0, 4)[1].any()


def test_mother_and_daughters_meet_in_time():
    labels = np.zeros((4, 20, 30), np.int32)
    labels[:2, 8:12, 10:20] = 1
    labels[2:, 8:12, 10:14] = 2
    labels[3, 8:12, 16:20] = 3  # appears a frame late
    ids, near = neighbours(labels, 0, 1)
    assert ids.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(near, [[0, 1, 0], [1, 0, 0], [0, 0, 0]])


def test_a_centre_is_that_of_the_whole_clip_and_sees_all_frames():
    labels = np.zeros((3, 9, 60), np.int32)
    labels[0, 4, 10] = 1
    labels[2, 4, 30] = 1  # its centre is in column 20
    labels[1, 4, 22] = 2
    labels[0, 4, 40] = 3
    np.testing.assert_array_equal(neighbours(labels, 4, 0)[1], [[0, 1, 0], [0, 0, 0], [0, 0, 0]])


def test_target_lists_pairs_of_one_shape():
    labels = moving_cells(1)
    made = pickle.loads(pickle.dumps(CosineTarget(12, capacity=500)))(labels)
    assert list(made) == ["neighbours"]
    pairs = made["neighbours"]
    assert pairs.shape == (500, 2)
    assert pairs.dtype == np.int32
    ids, near = plain(labels, 12, 5)
    expected = {(ids[a], ids[b]) for a, b in np.argwhere(near)}
    assert {tuple(pair) for pair in pairs if pair[0] != -1} == expected
    assert (pairs[len(expected) :] == -1).all()

    few = CosineTarget(12, capacity=7)(labels)["neighbours"]
    assert len({tuple(pair) for pair in few}) == 7
    assert {tuple(pair) for pair in few} < expected


@pytest.mark.parametrize("value", [0, -1])
def test_no_cells(value):
    labels = np.full((2, 5, 6), value, np.int32)
    ids, near = neighbours(labels, 10)
    assert ids.shape == (0,)
    assert near.shape == (0, 0)
    assert (CosineTarget(10, capacity=3)(labels)["neighbours"] == -1).all()


def test_views_are_taken_as_they_come():
    labels = moving_cells(2)
    flipped = labels[::-1, ::-1].transpose(0, 2, 1)
    np.testing.assert_array_equal(neighbours(flipped, 12)[1], neighbours(labels, 12)[1])


def test_negative_distances_are_named():
    with pytest.raises(InputError, match="radius -1"):
        neighbours(np.zeros((1, 2, 2), np.int32), -1)
