"""The data module: what each loader gives, however many workers prepare it, and after a restart."""

import json
import multiprocessing
import shutil
import warnings
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from data_cases import complaint
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_cells.data.augment import Augmentation
from lightning_cells.data.clips import Chunk, Clip
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.data.image_files import read_frame, write_image
from lightning_cells.errors import InputError

VARIED = Augmentation(crop=24, rotation=180, elastic=3, noise=0.2, intensity_shift=0.5)


def ready(root: Path, stage: str = "fit", **options) -> SequenceDataModule:
    defaults = {"clip_length": 3, "batch_size": 2, "batches_per_epoch": 6, "augmentation": VARIED}
    data = SequenceDataModule(str(root), **{**defaults, **options})
    data.setup(stage)
    return data


def clips(data: SequenceDataModule, epochs: int = 1) -> list[list[Clip]]:
    loader = data.train_dataloader()
    out = []
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        out.append(list(loader))
    return out


def same(one: Clip, other: Clip) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("frames", "labels", "first"))


@pytest.mark.parametrize("streaming", [False, True])
def test_batches_do_not_depend_on_the_number_of_workers(simulated, streaming):
    runs = [clips(ready(simulated, streaming=streaming, num_workers=workers), 2) for workers in (0, 1, 2)]
    for run in runs[1:]:
        for epoch, expected in zip(run, runs[0], strict=True):
            assert len(epoch) == 6
            assert all(same(a, b) for a, b in zip(epoch, expected, strict=True))


def test_augmentation_repeats_in_no_worker_and_no_epoch(simulated):
    """A copy of one random generator in each worker would give both the same draws, and each epoch again."""
    seed_everything(1, workers=True, verbose=False)
    frames = [
        frame
        for epoch in clips(ready(simulated, num_workers=2, batch_size=1), 3)
        for clip in epoch
        for frame in clip.frames
    ]
    assert len(frames) == 18
    for number, frame in enumerate(frames):
        assert not any(torch.equal(frame, other) for other in frames[:number])


def test_transforms_of_albumentations_come_from_a_command_line(simulated):
    parser = ArgumentParser()
    parser.add_class_arguments(SequenceDataModule, "data")
    plain = {"crop": 24, "flip": False, "rot90": False}
    words = ["--data.root", str(simulated), "--data.augmentation", json.dumps(plain), "--data.batches_per_epoch", "2"]
    flip = '[{"class_path": "albumentations.VerticalFlip", "init_args": {"p": 1}}]'
    found = []
    for more in ([], ["--data.transforms", flip]):
        data = parser.instantiate(parser.parse_args(words + more)).data
        data.setup("fit")
        found.append(clips(data)[0][0])
    assert torch.equal(found[1].labels, found[0].labels.flip(-2))
    assert torch.allclose(found[1].frames, found[0].frames.flip(-2), atol=1e-5)
    assert not torch.equal(found[1].labels, found[0].labels)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_seed_decides(simulated, workers):
    runs = []
    for seed in (4, 4, 5):
        seed_everything(seed, workers=True, verbose=False)
        torch.rand(seed)  # what else draws does not matter
        np.random.rand(7)  # noqa: NPY002
        runs.append(clips(ready(simulated, num_workers=workers))[0])
    assert all(same(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not any(same(a, b) for a, b in zip(runs[0], runs[2], strict=True))


class Recorder(LightningModule):
    """Learns nothing, but keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, int, float]] = []

    @staticmethod
    def clip_target(labels: np.ndarray) -> dict[str, np.ndarray]:
        return {"cells": (labels > 0).sum((1, 2))}

    def training_step(self, clip: Clip, batch_idx: int) -> torch.Tensor:
        assert torch.equal(clip.target["cells"], (clip.labels > 0).sum((2, 3)))
        self.seen.append((self.current_epoch, batch_idx, float(clip.frames.double().sum())))
        return 0 * self.weight.sum()

    def validation_step(self, chunk: Chunk, batch_idx: int) -> None:
        assert isinstance(chunk, Chunk)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class AtValidationEnd(ModelCheckpoint):
    """A second checkpoint callback needs a name of its own."""


class AtEpochEnd(ModelCheckpoint):
    """And a third."""


def record(data: SequenceDataModule, folder: Path | None = None, ckpt_path: Path | None = None, **options) -> list:
    module = Recorder()
    callbacks = []
    if folder is not None:
        callbacks = [
            ModelCheckpoint(folder, "{step}-batch", every_n_train_steps=1, save_top_k=-1),
            AtValidationEnd(folder, "{step}-val", every_n_epochs=1, save_top_k=-1, save_on_train_epoch_end=False),
            AtEpochEnd(folder, "{step}-epoch", every_n_epochs=1, save_top_k=-1, save_on_train_epoch_end=True),
        ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Trainer(
            accelerator="cpu",
            logger=False,
            callbacks=callbacks,
            enable_checkpointing=bool(callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
            **{"max_epochs": 3, **options},
        ).fit(module, datamodule=data, ckpt_path=ckpt_path)
    return module.seen


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, [1, 3, 4, 5, 8]),  # the epochs end after steps 4, 8 and 12
        ({"val_check_interval": 2}, [2, 3, 4]),
        ({"limit_train_batches": 3}, [2, 3, 4]),
        ({"max_steps": 10, "max_epochs": -1}, [3, 5]),
        ({"num_sanity_val_steps": 0, "limit_val_batches": 0}, [3, 4]),
    ],
)
def test_the_trainer_goes_on_with_the_next_batch(simulated, tmp_path, options, steps):
    def data():
        names = {"train": ["01", "02"], "val": ["03[0:4]"]}
        return SequenceDataModule(
            str(simulated), **names, clip_length=3, streaming=True, batches_per_epoch=4, augmentation=VARIED
        )

    whole = record(data(), tmp_path, **options)
    assert len(whole) == options.get("max_steps", 3 * options.get("limit_train_batches", 4))
    for step in steps:
        saved = sorted(tmp_path.glob(f"step={step}-*.ckpt"))
        assert saved
        for checkpoint in saved:
            assert record(data(), ckpt_path=checkpoint, **options) == whole[step:], checkpoint.name


def test_the_trainer_goes_on_with_workers(simulated, tmp_path):
    """What workers prepared ahead, but did not deliver, is prepared again."""
    data = {"train": ["01"], "clip_length": 3, "batches_per_epoch": 4, "num_workers": 2}
    whole = record(SequenceDataModule(str(simulated), **data), tmp_path, max_epochs=2)
    rest = record(SequenceDataModule(str(simulated), **data), None, tmp_path / "step=2-batch.ckpt", max_epochs=2)
    assert rest == whole[2:]


def test_evaluation_loaders_give_whole_videos_in_order(simulated):
    data = ready(simulated, "test", train=["01"], val=["02[3:8]"], test=["03", "02[8:]"], predict=["0*"], chunk=5)
    for loader, expected in (
        (data.val_dataloader(), [("02", 3, 8)]),
        (data.test_dataloader(), [("03", 0, 5), ("03", 5, 10), ("03", 10, 12), ("02", 8, 12)]),
        (data.predict_dataloader(), [(n, a, b) for n in ("01", "02", "03") for a, b in ((0, 5), (5, 10), (10, 12))]),
    ):
        chunks = list(loader)
        assert [(c.sequence.name, c.numbers) for c in chunks] == [(n, tuple(range(a, b))) for n, a, b in expected]
    frame = read_frame(simulated / "02" / "t008.tif").astype(np.float64)
    shown = list(data.test_dataloader())[-1].frames[0, 0].numpy()
    np.testing.assert_allclose(shown, (frame - frame.mean()) / frame.std(), atol=5e-3)


def test_defaults_of_the_selections(simulated):
    def names(**options):
        data = ready(simulated, **options)
        return [[s.name for s in data.sequences[stage]] for stage in ("train", "val", "test", "predict")]

    everything = ["01", "02", "03"]
    assert names() == [everything, [], [], everything]
    assert names(train=["01"], val=["02"]) == [["01"], ["02"], ["02"], ["02"]]
    assert names(train=["01"], val=["02"], test=["03"]) == [["01"], ["02"], ["03"], ["03"]]
    assert names(val=["02"], predict=["01"]) == [["01", "03"], ["02"], ["02"], ["01"]]
    assert names(val=["02[0:4]"], test=["03"]) == [["01"], ["02"], ["03"], ["03"]]
    with pytest.raises(InputError, match=r"data\.val and data\.test name all videos"):
        names(val=["01", "02"], test=["03"])
    assert names(folds=3, fold=1) == [["01", "03"], ["02"], ["02"], ["02"]]
    assert names(train=["01", "02"], folds=2, test=["03"]) == [["02"], ["01"], ["03"], ["03"]]


def test_without_validation_videos_there_is_no_loader(simulated):
    data = ready(simulated, train=["01"])
    assert data.val_dataloader() == []
    assert data.test_dataloader() == []


def test_pieces_beside_a_fold_that_are_shorter_than_a_clip_are_left_out(simulated):
    data = ready(simulated, train=["01"], folds=4, fold=1, clip_length=5)
    assert [s.numbers for s in data.sequences["train"]] == [tuple(range(6, 12))]
    assert [s.numbers for s in data.sequences["val"]] == [(3, 4, 5)]
    complaint(lambda: ready(simulated, train=["01"], folds=4, fold=1, clip_length=7), "data.clip_length=7")


def test_the_fingerprint_knows_contents_not_names(simulated, tmp_path):
    shutil.copytree(simulated, tmp_path / "copy")
    shutil.copytree(simulated, tmp_path / "other")
    frame = tmp_path / "other" / "02" / "t004.tif"
    write_image(frame, read_frame(frame) + 1)
    fingerprints = [ready(root).fingerprint for root in (simulated, tmp_path / "copy", tmp_path / "other")]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
    assert ready(tmp_path / "other", train=["01"], predict=["03"]).fingerprint == (
        ready(simulated, train=["01"], predict=["03"]).fingerprint
    )


def test_the_description_says_which_frames(simulated):
    described = ready(simulated, train=["01", "02[0:5]"], val=["02[5:]"]).describe()
    assert described["root"] == simulated.name
    assert described["train"] == "01[0:12] 02[0:5]"
    assert described["val"] == described["predict"] == "02[5:12]"


@pytest.fixture
def stills(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(5):
        size = (40 + number, 50)
        for folder, image in (("images", rng.integers(0, 255, size)), ("labels", rng.integers(0, 3, size))):
            path = tmp_path / "stills" / folder / f"cell_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image.astype(np.uint8))
    return tmp_path / "stills"


@pytest.mark.parametrize("kind", ["instances", "classes"])
def test_still_images_are_videos_of_one_frame(stills, kind):
    options = {"layout": "images", "label_kind": kind, "clip_length": 1, "val": ["cell_3"]}
    data = ready(stills, **options, train=["cell_[0-2]"], augmentation=Augmentation(crop=32))
    ((first, *_),) = clips(data)
    assert first.frames.shape == (2, 1, 1, 32, 32)
    assert first.first.all()
    given, absent = (first.labels, first.classes) if kind == "instances" else (first.classes, first.labels)
    assert given.shape == (2, 1, 32, 32)
    assert absent is None
    (chunk,) = data.val_dataloader()
    assert chunk.frames.shape == (1, 1, 43, 50)
    assert chunk.first
    assert chunk.last
    saved = cv2.imread(str(stills / "labels" / "cell_3.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal((chunk.labels if kind == "instances" else chunk.classes)[0], saved)
    folds = ready(stills, layout="images", label_kind=kind, clip_length=1, folds=5, fold=4)
    assert [s.name for s in folds.sequences["val"]] == ["cell_4"]


def test_scale_changes_what_networks_see_alone(simulated):
    data = ready(simulated, scale=0.5, val=["01"], chunk=2)
    chunk = next(iter(data.val_dataloader()))
    assert chunk.frames.shape == (2, 1, 32, 32)
    assert chunk.labels.shape == (2, 32, 32)
    assert chunk.sequence.size == (64, 64)
    assert next(chunk.truth())[0].shape == (64, 64)


def test_truth_of_chunks_stays_with_the_processor(simulated):
    """The meta device stands in for a GPU."""
    data = ready(simulated, val=["01"])
    device = torch.device("meta")
    chunk = data.transfer_batch_to_device(next(iter(data.val_dataloader())), device, 0)
    assert chunk.frames.device == device
    assert chunk.labels.device.type == "cpu"
    clip = data.transfer_batch_to_device(clips(data)[0][0], device, 0)
    assert {clip.frames.device, clip.labels.device, clip.first.device} == {device}


def test_missing_and_empty_data(tmp_path, simulated, monkeypatch):
    complaint(lambda: ready(tmp_path / "nowhere"), tmp_path / "nowhere", "LIGHTNING_CELLS_DATA")
    complaint(lambda: ready(tmp_path), tmp_path, "data.root", "data.layout=images")
    (tmp_path / "01").mkdir()
    complaint(lambda: ready(tmp_path), tmp_path)
    complaint(lambda: ready(simulated, layout="images"), simulated)
    complaint(lambda: ready(simulated, truth="silver"), "01_ST")
    monkeypatch.setenv("LIGHTNING_CELLS_DATA", str(simulated.parent))
    assert ready(Path(simulated.name)).sequences["train"]  # its name is enough


def test_selections_that_cannot_be(simulated, stills):
    complaint(lambda: ready(simulated, train=["04"]), "data.train", "'04'", "01, 02, 03")
    complaint(lambda: ready(simulated, clip_length=13), "data.clip_length=13", "12 frame")
    complaint(lambda: ready(simulated, "test"), "test", "--data.test")
    complaint(lambda: ready(simulated, "validate", train=["01"]), "validate", "--data.val")
    images = {"layout": "images", "clip_length": 1}
    complaint(lambda: ready(stills, **images, augmentation=Augmentation(crop=None)), "crop", "40 x 50", "41 x 50")
    shutil.rmtree(stills / "labels")
    complaint(lambda: ready(stills, **images), "data.train", "cell_0", "no truth")
    assert list(ready(stills, "predict", **images).predict_dataloader())


def test_a_mistake_is_told_again(simulated):
    data = SequenceDataModule(str(simulated), clip_length=13)
    for _ in range(2):
        complaint(lambda: data.setup("fit"), "data.clip_length=13")


@pytest.mark.parametrize(
    "wrong",
    [
        {"clip_length": 0},
        {"stride": 0},
        {"batch_size": 0},
        {"batches_per_epoch": 0},
        {"chunk": 0},
        {"num_workers": -1},
        {"folds": 1},
        {"folds": -2},
        {"annotated_share": 1.5},
    ],
)
def test_numbers_out_of_range(wrong):
    (name,) = wrong
    complaint(lambda: SequenceDataModule(**wrong), f"data.{name}={wrong[name]}")


def test_a_method_for_instances_needs_instances(stills):
    data = SequenceDataModule(str(stills), "images", label_kind="classes", clip_length=1)
    complaint(lambda: record(data), "data.train", "instance labels")


def test_overfitting_is_done_by_choosing_few_frames(simulated):
    data = SequenceDataModule(str(simulated), val=["01"], clip_length=3)
    complaint(lambda: record(data, overfit_batches=1), "trainer.overfit_batches", "data.train")


def open_and_sum(root: Path, gate, results) -> None:
    torch.set_num_threads(1)
    data = SequenceDataModule(str(root), val=["03"], chunk=12)
    gate.wait(30)
    data.prepare_data()
    data.setup("fit")
    (chunk,) = data.val_dataloader()
    results.put((float(chunk.frames.double().sum()), int(chunk.labels.sum()), data.fingerprint))


def test_two_processes_may_fill_the_cache_at_once(simulated, home):
    context = multiprocessing.get_context("fork")
    gate, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=open_and_sum, args=(simulated, gate, results)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=300) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    data = ready(simulated, val=["03"], chunk=12)
    (chunk,) = data.val_dataloader()
    expected = (float(chunk.frames.double().sum()), int(chunk.labels.sum()), data.fingerprint)
    assert found == [expected, expected]
    entries = [path.name for path in (home / "cache").iterdir() if path.name != "digests"]
    assert len(entries) == 3  # one for each video, and nothing half-made


def test_worker_processes_are_kept_for_the_next_epoch(simulated):
    loader = ready(simulated, num_workers=1).train_dataloader()
    assert loader.persistent_workers
    first = list(islice(loader, 2))
    again = list(islice(loader, 2))
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
