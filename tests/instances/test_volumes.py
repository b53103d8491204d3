"""Cells of volumes: stitched from plane to plane, or found in 3-D."""

import numpy as np
import pytest
from scipy.ndimage import correlate1d, gaussian_filter1d

from lightning_cells.data.targets import three_class
from lightning_cells.errors import InputError
from lightning_cells.instances.components import ArgmaxDecoder, SeedDecoder
from lightning_cells.instances.volumes import Stitcher, Volumes, ball, cut_by_distance, smoothed

VOXEL = (4.0, 1.0, 1.0)
ALL = ["stitch", "watershed", "components"]


def balls(centres, radii, shape=(12, 64, 64), voxel=VOXEL):
    """(Z, H, W) int32: a ball of each radius, in pixels, in voxels that are deeper than wide."""
    z, y, x = np.mgrid[tuple(map(slice, shape))]
    labels = np.zeros(shape, np.int32)
    for label, ((cz, cy, cx), radius) in enumerate(zip(centres, radii, strict=True), 1):
        away = ((z - cz) * voxel[0] / voxel[2]) ** 2 + (y - cy) ** 2 + (x - cx) ** 2
        labels[away <= radius**2] = label
    return labels


def planes_of(labels, contour=True):
    """Class probabilities of each plane of a volume: sure, with a contour where two cells touch in the plane."""
    classes = (labels > 0).astype(int)
    if contour:
        for plane, out in zip(labels, classes, strict=True):
            padded = np.pad(plane, 1)
            around = [padded[1 + dy : padded.shape[0] - 1 + dy, 1 + dx : padded.shape[1] - 1 + dx]
                      for dy in (-1, 0, 1) for dx in (-1, 0, 1)]  # fmt: skip
            other = np.any([(there != plane) & (there > 0) & (plane > 0) for there in around], 0)
            out[other] = 2
    for plane in classes:
        yield np.stack([plane == c for c in range(3)]).astype(np.float32)


def iou(truth, found, label):
    cell = truth == label
    names, pixels = np.unique(found[cell], return_counts=True)
    best = names[pixels.argmax()]
    return 0.0 if not best else (cell & (found == best)).sum() / (cell | (found == best)).sum()


@pytest.mark.parametrize("cells", ALL)
def test_separate_balls(cells):
    truth = balls([(3, 16, 16), (7, 16, 48), (8, 45, 30)], [9, 11, 14])
    decoder = ArgmaxDecoder(volumes=Volumes(cells=cells))
    found = decoder.volume(planes_of(truth), VOXEL)
    assert found.dtype == np.int32
    assert found.max() == 3
    assert min(iou(truth, found, label) for label in (1, 2, 3)) > 0.98


@pytest.mark.parametrize("cells", ALL)
def test_balls_that_touch_in_their_planes(cells):
    truth = balls([(5, 30, 20), (5, 30, 39), (6, 49, 30)], [10, 10, 10])
    found = ArgmaxDecoder(volumes=Volumes(cells=cells)).volume(planes_of(truth), VOXEL)
    assert found.max() == 3
    assert min(iou(truth, found, label) for label in (1, 2, 3)) > 0.9


@pytest.mark.parametrize("cells", ["stitch", "watershed"])
def test_balls_that_touch_above_each_other(cells):
    """There is no contour between planes: the distance, or that the upper one lies beside, must tell them apart."""
    truth = balls([(3, 32, 24), (8, 32, 38)], [11, 11])
    touching = (truth[1:] != truth[:-1]) & (truth[1:] > 0) & (truth[:-1] > 0)
    assert touching.any()
    found = ArgmaxDecoder(volumes=Volumes(cells=cells)).volume(planes_of(truth), VOXEL)
    assert found.max() == 2
    assert min(iou(truth, found, label) for label in (1, 2)) > 0.85


def test_the_distance_is_in_units_of_the_voxel():
    """Two balls that touch: taken for cubes, each is as thin as a disc, and its middle no maximum of its own."""
    truth = balls([(6, 32, 20), (6, 32, 38)], [11, 11])
    decoder = ArgmaxDecoder(min_size=1, volumes=Volumes(cells="watershed"))
    assert decoder.volume(planes_of(truth, contour=False), VOXEL).max() == 2
    assert decoder.volume(planes_of(truth, contour=False), (0.1, 1.0, 1.0)).max() == 1


def test_cells_that_meet_in_their_planes_are_cut_there():
    """Two flat cells side by side, all of which is near to above and below: the distance alone tells nothing."""
    truth = np.zeros((4, 40, 60), np.int32)
    truth[1:3, 8:32, 5:30] = 1
    truth[1:3, 8:32, 30:55] = 2
    decoder = ArgmaxDecoder(volumes=Volumes(cells="watershed"))
    found = decoder.volume(planes_of(truth), VOXEL)
    assert found.max() == 2
    assert min(iou(truth, found, label) for label in (1, 2)) > 0.9
    assert decoder.volume(planes_of(truth, contour=False), VOXEL).max() == 1


def encoded(labels):
    """The probabilities of a network that knows the truth of each plane."""
    return [np.stack([plane == c for c in range(3)]).astype(np.float32) for plane in three_class(labels)]


def test_cells_come_back_from_their_classes():
    """Balls that touch in their planes and above each other, one with a cap that is contour alone."""
    truth = balls([(5, 30, 20), (5, 30, 39), (6, 49, 30), (9, 30, 52)], [10, 10, 10, 9])
    assert ((truth[1:] != truth[:-1]) & (truth[1:] > 0) & (truth[:-1] > 0)).any()
    found = SeedDecoder(min_size=1, volumes=Volumes()).volume(encoded(truth), VOXEL)
    assert min(iou(truth, found, label) for label in (1, 2, 3, 4)) > 0.998


def test_a_slanting_cell_is_not_cut():
    """Its middle lies between two planes, so that its distance has a maximum in each of them."""
    z, y, x = np.mgrid[:8, :50, :80]
    truth = (((z - 3.5) * 5 / 9) ** 2 + ((y - 25) / 9) ** 2 + ((x - 40 - 4 * (z - 3.5)) / 9) ** 2 <= 1).astype(np.int32)
    assert len(np.unique(cut_by_distance(truth, 0.5, 2.0, (5.0, 1.0, 1.0)))) == 2


def test_what_planes_tell_apart_stays_apart():
    """Two long cells side by side: the face between them is wide, and their planes alone say that there is one."""
    truth = np.zeros((6, 60, 40), np.int32)
    truth[1:5, 5:55, 8:19] = 1
    truth[1:5, 5:55, 19:30] = 2
    found = SeedDecoder().volume(encoded(truth), VOXEL)
    assert [iou(truth, found, label) for label in (1, 2)] == [1, 1]


def test_stitching_is_one_to_one():
    """Two cells over one: the one that fits it better goes on, the other begins."""
    lower = np.zeros((20, 40), np.int32)
    lower[5:15, 5:35] = 1
    upper = np.zeros_like(lower)
    upper[5:15, 5:22] = 1
    upper[5:15, 24:35] = 2
    stitcher = Stitcher(0.5)
    first, second, third = (stitcher.push(plane) for plane in (lower, upper, upper))
    assert set(np.unique(first)) == {0, 1}
    assert second[10, 10] == first[10, 10] == 1
    assert second[10, 30] == 2
    np.testing.assert_array_equal(second, third)


def test_stitching_needs_overlap():
    plane = np.zeros((20, 40), np.int32)
    plane[5:15, 5:15] = 1
    for shift, same in ((4, True), (6, False)):
        stitcher = Stitcher(0.5)
        first, second = stitcher.push(plane), stitcher.push(np.roll(plane, shift, 1))
        assert (first.max() == second.max()) == same


def test_stitching_of_random_planes_is_that_of_a_plain_loop():
    rng = np.random.default_rng(0)
    for _ in range(20):
        planes = [np.kron(rng.integers(0, 4, (4, 5)), np.ones((3, 3), int)).astype(np.int32) for _ in range(4)]
        planes = [np.where(plane > 0, np.arange(20).repeat(9).reshape(plane.shape) % 7 + 1, 0) for plane in planes]
        planes = [np.roll(plane, k, 1).astype(np.int32) for k, plane in enumerate(planes)]
        stitcher = Stitcher(0.4)
        found = [stitcher.push(plane) for plane in planes]
        for before, plane, named, now in zip(planes[:-1], planes[1:], found[:-1], found[1:], strict=True):
            pairs = {}
            for a in set(before[before > 0]):
                for b in set(plane[plane > 0]):
                    both = ((before == a) & (plane == b)).sum()
                    if both:
                        share = both / min((before == a).sum(), (plane == b).sum())
                        pairs[a, b] = both / ((before == a) | (plane == b)).sum(), share
            for (a, b), (value, share) in pairs.items():
                rivals = [v for (c, d), (v, _) in pairs.items() if (c == a) != (d == b)]
                joined = named[before == a][0] == now[plane == b][0]
                if value > max(rivals, default=0) and share >= 0.4:
                    assert joined
                elif share < 0.4 or value < max(rivals, default=0):
                    assert not joined


@pytest.mark.parametrize("sigma", [0.4, 0.7, 1.5])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 12])
def test_smoothing_is_that_of_scipy(sigma, count):
    planes = np.random.default_rng(1).random((count, 3, 4, 5)).astype(np.float32)
    found = np.stack(list(smoothed(iter(planes), sigma)))
    reach = int(np.ceil(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    np.testing.assert_allclose(found, correlate1d(planes, weights / weights.sum(), 0, mode="nearest"), atol=1e-5)
    np.testing.assert_allclose(found, gaussian_filter1d(planes, sigma, 0, mode="nearest", truncate=3.1), atol=0.01)


def test_smoothing_holds_few_planes():
    came = []

    def planes():
        for number in range(50):
            came.append(number)
            yield np.zeros((2, 3, 3), np.float32)

    for number, _ in enumerate(smoothed(planes(), 1.0)):
        assert len(came) <= number + 4


@pytest.mark.parametrize("cells", ALL)
def test_a_gap_in_one_plane_is_closed_by_smoothing(cells):
    truth = balls([(6, 32, 32)], [16])
    planes = list(planes_of(truth))
    planes[6] = np.stack([np.full((64, 64), 0.8), np.full((64, 64), 0.2), np.zeros((64, 64))]).astype(np.float32)
    plain = ArgmaxDecoder(volumes=Volumes(cells=cells)).volume(iter(planes), VOXEL)
    assert plain.max() == 2
    found = ArgmaxDecoder(volumes=Volumes(cells=cells, smoothing=0.8)).volume(iter(planes), VOXEL)
    assert found.max() == 1


def test_sizes_are_those_of_balls():
    """A ball of radius 8 has a section of 201 pixels, and 536 voxels of depth 4."""
    truth = balls([(6, 32, 32)], [8])
    assert ball(np.pi * 64, VOXEL) == pytest.approx(4 / 3 * np.pi * 512 / 4)
    assert ball(201, VOXEL) == pytest.approx((truth > 0).sum(), rel=0.1)
    for size, kept in ((180, 1), (220, 0)):
        assert ArgmaxDecoder(min_size=size).volume(planes_of(truth), VOXEL).max() == kept
        assert ArgmaxDecoder(min_size=1, max_size=size).volume(planes_of(truth), VOXEL).max() == 1 - kept
    at_the_side = balls([(6, 3, 32), (6, 32, 32)], [5, 5])
    assert ArgmaxDecoder(border=10).volume(planes_of(at_the_side), VOXEL).max() == 1


def test_volumes_without_cells_and_of_two_classes():
    nothing = np.zeros((4, 20, 20), np.int32)
    for cells in ALL:
        for decoder in (ArgmaxDecoder(volumes=Volumes(cells=cells)), SeedDecoder(volumes=Volumes(cells=cells))):
            assert not decoder.volume(planes_of(nothing), VOXEL).any()
            cell = balls([(2, 10, 10)], [6], (4, 20, 20))
            two = (plane[:2] for plane in planes_of(cell, contour=False))
            assert decoder.volume(two, VOXEL).max() == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cells": "glue"}, "volumes.cells: glue is not known"),
        ({"overlap": 1.5}, "volumes.overlap: 1.5 is no share"),
        ({"depth": -1.0}, "volumes.depth: -1.0 is no length"),
        ({"smoothing": float("inf")}, "volumes.smoothing: inf is no length"),
    ],
)
def test_options_that_cannot_be(options, words):
    with pytest.raises(InputError, match=words):
        Volumes(**options)


@pytest.mark.parametrize("cells", ALL)
def test_a_cell_thinner_than_what_is_cut_by_is_kept(cells):
    truth = np.zeros((4, 20, 20), np.int32)
    truth[2, 5:9, 5:9] = 1
    assert ArgmaxDecoder(volumes=Volumes(cells=cells)).volume(planes_of(truth), (1.0, 1.0, 1.0)).max() == 0  # min_size
    assert ArgmaxDecoder(min_size=2, volumes=Volumes(cells=cells)).volume(planes_of(truth), (1.0, 1.0, 1.0)).max() == 1
