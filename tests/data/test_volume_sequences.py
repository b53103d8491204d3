"""Volumes as sequences: decoded, cut into planes to learn from, and with truth of single planes."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_cases import complaint

from lightning_cells.data.ctc import merge_identities, merge_planes
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.data.image_files import read_frame, read_mask, write_image
from lightning_cells.data.intensity import normalise, prepare
from lightning_cells.data.sequence import open_sequence
from lightning_cells.data.splits import keep_annotated
from lightning_cells.data.tracks import Track, write_tracks

T, Z, H, W = 4, 5, 32, 36


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Video 01: frames with a voxel, markers of all frames, and cells of frame 0, of two planes of frame 2."""
    rng = np.random.default_rng(0)
    root = tmp_path / "data"
    labels = np.zeros((Z, H, W), np.uint16)
    labels[1:4, 5:15, 5:15], labels[2:5, 18:28, 20:30] = 1, 2
    markers = np.zeros_like(labels)
    markers[2, 9:12, 9:12], markers[3, 22:25, 24:27] = 1, 2
    for t in range(T):
        write_image(root / f"01/t00{t}.tif", rng.integers(0, 900, (Z, H, W)).astype(np.uint16), (3.0, 0.5, 0.5))
        write_image(root / f"01_GT/TRA/man_track00{t}.tif", markers)
    write_image(root / "01_GT/SEG/man_seg000.tif", labels)
    write_image(root / "01_GT/SEG/man_seg_002_002.tif", labels[2])
    write_image(root / "01_GT/SEG/man_seg_002_000.tif", labels[0])
    write_tracks(root / "01_GT/TRA/man_track.txt", {1: Track(1, 0, T - 1, 0), 2: Track(2, 0, T - 1, 0)})
    return root


def test_decoded(root: Path) -> None:
    video = open_sequence(root, "01", "zscore")
    assert video.size == (Z, H, W)
    assert video.frames.shape == video.labels.shape == (T, Z, H, W)
    assert video.voxel == pytest.approx((3.0, 0.5, 0.5))
    raw = read_frame(root / "01/t001.tif").astype(np.float64)
    np.testing.assert_allclose(video.frames[1], (raw - raw.mean()) / raw.std(), atol=2e-3)  # as a whole
    np.testing.assert_array_equal(video.labels[0], read_mask(root / "01_GT/SEG/man_seg000.tif"))
    assert video.annotated.tolist() == [True, False, True, False]
    assert video.annotated_planes.tolist() == [[True] * 5, [False] * 5, [True, False, True, False, False], [False] * 5]


def test_truth_of_single_planes(root: Path) -> None:
    video = open_sequence(root, "01", "zscore")
    seg, tra = video.truth(2)
    assert list(seg) == [0, 2]
    np.testing.assert_array_equal(seg[2], read_mask(root / "01_GT/SEG/man_seg_002_002.tif"))
    assert tra.shape == (Z, H, W)
    labels = video.labels[2]
    assert set(np.unique(labels[0])) == {0}  # known to hold nothing
    assert set(np.unique(labels[1])) == {-1}
    assert labels[2, 10, 10] == 1  # named by the marker in the plane
    assert labels[2, 20, 25] > 2  # no marker there: an id of its own
    assert set(np.unique(labels[3])) == {-1, -3}
    known = video.merged_truth(2)
    np.testing.assert_array_equal(known > 0, labels > 0)
    np.testing.assert_array_equal(known < 0, labels < 0)


def test_merging_planes_is_merging_each(root: Path) -> None:
    video = open_sequence(root, "01", "zscore")
    seg, tra = video.truth(2)
    merged = merge_planes(tra, seg, 3)
    np.testing.assert_array_equal(merged[0], merge_identities(tra[0], seg[0], 3))
    np.testing.assert_array_equal(merged[4], merge_identities(tra[4], None))


@pytest.mark.parametrize(
    ("name", "mask", "words"),
    [
        ("man_seg_002_005.tif", np.zeros((H, W), np.uint16), "is of plane 5, but the frames have planes 0 to 4"),
        ("man_seg_002_001.tif", np.zeros((H, W - 1), np.uint16), "32x35 pixels, others of the video are 32x36"),
        ("man_seg_000_001.tif", np.zeros((H, W), np.uint16), "there are single planes of this frame, too"),
        ("man_seg_007_001.tif", np.zeros((H, W), np.uint16), "the video has no frame 7"),
        ("man_seg001.tif", np.zeros((H, W), np.uint16), "man_seg_003_007.tif"),
    ],
)
def test_truth_that_does_not_fit(root: Path, name: str, mask: np.ndarray, words: str) -> None:
    write_image(root / "01_GT/SEG" / name, mask)
    complaint(lambda: open_sequence(root, "01", "zscore"), words)


def test_truth_of_planes_of_images(tmp_path: Path) -> None:
    write_image(tmp_path / "01/t000.tif", np.zeros((H, W), np.uint16))
    write_image(tmp_path / "01_GT/SEG/man_seg_000_000.tif", np.zeros((H, W), np.uint16))
    complaint(lambda: open_sequence(tmp_path, "01", "zscore"), "is of plane 0, but the frames are images")


@pytest.mark.parametrize("order", ["time", "z"])
@pytest.mark.parametrize("part", [slice(None), slice(1, 4)])
def test_planes_are_views(root: Path, order: str, part: slice) -> None:
    video = replace(open_sequence(root, "01", "zscore"), order=order)  # type: ignore[arg-type]
    video = video.select(part.start or 0, part.stop or T)
    planes = video.planes()
    assert len(planes) == (Z if order == "time" else len(video))
    for number, plane in enumerate(planes):
        expected = (slice(None), number) if order == "time" else (number,)
        for name in ("frames", "labels"):
            found = getattr(plane, name)
            np.testing.assert_array_equal(found, getattr(video, name)[expected])
            assert np.shares_memory(found, getattr(video, name))
        np.testing.assert_array_equal(plane.annotated, video.annotated_planes[expected])
        assert plane.size == (H, W)
        state = pickle.dumps(plane)
        assert len(state) < 20_000  # as file names
        np.testing.assert_array_equal(pickle.loads(state).labels, plane.labels)


def test_images_are_their_own_plane(root: Path, simulated: Path) -> None:
    video = open_sequence(simulated, "01", "zscore")
    assert video.planes() == [video]


def test_truth_of_few_volumes(root: Path) -> None:
    (kept,) = keep_annotated([open_sequence(root, "01", "zscore")], 1, 0)
    assert kept.annotated.sum() == 1
    assert kept.annotated_planes.any(1).tolist() == kept.annotated.tolist()
    shown = [plane.annotated for plane in kept.planes()]
    np.testing.assert_array_equal(np.stack(shown, 1), (kept.labels >= 0).any((2, 3)))


@pytest.mark.parametrize("order", ["time", "z"])
def test_clips_come_from_planes_with_truth(root: Path, order: str) -> None:
    data = SequenceDataModule(
        str(root),
        train=["01"],
        clip_length=1,
        annotated_share=1.0,
        batch_size=4,
        batches_per_epoch=6,
        sequence=order,  # type: ignore[arg-type]
        voxel=(7, 1, 1),
    )
    data.setup("fit")
    assert data.sequences["train"][0].voxel == (7.0, 1.0, 1.0)
    for clip in data.train_dataloader():
        assert clip.frames.shape[:3] == (4, 1, 1)
        assert (clip.labels >= 0).flatten(1).any(1).all()


def test_chunks_are_whole_volumes(root: Path) -> None:
    data = SequenceDataModule(str(root), train=["01"], val=["01"], chunk=3)
    data.setup("validate")
    first, second = data.val_dataloader()
    assert first.frames.shape == (3, Z, H, W)
    assert second.frames.shape == (1, Z, H, W)
    assert second.labels.shape == (1, Z, H, W)


def test_planes_are_prepared_alike_and_normalised_together() -> None:
    volume = np.random.default_rng(0).integers(0, 5000, (3, 20, 24)).astype(np.uint16)
    volume[0] //= 50
    for kind in ("zscore", "log_zscore", "percentile", "signal"):
        found = prepare(volume, kind, 0.5, 0.7)
        assert found.shape == (3, 10, 12)
        image = np.concatenate(volume)  # planes below one another: the same numbers to normalise by
        whole = normalise(image, kind) if kind != "signal" else None
        if whole is not None:
            np.testing.assert_allclose(normalise(volume, kind).reshape(image.shape), whole, rtol=1e-5, atol=1e-5)
        assert found[0].mean() < found[1].mean() - 0.5  # a dim plane stays dim
