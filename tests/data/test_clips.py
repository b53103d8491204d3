"""Requests become the right tensors."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from data_cases import make_video

from lightning_cells.data.augment import Augmentation, ClipAugmentation
from lightning_cells.data.clips import ChunkDataset, ClipDataset, ClipLoader
from lightning_cells.data.ctc import SequenceFiles
from lightning_cells.data.image_files import read_mask
from lightning_cells.data.sampling import ChunkRequest, ClipRequest, ClipSampler
from lightning_cells.data.sequence import Sequence, open_sequence
from lightning_cells.data.targets import ThreeClassTarget, TwoClassTarget

AS_IT_IS = ClipAugmentation(Augmentation(crop=None, flip=False, rot90=False))


def video(frames: int = 9, size: tuple[int, int] = (20, 24), seed: int = 0) -> Sequence:
    """A video in memory whose frames and labels are all different."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(-3, 6, (frames, *size)).astype(np.int32)
    return Sequence(
        name=f"{seed:02d}",
        frames=rng.normal(size=(frames, *size)).astype(np.float16),
        labels=labels,
        classes=None,
        numbers=tuple(range(3, 3 + frames)),
        annotated=np.ones(frames, bool),
        lineage={},
        size=size,
        files=SequenceFiles(f"{seed:02d}", {}, {}, {}, None, {}, 3),
        fingerprint=str(seed),
    )


def doubled(labels: np.ndarray) -> dict[str, np.ndarray]:
    return {"twice": 2 * labels, "shape": np.array(labels.shape)}


def test_a_batch_holds_the_frames_asked_for_in_their_order():
    one, other = video(), video(seed=1)
    requests = [ClipRequest(0, (4, 2, 0), 2, 11, first=True), ClipRequest(1, (5, 6, 7), 5, 12, first=False)]
    clip = ClipDataset([one, other], AS_IT_IS, target=doubled)[requests]
    assert clip.frames.shape == (2, 3, 1, 20, 24)
    assert clip.frames.dtype == torch.float32
    assert clip.labels.dtype == torch.int32
    for lane, (sequence, indices) in enumerate([(one, [4, 2, 0]), (other, [5, 6, 7])]):
        np.testing.assert_array_equal(clip.frames[lane, :, 0], sequence.frames[indices].astype(np.float32))
        np.testing.assert_array_equal(clip.labels[lane], sequence.labels[indices])
        np.testing.assert_array_equal(clip.target["twice"][lane], 2 * sequence.labels[indices])
    assert clip.target["shape"].tolist() == [[3, 20, 24]] * 2
    assert clip.first.tolist() == [True, False]
    assert clip.first.dtype == torch.bool
    assert clip.classes is None


def test_targets_see_the_augmented_crop():
    augmentation = ClipAugmentation(Augmentation(crop=16, rotation=180, elastic=2))
    clip = ClipDataset([video()], augmentation, target=doubled)[[ClipRequest(0, (1, 2), 1, 5)]]
    assert clip.labels.shape == (1, 2, 16, 16)
    np.testing.assert_array_equal(clip.target["twice"], 2 * clip.labels)


def test_clips_of_one_pass_have_one_crop():
    """Consecutive clips of a lane, joined, are the augmented video."""
    data = ClipDataset([video()], ClipAugmentation(Augmentation(crop=8, rotation=90, scale=(0.5, 2), elastic=2)))
    whole = data[[ClipRequest(0, tuple(range(9)), 4, 77)]]
    parts = [data[[ClipRequest(0, (i, i + 1, i + 2), 4, 77, first=i == 0)]] for i in (0, 3, 6)]
    torch.testing.assert_close(torch.cat([part.frames for part in parts], 1), whole.frames, rtol=0, atol=0)
    assert torch.equal(torch.cat([part.labels for part in parts], 1), whole.labels)
    other = data[[ClipRequest(0, tuple(range(9)), 4, 78)]]
    assert not torch.equal(other.frames, whole.frames)


@pytest.mark.parametrize("kind", ["labels", "classes"])
def test_foreground_crops_are_placed_on_the_cells_of_the_anchor(kind):
    one = video(frames=2, size=(96, 96))
    cells = np.zeros((2, 96, 96), np.int32 if kind == "labels" else np.int8)
    cells[1, 70:74, 10:14] = 1
    one = replace(one, **{kind: cells})
    data = ClipDataset([one], ClipAugmentation(Augmentation(crop=16, flip=False, rot90=False)), "foreground")
    hits = sum(bool((getattr(data[[ClipRequest(0, (0, 1), 1, seed)]], kind)[0, 1] > 0).any()) for seed in range(100))
    assert 40 <= hits <= 75  # half of them, and a few of those that lie anywhere


def test_a_video_without_truth_beside_others_is_unknown():
    nothing = replace(video(seed=1), labels=None)
    classes = np.zeros((9, 20, 24), np.int8)
    data = ClipDataset([replace(video(), classes=classes), nothing], AS_IT_IS, target=doubled)
    for order in ([0, 1], [1, 0]):
        clip = data[[ClipRequest(sequence, (0, 1), 0, 3) for sequence in order]]
        lane = order.index(1)
        assert (clip.labels[lane] == -1).all()
        assert (clip.target["twice"][lane] == -2).all()
        assert (clip.classes[lane] == -1).all()
        assert (clip.classes[1 - lane] == 0).all()
        np.testing.assert_array_equal(clip.labels[1 - lane], video().labels[:2])


def test_without_any_truth_there_are_frames_alone():
    clip = ClipDataset([replace(video(), labels=None)], AS_IT_IS, target=doubled)[[ClipRequest(0, (0, 1), 0, 3)]]
    assert clip.labels is None
    assert clip.classes is None
    assert clip.target == {}


def test_what_is_not_annotated_is_negative_in_labels_and_targets(tmp_path):
    make_video(tmp_path)  # frame 3 is segmented whole, frame 5 in part, 4 and 6 have markers alone
    sequence = open_sequence(tmp_path, "01", "zscore")
    for target in (ThreeClassTarget(), TwoClassTarget()):
        clip = ClipDataset([sequence], AS_IT_IS, target=target)[[ClipRequest(0, (0, 1, 2, 3), 0, 0)]]
        classes = clip.target["classes"][0].numpy()
        assert (classes[0] >= 0).all()
        assert (classes[0] == 0).any()
        assert (classes[1] == -1).all()
        assert (classes[3] == -1).all()
        assert set(np.unique(classes[2])) <= {-1, 1, 2} | ({0} if isinstance(target, TwoClassTarget) else set())
        assert (classes[2] == 1).any()
        assert (clip.labels[0, 1] < 0).all()
        np.testing.assert_array_equal(clip.labels[0].numpy() > 0, sequence.labels > 0)


def test_chunks_are_whole_frames_with_their_numbers_and_truth(tmp_path):
    make_video(tmp_path)
    sequence = open_sequence(tmp_path, "01", "zscore")
    chunk = ChunkDataset([video(), sequence])[ChunkRequest(1, 1, 3)]
    assert chunk.frames.shape == (2, 1, 12, 16)
    assert chunk.frames.dtype == torch.float32
    np.testing.assert_array_equal(chunk.frames[:, 0], sequence.frames[1:3].astype(np.float32))
    np.testing.assert_array_equal(chunk.labels, sequence.labels[1:3])
    np.testing.assert_array_equal(chunk.classes, sequence.classes[1:3])
    assert chunk.numbers == (4, 5)
    assert chunk.sequence is sequence
    assert (chunk.start, chunk.first, chunk.last) == (1, False, False)
    (seg_4, tra_4), (seg_5, tra_5) = chunk.truth()
    assert seg_4 is None
    np.testing.assert_array_equal(tra_4, read_mask(tmp_path / "01_GT" / "TRA" / "man_track004.tif"))
    np.testing.assert_array_equal(tra_5, read_mask(tmp_path / "01_GT" / "TRA" / "man_track005.tif"))
    np.testing.assert_array_equal(seg_5, read_mask(tmp_path / "01_GT" / "SEG" / "man_seg005.tif"))


def test_first_and_last_chunks_know_it():
    data = ChunkDataset([video()])
    ends = [(c.first, c.last) for c in (data[ChunkRequest(0, a, b)] for a, b in ((0, 4), (4, 8), (8, 9)))]
    assert ends == [(True, False), (False, False), (False, True)]
    whole = data[ChunkRequest(0, 0, 9)]
    assert whole.first
    assert whole.last


def test_an_empty_chunk_asks_for_nothing():
    chunk = ChunkDataset([video()])[ChunkRequest(0, 0, 0)]
    assert chunk.frames.shape == (0, 1, 20, 24)
    assert chunk.numbers == ()
    assert list(chunk.truth()) == []
    assert not chunk.last


def test_chunks_do_not_change_the_cache(tmp_path):
    make_video(tmp_path)
    sequence = open_sequence(tmp_path, "01", "zscore")
    chunk = ChunkDataset([sequence])[ChunkRequest(0, 0, 4)]
    before = sequence.frames.copy(), sequence.labels.copy()
    chunk.frames.zero_()
    chunk.labels.zero_()
    np.testing.assert_array_equal(sequence.frames, before[0])
    np.testing.assert_array_equal(sequence.labels, before[1])


def loader(batches: int = 6) -> ClipLoader:
    sampler = ClipSampler([np.ones(9, bool)], 3, 2, batches)
    return ClipLoader(ClipDataset([video()], AS_IT_IS), sampler=sampler, batch_size=None, collate_fn=lambda x: x)


def contents(batches) -> list[bytes]:
    return [pickle.dumps((batch.frames.numpy(), batch.first.numpy())) for batch in batches]


def test_a_loader_goes_on_where_its_state_was_saved():
    whole = contents(loader())
    running = loader()
    passing = iter(running)
    for delivered in range(6):
        assert running.state_dict() == {"epoch": 0, "delivered": delivered}
        fresh = loader()
        fresh.load_state_dict(running.state_dict())
        assert fresh.state_dict() == running.state_dict()  # saved again before it went on
        assert contents(fresh) == whole[delivered:]
        assert fresh.state_dict() == {"epoch": 0, "delivered": 6}
        assert contents(fresh) == whole
        next(passing)


def test_a_loader_starts_a_new_epoch_at_its_beginning():
    """Whatever the epoch before delivered: the Trainer may end an epoch early."""
    for delivered in (2, 6):
        fresh = loader()
        fresh.load_state_dict({"epoch": 0, "delivered": delivered})
        fresh.sampler.set_epoch(1)
        expected = loader()
        expected.sampler.set_epoch(1)
        assert contents(fresh) == contents(expected)
        assert fresh.state_dict() == {"epoch": 1, "delivered": 6}


def test_leaving_an_epoch_early_does_not_shift_the_next():
    running = loader()
    next(iter(running))
    running.sampler.set_epoch(1)
    expected = loader()
    expected.sampler.set_epoch(1)
    assert contents(running) == contents(expected)
