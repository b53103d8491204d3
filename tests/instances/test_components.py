import numpy as np
import pytest
from jsonargparse import ArgumentParser
from scipy import ndimage
from skimage.segmentation import watershed

from lightning_cells.errors import InputError
from lightning_cells.instances.components import (
    ArgmaxDecoder,
    Decoder,
    ForegroundDecoder,
    SeedDecoder,
    ThresholdDecoder,
)

ALL = [ArgmaxDecoder, ThresholdDecoder, SeedDecoder, ForegroundDecoder]


def probabilities(foreground, contour=None):
    """(H, W) foreground and contour -> (2 or 3, H, W) float32 that sum to 1."""
    parts = [foreground] if contour is None else [foreground, contour]
    return np.stack([1 - sum(parts), *parts]).astype(np.float32)


def same_partition(first, second):
    pairs = set(zip(first.ravel().tolist(), second.ravel().tolist(), strict=True))
    return (0, 0) in pairs and len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def inner_contour_classes(labels):
    """Plain definition: a cell's pixel with another value among its eight neighbours is contour."""
    # what lies outside the frame counts as the cell itself
    low = ndimage.minimum_filter(labels, 3, mode="nearest")
    high = ndimage.maximum_filter(labels, 3, mode="nearest")
    return np.where(labels == 0, 0, np.where(low == high, 1, 2))


def blobs(seed, size=96, cells=30):
    """Touching cells of random outline: unions of 3x3 squares with a connected interior, without holes."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(size, size)), 3)
    centres = rng.integers(0, size, (cells, 2))
    y, x = np.mgrid[:size, :size]
    distance = np.hypot(y[None] - centres[:, 0, None, None], x[None] - centres[:, 1, None, None])
    voronoi = distance.argmin(0) + 1
    voronoi[noise < -0.05] = 0
    labels = np.zeros((size, size), np.int32)
    for cell in range(1, cells + 1):
        mask = np.pad(voronoi == cell, 1, mode="edge")  # a cell cut by the border has no contour there
        pieces, _ = ndimage.label(ndimage.binary_erosion(mask, np.ones((3, 3)))[1:-1, 1:-1], np.ones((3, 3)))
        areas = np.bincount(pieces.ravel())[1:]
        if len(areas) == 0:
            continue
        shape = ndimage.binary_dilation(pieces == areas.argmax() + 1, np.ones((3, 3)))
        if (ndimage.binary_fill_holes(shape) == shape).all():
            labels[shape] = cell
    return labels


@pytest.mark.parametrize("seed", range(8))
def test_argmax_undoes_the_inner_contour(seed):
    labels = blobs(seed)
    assert len(np.unique(labels)) > 10
    classes = inner_contour_classes(labels)
    touching = (labels[:, 1:] != labels[:, :-1]) & (labels[:, 1:] > 0) & (labels[:, :-1] > 0)
    assert touching.any()
    one_hot = np.stack([classes == c for c in range(3)]).astype(np.float32)
    decoded = ArgmaxDecoder(min_size=1)(one_hot)
    assert decoded.dtype == np.int32
    assert same_partition(decoded, labels)
    assert same_partition(ThresholdDecoder(min_size=1)(one_hot), labels)


def test_argmax_gives_contour_up_to_the_distance():
    classes = np.zeros((15, 15), int)
    classes[3:12, 3:12] = 2  # three pixels of contour around 3x3 of interior
    classes[6:9, 6:9] = 1
    classes[7, 7] = 2  # within the interior
    one_hot = np.stack([classes == c for c in range(3)]).astype(np.float32)
    expected = {1: 9, 2: 25, 2.5: 45, 3: 49, 20: 81}  # the corners of 7x7 are sqrt(8) away from 3x3
    for distance, size in expected.items():
        assert (ArgmaxDecoder(min_size=1, edge_distance=distance)(one_hot) > 0).sum() == size


def test_what_an_interior_encloses_is_part_of_it():
    classes = np.zeros((20, 20), int)
    classes[2:18, 2:18] = 1
    classes[7:14, 7:14] = 2  # a ring of contour within the cell, and interior within the ring
    classes[10, 10] = 1
    one_hot = np.stack([classes == c for c in range(3)]).astype(np.float32)
    for decoder in (ArgmaxDecoder(min_size=1), ThresholdDecoder(min_size=1)):
        assert np.bincount(decoder(one_hot).ravel()).tolist() == [144, 256]


def test_unsure_contour_parts_cells_by_threshold_only():
    foreground, contour = np.zeros((2, 20, 30))
    foreground[5:15, 5:25] = 0.9
    contour[5:15, 14:16] = 0.35
    foreground[5:15, 14:16] = 0.6
    frame = probabilities(foreground, contour)
    assert ArgmaxDecoder()(frame).max() == 1
    parted = ThresholdDecoder()(frame)
    assert parted.max() == 2
    assert (parted > 0).sum() == 200  # the contour went back to the cells
    np.testing.assert_array_equal(parted[5:15, 5:15], parted[5, 5])
    np.testing.assert_array_equal(parted[5:15, 15:25], parted[5, 24])
    frame[2, 5:15, 14:16] = 0.25
    assert ThresholdDecoder(edge_threshold=0.25)(frame).max() == 2  # from the threshold on
    assert ThresholdDecoder(edge_threshold=0.26)(frame).max() == 1


def test_threshold_ignores_contour_in_the_background():
    foreground, contour = np.zeros((2, 20, 20))
    foreground[8:12, 8:12] = 1.0
    contour[7:13, 7:13] = np.where(foreground[7:13, 7:13] > 0, 0, 0.45)  # background .55 around
    frame = probabilities(foreground, contour)
    assert (ThresholdDecoder()(frame) > 0).sum() == 16
    assert (ThresholdDecoder(background_threshold=0.6)(frame) > 0).sum() == 36


def seeded_frame(seed=0, size=128):
    """Smooth random cells, touching, of which some have no sure interior."""
    rng = np.random.default_rng(seed)
    cell = 1 / (1 + np.exp(-40 * ndimage.gaussian_filter(rng.normal(size=(size, size)), 3)))
    share = 1 / (1 + np.exp(-60 * (ndimage.gaussian_filter(rng.normal(size=(size, size)), 2.5) + 0.01)))
    return probabilities(cell * share, cell * (1 - share))


@pytest.mark.parametrize("seed", range(4))
def test_seeds_grow_as_in_a_watershed_of_the_whole_frame(seed):
    frame = seeded_frame(seed)
    background, foreground, contour = frame
    cell = background < 0.5
    sure = ndimage.binary_opening(np.pad(cell & (foreground > 0.8 * (foreground + contour)), 1, mode="edge"))[
        1:-1, 1:-1
    ]
    seeds, count = ndimage.label(sure, np.ones((3, 3)))
    for seed_label in range(1, count + 1):
        if (seeds == seed_label).sum() < 5:
            seeds[seeds == seed_label] = 0
    expected = watershed(-foreground, seeds, mask=cell, connectivity=2)
    regions, count = ndimage.label(cell, np.ones((3, 3)))
    unseeded = 0
    for region in range(1, count + 1):
        if not expected[regions == region].any():
            expected[regions == region] = expected.max() + 1
            unseeded += 1
    decoded = SeedDecoder(min_size=1)(frame)
    holes = expected == 0  # filled after
    assert same_partition(np.where(holes, 0, decoded), expected)
    assert unseeded > 0
    assert decoded.max() > count  # some component has several seeds


def test_seeds_part_touching_cells_at_their_contour():
    y, x = np.mgrid[:40, :60]
    left, right = np.hypot(y - 20, x - 20) < 12, np.hypot(y - 20, x - 40) < 12
    interior = (np.hypot(y - 20, x - 20) < 9) | (np.hypot(y - 20, x - 40) < 9)
    interior |= (abs(y - 20) < 3) & (x > 20) & (x < 40)  # a bridge that argmax falls for
    middle = (abs(x - 30) < 2) & interior
    foreground = np.where(interior, 0.95, np.where(left | right, 0.1, 0.0))
    foreground[middle] = 0.6
    contour = np.where(interior, 0.05, np.where(left | right, 0.85, 0.0))
    contour[middle] = 0.4
    frame = probabilities(foreground, contour)
    assert ArgmaxDecoder()(frame).max() == 1
    decoded = SeedDecoder()(frame)
    assert decoded.max() == 2
    np.testing.assert_array_equal(decoded > 0, frame[0] < 0.5)
    assert len(np.unique(decoded[left & (x < 29)])) == len(np.unique(decoded[right & (x > 31)])) == 1


def test_a_component_without_seed_is_kept_if_large_enough():
    foreground, contour = np.zeros((2, 30, 40))
    contour[5:9, 5:9] = 0.9  # 16 px, no interior at all
    contour[20:23, 20:23] = 0.9  # 9 px
    foreground[10:20, 25:35] = 0.9  # 100 px, seeded
    contour[12:15, 35:38] = 0.9  # hangs on to it
    frame = probabilities(foreground, contour)
    assert sorted(np.bincount(SeedDecoder()(frame).ravel())[1:].tolist()) == [16, 109]
    assert sorted(np.bincount(SeedDecoder(min_size=9)(frame).ravel())[1:].tolist()) == [9, 16, 109]
    assert sorted(np.bincount(SeedDecoder(max_size=50)(frame).ravel())[1:].tolist()) == [16]


def test_faint_cells_are_found_where_they_stand_apart():
    y, x = np.mgrid[:60, :120]

    def disc(row, column, radius):
        return np.hypot(y - row, x - column) < radius

    sure, faint = disc(20, 20, 8), disc(20, 70, 8)
    tail = (abs(y - 20) < 4) & (x >= 30) & (x < 50)  # of the sure one, two pixels away
    speck = disc(50, 100, 3)
    broken = disc(45, 40, 8)  # faint, but for a piece in its middle
    foreground = np.where(sure, 0.9, np.where(faint | tail | speck | broken, 0.25, 0.02))
    foreground[disc(45, 40, 4)] = 0.6
    frame = probabilities(foreground, np.zeros_like(foreground))
    few = SeedDecoder()(frame)
    assert sorted(np.unique(few)) == [0, 1, 2]
    more = SeedDecoder(faint_threshold=0.8, faint_size=100, faint_distance=3.0)(frame)
    assert more.max() == 3
    for cell in (sure, faint, broken):
        (label,) = np.unique(more[cell])
        np.testing.assert_array_equal(more == label, cell)
    with_all = SeedDecoder(faint_threshold=0.8, faint_size=20, faint_distance=1.0)(frame)
    assert with_all.max() == 5
    np.testing.assert_array_equal(SeedDecoder(faint_threshold=0.5, faint_size=1)(frame), few)


def test_a_cell_that_is_sure_keeps_its_outline_beside_faint_ones():
    y, x = np.mgrid[:40, :40]
    distance = np.hypot(y - 20, x - 20)
    foreground = np.where(distance < 9, 0.9, np.where(distance < 11, 0.3, 0.0))
    frame = probabilities(foreground, np.zeros_like(foreground))
    decoded = SeedDecoder(faint_threshold=0.8, faint_size=10, faint_distance=0.0)(frame)
    np.testing.assert_array_equal(decoded > 0, distance < 9)


def test_foreground_rule_counts_interiors_only():
    foreground, contour = np.zeros((2, 40, 40))
    foreground[5:13, 5:13] = 0.3  # 64 px
    foreground[8, 8] = 0.0  # a hole
    contour[4, 4:14] = 0.7  # not the cell's
    foreground[13:21, 13:21] = 0.9  # touches it at a corner only
    foreground[30:37, 30:37] = 0.9  # 49 px
    foreground[25:35, 5:15] = 0.25  # not above the threshold
    decoded = ForegroundDecoder()(probabilities(foreground, contour))
    assert np.bincount(decoded.ravel())[1:].tolist() == [64, 64]
    assert decoded[8, 8] == decoded[5, 5] != decoded[13, 13]
    assert ForegroundDecoder(threshold=0.2, min_size=49)(probabilities(foreground, contour)).max() == 4


@pytest.mark.parametrize("decoder", ALL)
def test_two_classes_give_filled_components(decoder):
    foreground = np.zeros((40, 40))
    foreground[3:13, 3:13] = 0.8
    foreground[7, 7] = 0.1
    foreground[20:30, 15:35] = 0.6
    foreground[35, 3] = 0.9  # a speck
    decoded = decoder()(probabilities(foreground))
    assert np.bincount(decoded.ravel())[1:].tolist() == [100, 200]


@pytest.mark.parametrize("decoder", ALL)
@pytest.mark.parametrize("classes", [2, 3])
def test_empty_full_and_undefined_frames(decoder, classes):
    frame = np.zeros((classes, 16, 21), np.float32)
    frame[0] = 1
    empty = decoder()(frame)
    assert empty.shape == (16, 21)
    assert empty.dtype == np.int32
    assert not empty.any()
    np.testing.assert_array_equal(decoder()(np.roll(frame, 1, 0)), 1)
    assert not decoder()(np.full_like(frame, np.nan)).any()


@pytest.mark.parametrize("decoder", ALL)
def test_cells_in_the_margin_are_dropped_and_the_rest_renumbered(decoder):
    foreground = np.zeros((60, 60))
    foreground[0:9, 20:29] = 1  # within 10 px of the border
    foreground[3:12, 40:49] = 1  # reaches inside
    foreground[30:39, 30:39] = 1
    decoded = decoder(border=10)(probabilities(foreground, np.zeros_like(foreground)))
    assert np.unique(decoded).tolist() == [0, 1, 2]
    assert not decoded[:9, 20:29].any()


def test_mistakes_are_named():
    with pytest.raises(InputError, match=r"^seed_threshold: 1.5 is no probability"):
        SeedDecoder(seed_threshold=1.5)
    with pytest.raises(InputError, match=r"^min_size: -1 is negative"):
        ArgmaxDecoder(min_size=-1)
    with pytest.raises(InputError, match=r"^max_size: 20 is below min_size 50"):
        ForegroundDecoder(max_size=20)
    with pytest.raises(InputError, match="shape 4x8x8"):
        ArgmaxDecoder()(np.zeros((4, 8, 8), np.float32))
    with pytest.raises(InputError, match="border: 8 px"):
        ArgmaxDecoder(border=8)(np.zeros((3, 8, 8), np.float32))


def test_decoders_are_chosen_by_name_in_a_configuration():
    parser = ArgumentParser()
    parser.add_argument("--decoder", type=Decoder, default=SeedDecoder())
    chosen = parser.parse_args(["--decoder=ThresholdDecoder", "--decoder.edge_threshold=.2", "--decoder.border=5"])
    assert parser.instantiate(chosen).decoder == ThresholdDecoder(edge_threshold=0.2, border=5)
    changed = parser.parse_args(["--decoder.seed_threshold=.7"])
    assert parser.instantiate(changed).decoder == SeedDecoder(seed_threshold=0.7)
