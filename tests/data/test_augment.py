import os
import pickle
import random
import tracemalloc
from dataclasses import replace
from itertools import pairwise

import albumentations as A
import numpy as np
import pytest
import torch
from jsonargparse import CLI
from torch.utils.data import DataLoader, Dataset

from lightning_cells.data.augment import Augmentation, ClipAugmentation
from lightning_cells.errors import InputError

PLAIN = {"flip": False, "rot90": False}
WILD = {"rotation": 180, "scale": (0.7, 1.4), "stretch": (0.8, 1.2), "elastic": 10}
EVERYTHING = Augmentation(
    crop=32,
    **WILD,
    intensity_scale=(0.5, 1.5),
    intensity_shift=0.3,
    gamma=(0.7, 1.3),
    frame_jitter=0.1,
    noise=0.2,
    blur=1.0,
)


@pytest.fixture
def video():
    """Frames, labels of all kinds, and classes of a video of 5 frames of 60 x 70 pixels."""
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(5, 60, 70)).astype(np.float16)
    labels = rng.choice([-9, -2, -1, 0, 3, 70_000], (5, 60, 70)).astype(np.int32)
    classes = rng.integers(-1, 3, (5, 60, 70), np.int8)
    return frames, labels, classes


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# --- crop, flips and turns


@pytest.mark.parametrize("indices", [[0, 1, 2], [4, 2, 0], [3]])
def test_a_plain_crop_is_a_slice_of_the_frames_asked_for(video, indices):
    clip = ClipAugmentation(Augmentation(crop=16, **PLAIN))(*video, indices, (30, 41), 0)
    rows, columns = slice(22, 38), slice(33, 49)
    assert [array.dtype for array in clip] == [np.float32, np.int32, np.int8]
    for found, whole in zip(clip, video, strict=True):
        assert found.flags.c_contiguous
        assert np.array_equal(found, whole[indices, rows, columns])


@pytest.mark.parametrize(("centre", "corner"), [((0, 69), (0, 54)), ((59, 0), (44, 0)), ((8.4, 8), (0, 0))])
def test_a_crop_at_the_border_moves_inwards(video, centre, corner):
    clip = ClipAugmentation(Augmentation(crop=16, **PLAIN))(*video, [1], centre, 0)
    row, column = corner
    assert np.array_equal(clip[1][0], video[1][1, row : row + 16, column : column + 16])


def test_without_a_centre_every_place_within_the_frame_is_drawn():
    place = np.arange(6 * 7, dtype=np.int32).reshape(1, 6, 7)
    cut = ClipAugmentation(Augmentation(crop=4, **PLAIN))
    corners = [
        int(cut(np.zeros((1, 6, 7), np.float32), place, None, [0], None, seed)[1][0, 0, 0]) for seed in range(300)
    ]
    assert set(corners) == {row * 7 + column for row in range(3) for column in range(4)}
    assert max(np.bincount(corners)) < 60  # 25 expected


def test_translation_moves_a_centred_crop_within_the_frame():
    """Each shift of up to two pixels along each axis is as likely, but the crop stays inside."""
    place = np.arange(9 * 9, dtype=np.int32).reshape(1, 9, 9)
    cut = ClipAugmentation(Augmentation(crop=3, translation=2, **PLAIN))

    def corners(centre: tuple[float, float]) -> np.ndarray:
        clips = [cut(np.zeros((1, 9, 9), np.float32), place, None, [0], centre, seed) for seed in range(500)]
        return np.array([divmod(int(clip[1][0, 0, 0]), 9) for clip in clips])

    found, counts = np.unique(corners((4, 4)), axis=0, return_counts=True)
    assert found.tolist() == [[row, column] for row in range(1, 6) for column in range(1, 6)]
    assert counts.max() < 45, "20 expected"
    found, counts = np.unique(corners((0, 8))[:, 0], return_counts=True)
    assert found.tolist() == [0, 1]
    assert counts[0] > 350, "four shifts of five lead to the border"


def test_translation_needs_a_centre():
    """Without one, each place is drawn anyway."""
    image = np.arange(81, dtype=np.float32).reshape(1, 9, 9)
    still, moved = (ClipAugmentation(Augmentation(crop=3, translation=t, **PLAIN)) for t in (0, 4))
    for seed in range(5):
        assert same(*([a for a in cut(image, None, None, [0], None, seed) if a is not None] for cut in (still, moved)))


def arrangements(settings: Augmentation, image: np.ndarray, draws: int = 400) -> dict[bytes, int]:
    change = ClipAugmentation(settings)
    counts: dict[bytes, int] = {}
    for seed in range(draws):
        frames, labels, _ = change(image[None].astype(np.float32), image[None], None, [0], None, seed)
        assert np.array_equal(frames, labels)
        counts[labels.tobytes()] = counts.get(labels.tobytes(), 0) + 1
    return counts


def test_flips_and_turns_reach_all_eight_arrangements_evenly():
    # albumentations' own set_random_seed gives every transform the same stream: it reaches only four
    image = np.arange(25, dtype=np.int32).reshape(5, 5)
    expected = {np.rot90(side, k).tobytes() for side in (image, image[:, ::-1]) for k in range(4)}
    counts = arrangements(Augmentation(crop=5), image)
    assert set(counts) == expected
    assert min(counts.values()) > 25
    assert max(counts.values()) < 80


def test_frames_that_are_not_square_keep_their_shape():
    image = np.arange(15, dtype=np.int32).reshape(3, 5)
    turned = {image.tobytes(), image[::-1, ::-1].tobytes()}
    assert set(arrangements(Augmentation(crop=None, flip=False), image)) == turned
    flipped = {image[::-1].tobytes(), image[:, ::-1].tobytes()}
    assert set(arrangements(Augmentation(crop=None), image)) == turned | flipped
    assert set(arrangements(Augmentation(crop=None, rot90=False), image)) == turned | flipped
    assert len(arrangements(Augmentation(crop=None, rot90=False, flip=False), image)) == 1


@pytest.mark.parametrize("used", [("flip",), ("rot90",), ("flip", "rot90")])
def test_flips_and_turns_are_those_that_albumentations_draws(used):
    """Earlier versions drew them by it: a seed still gives the same clip."""
    image = np.arange(25, dtype=np.float32).reshape(1, 5, 5)
    change = ClipAugmentation(Augmentation(crop=None, flip="flip" in used, rot90="rot90" in used))
    flips = [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)] if "flip" in used else []
    theirs = A.Compose([*flips, *([A.RandomRotate90(p=1)] if "rot90" in used else [])])
    for seed in range(50):
        theirs.set_random_state(np.random.default_rng(0), random.Random(seed))
        assert np.array_equal(change(image, None, None, [0], None, seed)[0], theirs(images=image)["images"])


def test_a_small_frame_is_mirrored_out_and_its_surroundings_are_unknown():
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(2, 10, 30)).astype(np.float32)
    labels = rng.integers(0, 9, (2, 10, 30), np.int32)
    clip, ids, classes = ClipAugmentation(Augmentation(crop=24, **PLAIN))(
        frames, labels, labels.astype(np.int8), [0, 1], None, 1
    )
    rows = np.flatnonzero((ids[0] != -1).any(axis=1))
    assert len(rows) == 10
    before, after = rows[0], 23 - rows[-1]
    assert before > 0
    assert after > 0
    assert (ids[:, :before] == -1).all()
    assert np.array_equal(ids, classes)
    mirrored = np.pad(frames, ((0, 0), (before, after), (0, 0)), mode="reflect")
    places = [np.array_equal(mirrored[:, :, column : column + 24], clip) for column in range(7)]
    assert sum(places) == 1
    assert np.array_equal(ids[:, rows], labels[:, :, places.index(True) :][:, :, :24])


# --- one geometry for the whole clip


def test_frames_labels_and_classes_move_together_in_all_frames():
    rows, columns = np.mgrid[:90, :100]
    labels = np.stack([rows, columns, rows, columns]).astype(np.int32)
    classes = (labels % 100).astype(np.int8)
    change = ClipAugmentation(Augmentation(crop=48, **WILD))
    for seed in range(5):
        frames, ids, kinds = change(labels.astype(np.float32), labels, classes, [0, 1, 2, 3], None, seed)
        assert np.array_equal(frames[:2], frames[2:])
        assert np.array_equal(ids[:2], ids[2:])
        known = ids >= 0
        assert known.any()
        assert np.array_equal(known, np.broadcast_to(known[0], known.shape))
        assert np.abs(frames - ids)[known].max() < 0.55  # nearest pixel against linear interpolation of a ramp
        assert np.array_equal(kinds[known], ids[known].astype(np.int8))
        assert (kinds[~known] == -1).all()


def test_deformed_labels_are_of_the_ids_that_were_there(video):
    change = ClipAugmentation(Augmentation(crop=48, **WILD))
    found = np.stack([change(*video, [0, 3], None, seed)[1] for seed in range(10)])
    assert set(np.unique(found)) == {-9, -2, -1, 0, 3, 70_000}


def test_what_is_none_stays_none(video):
    clip, labels, classes = ClipAugmentation(EVERYTHING)(video[0], None, None, [0], None, 0)
    assert clip.shape == (1, 32, 32)
    assert labels is None
    assert classes is None


def test_a_large_memory_mapped_video_is_not_copied(tmp_path):
    frames = np.memmap(tmp_path / "frames.raw", np.float16, "w+", shape=(3, 2048, 2048))
    labels = np.memmap(tmp_path / "labels.raw", np.int32, "w+", shape=(3, 2048, 2048))
    change = ClipAugmentation(Augmentation(crop=64, **WILD))
    change(frames, labels, None, [0, 2], None, 0)
    tracemalloc.start()
    change(frames, labels, None, [0, 2], None, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


# --- a pure function of the seed


def test_equal_seeds_agree_and_others_differ(video):
    one, two = ClipAugmentation(EVERYTHING), ClipAugmentation(EVERYTHING)
    first = one(*video, [0, 1], None, 7)
    one(*video, [3], (5, 5), 8)
    assert same(first, one(*video, [0, 1], None, 7))
    assert same(first, two(*video, [0, 1], None, 7))
    assert same(first, pickle.loads(pickle.dumps(one))(*video, [0, 1], None, 7))
    assert len({one(*video, [0, 1], None, seed)[0].tobytes() for seed in range(50)}) == 50


def test_global_generators_neither_matter_nor_move(video):
    change = ClipAugmentation(EVERYTHING)
    first = change(*video, [0], None, 1)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    before = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state()  # noqa: NPY002
    assert same(first, change(*video, [0], None, 1))
    after = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state()  # noqa: NPY002
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_the_input_is_not_changed(video):
    copies = [array.copy() for array in video]
    frames = video[0].astype(np.float32)
    ClipAugmentation(EVERYTHING)(*video, [0, 1], None, 0)
    ClipAugmentation(Augmentation(crop=None, noise=1, intensity_shift=1))(frames, None, None, [0, 1], None, 0)
    assert same(video, copies)
    assert np.array_equal(frames, copies[0])


class Seeded(Dataset):
    def __init__(self, video):
        self.video, self.change = video, ClipAugmentation(EVERYTHING)

    def __len__(self):
        return 8

    def __getitem__(self, seed):
        return tuple(map(torch.from_numpy, self.change(*self.video, [0, 1], None, seed)))


def test_workers_and_epochs_give_what_the_seeds_say(video):
    data = Seeded(video)
    loader = DataLoader(data, batch_size=None, num_workers=2, persistent_workers=True)
    for _ in range(2):
        samples = list(loader)
        assert len({frames.numpy().tobytes() for frames, _, _ in samples}) == 8
        assert all(same(sample, data[seed]) for seed, sample in enumerate(samples))


def test_our_draws_are_not_those_of_a_caller_with_the_same_seed():
    # a caller who centres on a cell whenever its first draw is above 1/2 must not thereby choose the angle
    column = np.mgrid[:65, :65][1][None].astype(np.float32)
    change = ClipAugmentation(Augmentation(crop=65, **PLAIN, rotation=90))
    seeds = [seed for seed in range(200) if np.random.default_rng(seed).random() > 0.5]
    clockwise = [
        bool(np.diff(change(column, None, None, [0], (32, 32), seed)[0][0, 31:34, 32]).mean() > 0) for seed in seeds
    ]
    assert 0.3 < np.mean(clockwise) < 0.7


# --- options


def test_albumentations_transforms_can_be_added(video):
    flip = A.HorizontalFlip(p=1)
    change = ClipAugmentation(Augmentation(crop=16, **PLAIN), transforms=[flip])
    A.ReplayCompose([flip])  # switches the caller's object into replay mode, not our copy
    frames, labels, classes = change(*video, [0, 2], (30, 30), 0)
    expected = [whole[[0, 2], 22:38, 22:38][:, :, ::-1] for whole in video]
    np.testing.assert_allclose(frames, expected[0], atol=1e-5)
    assert np.array_equal(labels, expected[1])
    assert np.array_equal(classes, expected[2])


def test_albumentations_sees_the_range_of_the_clip_as_0_to_1(video):
    brighter = A.RandomBrightnessContrast(brightness_limit=(0.1, 0.1), contrast_limit=(0, 0), p=1)
    settings = Augmentation(crop=None, **PLAIN)
    frames, labels, _ = ClipAugmentation(settings, transforms=[brighter])(*video, [1, 3], None, 0)
    clip = video[0][[1, 3]].astype(np.float32)
    np.testing.assert_allclose(frames, np.minimum(clip + 0.1 * np.ptp(clip), clip.max()), atol=1e-5)
    assert np.array_equal(labels, video[1][[1, 3]])


def test_albumentations_leaves_a_constant_clip_as_it_is():
    frames = np.full((1, 20, 20), 3, np.float32)
    change = ClipAugmentation(Augmentation(crop=16, **PLAIN), transforms=[A.HorizontalFlip(p=1)])
    assert (change(frames, None, None, [0], None, 0)[0] == 3).all()


def test_importing_asks_the_network_for_nothing():
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"]


def echo(augmentation: Augmentation = Augmentation()) -> Augmentation:  # noqa: B008
    return augmentation


def test_settings_are_a_section_of_a_command_line():
    given = [
        "--augmentation.crop=null",
        "--augmentation.scale=[0.8, 1.2]",
        "--augmentation.elastic_distribution=normal",
    ]
    settings = CLI(echo, args=given, as_positional=False)
    assert settings == Augmentation(crop=None, scale=(0.8, 1.2), elastic_distribution="normal")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crop", 0),
        ("scale", (0, 1)),
        ("stretch", (1.2, 0.8)),
        ("gamma", (-1, 1)),
        ("intensity_scale", (float("nan"), 1)),
        ("noise", -0.1),
        ("rotation", -5),
        ("elastic_grid", 2),
    ],
)
def test_values_out_of_range_are_named(name, value):
    with pytest.raises(InputError, match=rf"^data\.augmentation\.{name}=[^\n]*: must be [^\n]+$"):
        Augmentation(**{name: value})


def test_a_field_over_time_moves_each_frame_by_itself():
    rng = np.random.default_rng(0)
    still = np.repeat(rng.normal(size=(1, 80, 80)).astype(np.float32), 6, axis=0)
    settings = Augmentation(crop=48, flip=False, rot90=False, elastic=8, elastic_times=4)
    frames, labels, _ = ClipAugmentation(settings)(still, (still > 1).astype(np.int32), None, range(6), None, 3)
    assert all(not np.allclose(before, after) for before, after in pairwise(frames))
    for frame, cells in zip(frames, labels, strict=True):  # labels move as frames do
        assert frame[cells > 0].mean() > frame[cells == 0].mean() + 0.8
    steady = ClipAugmentation(replace(settings, elastic_times=1))(still, None, None, range(6), None, 3)[0]
    assert all(np.array_equal(before, after) for before, after in pairwise(steady))


def test_crops_that_hang_over_are_mirrored_and_unknown_beyond_the_frame():
    video = np.arange(1, 101, dtype=np.float32).reshape(1, 10, 10)
    augmented = ClipAugmentation(Augmentation(crop=10, flip=False, rot90=False, overhang=0.5))
    origins = set()
    for seed in range(400):
        frames, labels, _ = augmented(video, video.astype(np.int32), None, [0], None, seed)
        padded = np.pad(video[0], 5, mode="reflect")
        known = np.pad(video[0].astype(np.int32), 5, constant_values=-1)
        places = [
            (y, x) for y in range(11) for x in range(11) if np.array_equal(padded[y : y + 10, x : x + 10], frames[0])
        ]
        assert any(np.array_equal(known[y : y + 10, x : x + 10], labels[0]) for y, x in places)
        origins |= set(places)
    assert {(0, 0), (10, 10), (0, 10)} <= origins


def test_background_in_the_margin_is_unknown_and_cells_are_not():
    labels = np.zeros((1, 20, 30), np.int32)
    labels[0, :4, 5:9] = 7
    settings = Augmentation(crop=None, flip=False, rot90=False, unknown_border=3)
    _, seen, _ = ClipAugmentation(settings)(labels.astype(np.float32), labels, None, [0], None, 0)
    expected = labels[0].copy()
    margin = np.ones((20, 30), bool)
    margin[3:-3, 3:-3] = False
    expected[margin & (expected == 0)] = -1
    np.testing.assert_array_equal(seen[0], expected)
