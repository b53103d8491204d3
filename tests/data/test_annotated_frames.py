"""Training on the truth of a few frames: which they are, and that nothing else is known of the others."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
from data_cases import complaint, make_video
from lightning.pytorch import seed_everything

from lightning_cells.data.augment import Augmentation
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.data.sequence import Sequence, open_sequence
from lightning_cells.data.splits import keep_annotated


def videos(root: Path) -> list[Sequence]:
    return [open_sequence(root, name, "zscore") for name in ("01", "02", "03")]


def chosen(sequences: list[Sequence]) -> list[int]:
    """Positions of the annotated frames, counted through all videos."""
    return np.flatnonzero(np.concatenate([s.annotated for s in sequences])).tolist()


@pytest.mark.parametrize("count", [1, 2, 4, 11, 35, 36])
def test_so_many_are_chosen_evenly(simulated, count):
    found = chosen(keep_annotated(videos(simulated), count, seed=3))
    assert len(found) == count
    gaps = np.diff([*found, found[0] + 36])  # round the end
    assert set(gaps) <= {36 // count, -(-36 // count)}


def test_the_seed_decides(simulated):
    sequences = videos(simulated)
    by_seed = [chosen(keep_annotated(sequences, 2, seed)) for seed in range(12)]
    assert by_seed == [chosen(keep_annotated(sequences, 2, seed)) for seed in range(12)]
    assert len({tuple(found) for found in by_seed}) > 4


def test_nothing_is_known_of_the_other_frames(simulated):
    sequences = videos(simulated)
    before = [copy.deepcopy(s.labels) for s in sequences]
    for old, new, labels in zip(sequences, keep_annotated(sequences, 4, seed=0), before, strict=True):
        assert new.annotated.any()
        np.testing.assert_array_equal(new.labels[new.annotated], old.labels[new.annotated])
        assert (new.labels[~new.annotated] == -1).all()
        assert new.frames is old.frames
        assert new.numbers == old.numbers
        np.testing.assert_array_equal(old.labels, labels)  # the original is as it was
        assert old.annotated.all()


def test_a_video_without_any_of_them_has_no_truth(simulated):
    kept = keep_annotated(videos(simulated), 1, seed=0)
    assert sorted(s.labels is None for s in kept) == [False, True, True]


def test_of_markers_and_classes_nothing_is_known_either(tmp_path):
    """Frame 3 is segmented, frame 4 has classes, frame 5 is segmented in part; all have markers."""
    make_video(tmp_path)
    video = open_sequence(tmp_path, "01", "zscore")
    assert video.annotated.tolist() == [True, True, True, False]
    assert (video.labels[3] < -1).any()
    for seed in range(6):
        (kept,) = keep_annotated([video], 1, seed)
        (frame,) = np.flatnonzero(kept.annotated)
        for truth in (kept.labels, kept.classes):
            assert (np.delete(truth, frame, 0) == -1).all()
        np.testing.assert_array_equal(kept.classes[frame], video.classes[frame])


def test_it_travels_to_workers(simulated):
    kept = keep_annotated(videos(simulated), 2, seed=0)
    for ours, sent in zip(kept, pickle.loads(pickle.dumps(kept)), strict=True):
        np.testing.assert_array_equal(ours.annotated, sent.annotated)
        np.testing.assert_array_equal(ours.frames, sent.frames)
        assert (ours.labels is None) == (sent.labels is None)
        if ours.labels is not None:
            np.testing.assert_array_equal(ours.labels, sent.labels)


def ready(root: Path, **options) -> SequenceDataModule:
    sizes = {"clip_length": 1, "batch_size": 3, "batches_per_epoch": 8, "augmentation": Augmentation(crop=None)}
    data = SequenceDataModule(str(root), **{**sizes, **options})
    data.setup("fit")
    return data


@pytest.mark.parametrize("workers", [0, 2])
def test_clips_show_the_chosen_truth_alone(simulated, workers):
    seed_everything(5, verbose=False)
    data = ready(simulated, val=["03"], annotated_frames=2, annotated_share=1.0, num_workers=workers)
    truths = [s.labels[i] for s in data.sequences["train"] for i in np.flatnonzero(s.annotated)]
    assert len(truths) == 2
    known = sorted((labels > 0).sum() for labels in truths)
    shown = [(labels > 0).sum() for clip in data.train_dataloader() for labels in clip.labels.numpy()]
    assert set(shown) == set(known)
    assert data.sequences["val"][0].annotated.all(), "validation is not touched"
    anywhere = ready(simulated, annotated_frames=2, annotated_share=0.0, clip_length=4, num_workers=workers)
    seen = np.concatenate([(clip.labels.numpy() >= 0).any((2, 3)) for clip in anywhere.train_dataloader()])
    assert seen.any(1).any()
    assert (seen.sum(1) <= 1).all(), "clips reach over frames of which nothing is known"


def test_the_run_says_which(simulated):
    seed_everything(5, verbose=False)
    described = ready(simulated, train=["01", "02[4:]"], annotated_frames=2).describe()["annotated"]
    first, second = (part.rstrip("]").split("[") for part in described.split())
    assert (first[0], second[0]) == ("01", "02")
    assert 0 <= int(first[1]) < 12
    assert 4 <= int(second[1]) < 12
    assert "annotated" not in ready(simulated).describe()


def test_more_than_there_are(simulated):
    assert len(chosen(ready(simulated, train=["01"], annotated_frames=12).sequences["train"])) == 12
    complaint(lambda: ready(simulated, train=["01"], annotated_frames=13), "data.annotated_frames=13", "only 12")
    complaint(lambda: ready(simulated, annotated_frames=0), "data.annotated_frames=0: must be at least 1")
