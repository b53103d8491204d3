"""Volumes in flat pictures."""

import numpy as np
from PIL import Image

from lightning_cells.data.tracks import Track
from lightning_cells.visualization import montage as module
from lightning_cells.visualization.depth import from_above, in_place, unfolded
from lightning_cells.visualization.drawing import track_colours
from lightning_cells.visualization.montage import KINDS, Sample, montage, strip
from lightning_cells.visualization.video import Preview, track_picture

DEPTH, SIDE = 4, 32


def volume(*boxes: tuple[int, int, int, int], background: int = 0) -> np.ndarray:
    """Labels with a cube of side 6 and two planes for each (label, plane, row, column)."""
    labels = np.full((DEPTH, SIDE, SIDE), background, np.int32)
    for label, plane, row, column in boxes:
        labels[plane : plane + 2, row : row + 6, column : column + 6] = label
    return labels


def test_from_above_the_brightest_voxel_of_a_cell_counts() -> None:
    labels = volume((1, 0, 2, 2), (2, 2, 5, 2))  # the second is behind part of the first
    frame = np.where(labels == 2, 5.0, labels * 1.0)
    frame[3, 30, 30] = 9  # bright, but no cell
    flat, seen = from_above(frame, labels)
    assert np.array_equal(flat, frame.max(0))
    assert (seen[2:5, 2:8] == 1).all()
    assert (seen[5:11, 2:8] == 2).all()
    assert np.count_nonzero(seen) == 9 * 6
    small = from_above(frame[:, ::2, ::2], labels)[1]
    assert (small[2:8, 2:8] == 1).all(), "of a frame of another size nothing is known: the first counts"


def test_images_are_returned_as_they_are() -> None:
    frame, labels = np.ones((5, 5)), np.ones((5, 5), int)
    assert from_above(frame, labels)[0] is frame
    assert from_above(frame, labels)[1] is labels
    flat, cells, known = unfolded(frame, labels, None, 5.0)
    assert flat is frame
    assert cells is labels
    assert known is None


def test_three_views_are_put_together_to_scale() -> None:
    labels = volume((3, 1, 4, 20))
    truth = volume((1, 1, 4, 20), background=-1)
    truth[0] = 0
    truth[2, 25, 25] = -8  # a marker in the unknown
    frame = np.where(labels > 0, 7.0, 2.0)
    flat, cells, known = unfolded(frame, labels, truth, 5.0)
    gap, deep = 1, 5 * DEPTH
    assert flat.shape == cells.shape == known.shape == (SIDE + gap + deep, SIDE + gap + deep)
    above, front, right = np.s_[:SIDE, :SIDE], np.s_[SIDE + gap :, :SIDE], np.s_[:SIDE, SIDE + gap :]
    assert np.array_equal(cells[above] > 0, labels.any(0))
    assert np.array_equal(cells[front][2::5] > 0, labels.any(1)), "five rows for each plane"
    assert np.array_equal(cells[right][:, 2::5] > 0, labels.any(2).T)
    assert set(np.unique(flat)) == {2.0, 7.0}
    assert not cells[SIDE:, SIDE:].any()
    assert known[4, 20] == 1
    assert known[25, 25] == -8, "a marker is seen"
    assert known[10, 10] == 0, "some plane is known to be background"
    assert known[front][12, 10] == -1, "unknown all along"


def test_what_the_network_says_of_a_plane_lies_over_the_view_from_above() -> None:
    labels = volume((1, 0, 2, 2))
    seen = np.full((SIDE // 2, SIDE // 2, 3), 200, np.uint8)
    placed = in_place(seen, labels, 5.0)
    whole = unfolded(labels * 1.0, labels, None, 5.0)[0]
    assert np.abs(2 * np.array(placed.shape[:2]) - whole.shape).max() <= 1
    assert (placed[: SIDE // 2, : SIDE // 2] == 200).all()
    assert placed.astype(int).sum() == seen.astype(int).sum()
    assert in_place(seen, labels[0], 5.0) is seen
    drawn = montage([Sample("01", 0, labels * 1.0, labels, labels, seen, 5.0)])
    assert (drawn == 200).all(axis=2).sum() > 1000


def pixel(image: np.ndarray, panel: int, row: float, column: float, scale: float, left: int) -> np.ndarray:
    return image[int(row * scale), left + int(column * scale)] / 255


def test_a_strip_shows_the_errors_of_volumes_from_three_sides() -> None:
    truth = volume((1, 0, 2, 2), (2, 2, 20, 20))  # the second is missed
    result = volume((5, 0, 2, 2), (7, 0, 20, 10))  # and another one spurious
    frame = np.zeros(truth.shape)
    drawn = strip(Sample("01", 0, frame, result, truth, step=2.0))
    assert drawn.kinds["matched"] == drawn.kinds["missed"] == drawn.kinds["spurious"] == 1
    assert "1 of 2 cells matched" in drawn.caption
    side = SIDE + 1 + 2 * DEPTH
    scale = drawn.image.shape[0] / side
    left = 3 * (drawn.image.shape[0] + module.GAP)
    for row, column, kind in (
        (23, 23, "missed"),
        (23, 13, "spurious"),
        (SIDE + 1 + 2 * 3, 23, "missed"),  # plane 3, from the front
        (SIDE + 1 + 2 * 1, 13, "spurious"),
        (23, SIDE + 1 + 2 * 3, "missed"),  # and from the right
    ):
        found = pixel(drawn.image, 3, row + 0.5, column + 0.5, scale, left)
        colour = np.array(KINDS[kind])
        assert np.allclose(found, colour, atol=0.02) or np.allclose(found, 0.45 * colour, atol=0.02), (row, column)


def test_montages_of_images_and_volumes() -> None:
    labels = volume((1, 0, 2, 2))
    samples = [
        Sample("01", 0, labels * 1.0, labels, labels),
        Sample("01", 1, labels[:, ::2, ::2] * 1.0, labels, None, step=3.0),
        Sample("02", 0, labels[0] * 1.0, labels[0], labels[0]),
        Sample("03", 0, labels * 1.0, labels, np.where(labels > 0, -2, -1)),  # markers only
    ]
    assert montage(samples).ndim == montage(samples, block=True).ndim == 3


def test_sheets_and_loops_show_volumes_from_above(tmp_path) -> None:
    labels = [volume((2, t % 2, 12, 2 + 3 * t)) for t in range(4)]
    frames = [np.zeros(label.shape) for label in labels]
    lineage = {2: Track(2, 0, 3, 0)}
    flat = [label.max(0) for label in labels]
    assert np.array_equal(
        track_picture(frames, labels, lineage=lineage),
        track_picture([frame.max(0) for frame in frames], flat, lineage=lineage),
    )
    preview = Preview(4, longest=128)
    for t, (frame, label) in enumerate(zip(frames, labels, strict=True)):
        preview.add(frame, label, t, lineage)
    preview.save(tmp_path / "video.gif")
    with Image.open(tmp_path / "video.gif") as picture:
        assert (picture.size, picture.n_frames) == ((128, 128), 4)
        picture.seek(3)
        last = np.asarray(picture.convert("RGB")) / 255
    assert np.allclose(last[4 * 15, 4 * 5 + 2], track_colours(np.array(2)), atol=0.02), "its tail"
