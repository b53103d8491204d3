import numpy as np
import pytest
from PIL import Image

from lightning_cells.data.tracks import Track
from lightning_cells.visualization.drawing import track_colours
from lightning_cells.visualization.video import FRAMES, GAP, Preview, centres, tails


def square(label: int, row: int, column: int, side: int = 6) -> np.ndarray:
    labels = np.zeros((64, 64), np.int32)
    labels[row : row + side, column : column + side] = label
    return labels


def test_centres_in_pixels_of_the_frame_and_of_a_picture():
    labels = square(3, 10, 20) + square(7, 40, 0, side=1)
    assert {label: at.tolist() for label, at in centres(labels).items()} == {3: [12.5, 22.5], 7: [40, 0]}
    assert centres(labels, (128, 192))[7].tolist() == [80.5, 1]  # the middle of a pixel of two by three
    assert centres(np.zeros((4, 4), np.int32)) == {}


def test_a_tail_goes_back_beyond_a_division_and_over_a_gap():
    at = np.array
    places = [{1: at([0, 0])}, {1: at([1, 1]), 9: at([5, 5])}, {2: at([2, 2])}, {}, {2: at([4, 4]), 8: at([7, 7])}]
    lineage = {1: Track(1, 0, 1, 0), 2: Track(2, 2, 4, 1), 8: Track(8, 4, 4, 0), 9: Track(9, 1, 1, 0)}
    [(points, colour)] = tails(places, lineage)
    assert points.tolist() == [[4, 4], [2, 2], [1, 1], [0, 0]]
    assert np.array_equal(colour, track_colours(at(2)))
    assert [line.tolist() for line, _ in tails(places, {})] == [[[4, 4], [2, 2]]]


def test_tails_are_drawn_in_a_loop(tmp_path):
    preview = Preview(8, longest=256)
    for k in range(8):
        preview.add(np.zeros((64, 64)), square(2, 20, 4 + 6 * k), k, {})
    preview.save(tmp_path / "video.gif")
    with Image.open(tmp_path / "video.gif") as picture:
        assert (picture.size, picture.n_frames, picture.info["loop"]) == ((256, 256), 8, 0)
        picture.seek(7)
        last = np.asarray(picture.convert("RGB")) / 255
    behind = [last[4 * 23, 4 * (4 + 6 * k) + 12] for k in range(7)]  # where the cell was in each frame
    assert not behind[0].any()  # longer ago than a tail
    for pixel in behind[1:6]:
        assert np.allclose(pixel, track_colours(np.array(2)), atol=0.02)


def test_long_videos_are_thinned_and_files_bounded(tmp_path):
    preview, rng = Preview(1000, longest=64), np.random.default_rng(0)
    assert len(preview.chosen) == FRAMES
    assert {0, 999} <= preview.chosen
    for k in sorted(preview.chosen):
        preview.add(rng.random((64, 64)), square(1, 20, 20), k, {})
    preview.save(tmp_path / "whole.gif")
    whole = (tmp_path / "whole.gif").stat().st_size
    preview.save(tmp_path / "small.gif", most_bytes=whole // 3)
    assert (tmp_path / "small.gif").stat().st_size <= whole // 3
    with Image.open(tmp_path / "whole.gif") as first, Image.open(tmp_path / "small.gif") as second:
        assert second.n_frames == -(-first.n_frames // 4)
        assert second.info["duration"] == 4 * first.info["duration"]


def test_a_sheet_shows_some_of_the_frames():
    preview = Preview(20, longest=64)
    for k in range(20):
        preview.add(np.full((64, 64), k), square(1, 20, 20), k, {})
    assert preview.sheet(shown=1).shape == (64, 64, 3)
    assert preview.sheet(shown=5).shape == (2 * 64 + GAP, 4 * 64 + 3 * GAP, 3)


def test_no_frames_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no frames"):
        Preview(3).save(tmp_path / "video.gif")
