"""Selectors and folds name the frames that they should."""

import numpy as np
import pytest
from data_cases import complaint

from lightning_cells.data.ctc import SequenceFiles
from lightning_cells.data.sequence import Sequence
from lightning_cells.data.splits import fold, select
from lightning_cells.data.tracks import Track


def video(name: str, frames: int = 10, first: int = 0) -> Sequence:
    return Sequence(
        name=name,
        frames=np.arange(first, first + frames, dtype=np.float16)[:, None, None],
        labels=None,
        classes=None,
        numbers=tuple(range(first, first + frames)),
        annotated=np.ones(frames, bool),
        lineage={1: Track(1, first, first + frames - 1, 0)},
        size=(1, 1),
        files=SequenceFiles(name, {}, {}, {}, None, {}, 3),
        fingerprint=name,
    )


def named(sequences: list[Sequence]) -> list[tuple[str, list[int]]]:
    """Names and frame numbers, which the pixels repeat."""
    for s in sequences:
        assert s.frames[:, 0, 0].tolist() == list(s.numbers)
    return [(s.name, list(s.numbers)) for s in sequences]


VIDEOS = [video("01"), video("02", first=5), video("03"), video("10")]


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        (["01"], [("01", 0, 10)]),
        (["02"], [("02", 5, 15)]),
        (["0*"], [("01", 0, 10), ("02", 5, 15), ("03", 0, 10)]),
        (["0[13]"], [("01", 0, 10), ("03", 0, 10)]),
        (["03", "01"], [("03", 0, 10), ("01", 0, 10)]),
        (["01[0:4]"], [("01", 0, 4)]),
        (["01[4:]", "03[:4]"], [("01", 4, 10), ("03", 0, 4)]),
        (["02[0:8]"], [("02", 5, 8)]),
        (["02[12:100]"], [("02", 12, 15)]),
        (["*[6:9]"], [("01", 6, 9), ("02", 6, 9), ("03", 6, 9), ("10", 6, 9)]),
        (["?[0-2][6:7]"], [("01", 6, 7), ("02", 6, 7), ("10", 6, 7)]),
        (["01[:]"], [("01", 0, 10)]),
        (["01[2:" + 5000 * "9" + "]", "01[" + 5000 * "0" + "8:]"], [("01", 2, 10), ("01", 8, 10)]),
        ([], []),
    ],
)
def test_selectors(selectors, expected):
    assert named(select(VIDEOS, selectors, "data.train")) == [(n, list(range(a, b))) for n, a, b in expected]


def test_tracks_are_clipped_to_the_range():
    (part,) = select(VIDEOS, ["01[3:6]"], "data.train")
    assert part.lineage == {1: Track(1, 3, 5, 0)}


def test_a_name_with_brackets_is_found_by_itself():
    images = [video("cell [1]", 1), video("cell 1", 1)]
    assert [s.name for s in select(images, ["cell [1]"], "data.val")] == ["cell [1]"]
    assert [s.name for s in select(images, ["cell [[]1]"], "data.val")] == ["cell [1]"]


def test_a_wrong_name_is_answered_by_the_nearest():
    images = [video("nucleus_a"), video("nucleus_b"), video("fibre")]
    complaint(lambda: select(images, ["nuclues_a"], "data.val"), "data.val", "nuclues_a", "did you mean 'nucleus_a'?")
    complaint(lambda: select(VIDEOS, ["7*"], "data.test"), "data.test", "'7*'", "01, 02, 03, 10")


def test_of_many_names_some_are_shown():
    message = complaint(lambda: select([video(f"{i:03d}") for i in range(100)], ["x"], "data.val"), "000, 001", ", ...")
    assert len(message) < 200


@pytest.mark.parametrize("selector", ["02[0:5]", "02[15:]", "02[8:8]", "02[9:7]", "02[" + 5000 * "1" + ":]"])
def test_a_range_without_frames_is_refused(selector):
    complaint(lambda: select(VIDEOS, [selector], "data.train"), "data.train", "02", "frames are 5 to 14")


@pytest.mark.parametrize("folds", [2, 3, 4])
def test_folds_over_videos(folds):
    held_out = []
    for index in range(folds):
        training, held = fold(VIDEOS, folds, index)
        assert sorted(s.name for s in training + held) == ["01", "02", "03", "10"]
        assert 4 // folds <= len(held) <= -(-4 // folds)
        assert all(len(s) == 10 for s in training + held)
        held_out += [s.name for s in held]
    assert sorted(held_out) == ["01", "02", "03", "10"]


@pytest.mark.parametrize("folds", [3, 4, 10])
def test_folds_over_blocks_of_frames(folds):
    videos = [video("01"), video("02", frames=13, first=5)]
    for one in videos:
        held_out = []
        for index in range(folds):
            training, held = fold(videos, folds, index)
            (block,) = (s for s in held if s.name == one.name)
            rest = [s for s in training if s.name == one.name]
            frames = [number for s in rest for number in s.numbers]
            assert sorted([*frames, *block.numbers]) == list(one.numbers)
            assert list(block.numbers) == list(range(block.numbers[0], block.numbers[-1] + 1))
            for s in rest:  # in one piece before and one after
                assert list(s.numbers) == list(range(s.numbers[0], s.numbers[-1] + 1))
                assert s.numbers[-1] < block.numbers[0] or s.numbers[0] > block.numbers[-1]
            assert len(rest) <= 2
            assert abs(len(block) - len(one) / folds) < 1
            held_out += block.numbers
        assert held_out == list(one.numbers)


def test_folds_that_cannot_be():
    complaint(lambda: fold(VIDEOS, 3, 3), "data.fold=3", "0 to 2")
    complaint(lambda: fold(VIDEOS, 3, -1), "data.fold=-1")
    complaint(lambda: fold([video("01", 3)], 4, 0), "data.folds=4", "01", "3 frames")
