"""What is in an opened video, and what is refused."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from data_cases import CELLS, SIZE, complaint, make_video, markers, segmented

from lightning_cells.data.image_files import write_image
from lightning_cells.data.intensity import rescale_labels
from lightning_cells.data.sequence import open_sequence
from lightning_cells.data.tracks import Track


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_video(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_content(root: Path, cache: Path) -> None:
    sequence = open_sequence(root, "01", "zscore", cache=cache)
    assert (sequence.name, len(sequence), sequence.numbers, sequence.size) == ("01", 4, (3, 4, 5, 6), SIZE)
    assert sequence.frames.dtype == np.float16
    for frame, number in zip(sequence.frames, sequence.numbers, strict=True):
        exact = tifffile.imread(root / "01" / f"t{number:03d}.tif").astype(float)
        np.testing.assert_allclose(frame, (exact - exact.mean()) / exact.std(), atol=2e-3)
    assert sequence.lineage == {1: Track(1, 3, 6, 0), 2: Track(2, 3, 4, 0), 4: Track(4, 5, 6, 2)}
    np.testing.assert_array_equal(sequence.annotated, [True, True, True, False])
    for array in (sequence.frames, sequence.labels, sequence.classes):
        assert array is not None
        assert not array.flags.writeable


def test_labels(root: Path, cache: Path) -> None:
    labels = open_sequence(root, "01", "zscore", cache=cache).labels
    assert labels is not None
    assert labels.dtype == np.int32
    whole = np.zeros(SIZE, int)
    whole[CELLS[1]], whole[CELLS[2]] = 1, 2
    np.testing.assert_array_equal(labels[0], whole)
    part = np.where(markers(5) == 1, -2, -1)
    part[CELLS[4]] = 4
    np.testing.assert_array_equal(labels[2], part)
    for index in (1, 3):
        np.testing.assert_array_equal(labels[index], -1 - markers(3 + index).astype(int))


def test_classes(root: Path, cache: Path) -> None:
    classes = open_sequence(root, "01", "zscore", cache=cache).classes
    assert classes is not None
    assert classes.dtype == np.int8
    np.testing.assert_array_equal(classes[1], (markers(4) > 1) * 2)
    assert (classes[[0, 2, 3]] == -1).all()


def test_no_truth(root: Path, cache: Path) -> None:
    shutil.rmtree(root / "01_GT")
    sequence = open_sequence(root, "01", "zscore", cache=cache)
    assert sequence.labels is None
    assert sequence.classes is None
    assert sequence.lineage == {}
    assert not sequence.annotated.any()
    assert sequence.truth(0) == (None, None)


def test_silver_truth(root: Path, cache: Path) -> None:
    write_image(root / "01_ST" / "SEG" / "man_seg004.tif", segmented(1, 2))
    sequence = open_sequence(root, "01", "zscore", truth="silver", cache=cache)
    assert sequence.labels is not None
    assert [(frame > 0).any() for frame in sequence.labels] == [False, True, False, False]


def test_cells_beyond_the_tracks_live_in_one_frame(root: Path, cache: Path) -> None:
    for number in (3, 4):
        seg = segmented(1, 2)
        seg[0, 12:] = 30  # no marker there
        write_image(root / "01_GT" / "SEG" / f"man_seg{number:03d}.tif", seg)
    labels = open_sequence(root, "01", "zscore", cache=cache).labels
    assert labels is not None
    assert set(labels[0, 0, 12:]) == {5}
    assert set(labels[1, 0, 12:]) == {6}


def test_without_markers_no_cell_is_in_two_frames(root: Path, cache: Path) -> None:
    shutil.rmtree(root / "01_GT" / "TRA")
    sequence = open_sequence(root, "01", "zscore", cache=cache)
    assert sequence.labels is not None
    assert sequence.lineage == {}
    found = [set(np.unique(frame[frame > 0])) for frame in sequence.labels]
    assert [len(ids) for ids in found] == [2, 0, 1, 0]
    assert not found[0] & found[2]
    assert (sequence.labels[1] == -1).all()


def test_truth_is_as_on_disk(root: Path, cache: Path) -> None:
    sequence = open_sequence(root, "01", "zscore", 0.5, cache=cache)
    seg, tra = sequence.truth(2)
    np.testing.assert_array_equal(seg, segmented(4))
    np.testing.assert_array_equal(tra, markers(5))
    seg, tra = sequence.select(6, 7).truth(0)
    assert seg is None
    np.testing.assert_array_equal(tra, markers(6))


def test_scale(root: Path, cache: Path) -> None:
    full, half = (open_sequence(root, "01", "zscore", scale, cache=cache) for scale in (1.0, 0.5))
    assert half.frames.shape == (4, 6, 8)
    assert half.size == SIZE
    assert half.labels is not None
    assert full.labels is not None
    np.testing.assert_array_equal(half.labels, rescale_labels(full.labels, 0.5))
    exact = tifffile.imread(root / "01" / "t003.tif").astype(float).reshape(6, 2, 8, 2).mean((1, 3))
    np.testing.assert_allclose(half.frames[0], (exact - exact.mean()) / exact.std(), atol=2e-3)


def test_hot_pixels_stay_finite(root: Path, cache: Path) -> None:
    frame = np.full(SIZE, 10, np.uint16)
    frame[0, :3] = 11
    big = np.tile(frame, (20, 20))
    big[5, 5] = 65535
    shutil.rmtree(root / "01_GT")
    for number in range(3, 7):
        write_image(root / "01" / f"t{number:03d}.tif", big)
    assert np.isfinite(open_sequence(root, "01", "percentile", cache=cache).frames).all()


def test_select(root: Path, cache: Path) -> None:
    sequence = open_sequence(root, "01", "zscore", cache=cache)
    part = sequence.select(4, 6)
    assert part.numbers == (4, 5)
    np.testing.assert_array_equal(part.frames, sequence.frames[1:3])
    np.testing.assert_array_equal(part.labels, sequence.labels[1:3])
    np.testing.assert_array_equal(part.annotated, [True, True])
    assert part.lineage == {1: Track(1, 4, 5, 0), 2: Track(2, 4, 4, 0), 4: Track(4, 5, 5, 2)}
    assert part.select(5, 99).lineage == {1: Track(1, 5, 5, 0), 4: Track(4, 5, 5, 0)}
    assert np.shares_memory(part.frames, sequence.frames)
    complaint(lambda: part.select(6, 9), "01", "[6:9]", "4 to 5")


def test_frames_of_two_sizes(root: Path, cache: Path) -> None:
    write_image(root / "01" / "t005.tif", np.ones((12, 17), np.uint16))
    complaint(lambda: open_sequence(root, "01", "zscore", cache=cache), "t005.tif", "12x17", "12x16")


@pytest.mark.parametrize("name", ["SEG/man_seg003.tif", "TRA/man_track004.tif", "SEM/man_sem004.tif"])
def test_masks_of_another_size(root: Path, cache: Path, name: str) -> None:
    write_image(root / "01_GT" / name, np.zeros((16, 12), np.uint16))
    complaint(lambda: open_sequence(root, "01", "zscore", cache=cache), root / "01_GT" / name, "16x12", "12x16")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("1 3 6 0\n2 3 4 0\n", ["man_track005.tif", "label 4", "no row"]),
        ("1 3 6 0\n2 3 4 0\n4 6 6 2\n", ["man_track005.tif", "label 4", "frames 6 to 6"]),
        ("1 3 6 0\n2 3 4 x\n4 6 6 2\n", ["man_track.txt, line 2"]),
    ],
)
def test_markers_without_rows(root: Path, cache: Path, rows: str, words: list[str]) -> None:
    (root / "01_GT" / "TRA" / "man_track.txt").write_text(rows)
    complaint(lambda: open_sequence(root, "01", "zscore", cache=cache), *words)


def test_rows_beyond_the_video_are_clipped(root: Path, cache: Path) -> None:
    (root / "01_GT" / "TRA" / "man_track.txt").write_text("1 0 9 0\n2 3 4 0\n4 5 8 2\n7 7 9 0\n")
    sequence = open_sequence(root, "01", "zscore", cache=cache)
    assert sequence.lineage == {1: Track(1, 3, 6, 0), 2: Track(2, 3, 4, 0), 4: Track(4, 5, 6, 2)}


@pytest.mark.parametrize("name", ["01/t004.tif", "01_GT/SEG/man_seg003.tif", "01_GT/TRA/man_track004.tif"])
def test_pipes_in_the_place_of_files(root: Path, cache: Path, name: str) -> None:
    (root / name).unlink()
    os.mkfifo(root / name)
    complaint(lambda: open_sequence(root, "01", "zscore", cache=cache), root / name, "pipe")


def test_too_many_classes(root: Path, cache: Path) -> None:
    write_image(root / "01_GT" / "SEM" / "man_sem004.tif", np.full(SIZE, 127, np.uint8))
    complaint(lambda: open_sequence(root, "01", "zscore", cache=cache), "man_sem004.tif", "127")


def test_bad_options_and_names(root: Path, cache: Path) -> None:
    complaint(lambda: open_sequence(root, "01", "minmax", cache=cache), "minmax")
    complaint(lambda: open_sequence(root, "01", "zscore", 0.0, cache=cache), "scale")
    complaint(lambda: open_sequence(root, "02", "zscore", cache=cache), root / "02")
    (root / "03").mkdir()
    complaint(lambda: open_sequence(root, "03", "zscore", cache=cache), root / "03", "no images")


def test_empty_masks_are_known_background(root: Path, cache: Path) -> None:
    write_image(root / "01_GT" / "TRA" / "man_track006.tif", np.zeros(SIZE, np.uint16))
    write_image(root / "01_GT" / "SEG" / "man_seg006.tif", np.zeros(SIZE, np.uint16))
    sequence = open_sequence(root, "01", "zscore", cache=cache)
    np.testing.assert_array_equal(sequence.labels[3], np.zeros(SIZE))
    assert sequence.annotated[3]
