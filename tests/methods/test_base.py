"""What the base class does for all methods: videos in chunks, scores, several processes."""

import warnings
from collections.abc import Callable
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from skimage.measure import label
from torch import Tensor

from lightning_cells.callbacks.result_writer import ResultFolders
from lightning_cells.data.augment import Augmentation
from lightning_cells.data.clips import Chunk, Clip
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.data.image_files import read_mask
from lightning_cells.data.tracks import Lineage
from lightning_cells.instances.linking import OverlapLinker
from lightning_cells.methods import CellMethod, Tracked
from lightning_cells.metrics.evaluate import evaluate


class LateVideo:
    """Bright regions, tracked by overlap, each returned only when `lag` more frames have come."""

    def __init__(self, lag: int, first_frame: int) -> None:
        self.lag = lag
        self.waiting: list[np.ndarray] = []
        self.linker = OverlapLinker(first_frame=first_frame)
        self.open = True

    @property
    def lineage(self) -> Lineage:
        return self.linker.lineage

    def push(self, frames: Tensor) -> list[np.ndarray]:
        assert self.open
        assert len(frames)
        self.waiting += [label(frame > 0.5).astype(np.int32) for frame in frames[:, 0].numpy()]
        return [self.linker.push(self.waiting.pop(0))[0] for _ in range(len(self.waiting) - self.lag)]

    def finish(self) -> list[np.ndarray]:
        self.open = False
        return [self.linker.push(labels)[0] for labels in self.waiting]


class Late(CellMethod):
    """A method without a network, that writes down the clips which each process was shown."""

    def __init__(self, lag: int = 0, seen: str = "") -> None:
        super().__init__()
        self.remember()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = seen

    def open_video(self, size: tuple[int, int], first_frame: int = 0) -> LateVideo:
        return LateVideo(self.hparams["lag"], first_frame)

    def training_step(self, clip: Clip, batch_idx: int) -> Tensor:
        with (Path(self.seen) / f"{self.global_rank}.txt").open("a") as file:
            for frames in clip.frames.double():
                print(self.current_epoch, batch_idx, float(frames.sum()), file=file)
        return 0 * self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(processes: int = 1, **options) -> Trainer:
    return Trainer(
        accelerator="cpu",
        strategy="ddp_fork" if processes > 1 else "auto",
        devices=processes,
        logger=False,
        enable_checkpointing="callbacks" in options,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def measured(simulated, tmp_path) -> Callable[..., dict[str, float]]:
    """Measures of the results that are written for parts of videos, by the folder and frame range of each."""

    def measure(method: CellMethod, *parts: str) -> dict[str, float]:
        counts, pairs = [], np.zeros(3, int)
        for part in parts:
            data = SequenceDataModule(str(simulated), predict=[part], chunk=4)
            trainer(callbacks=[ResultFolders(str(tmp_path))]).predict(method, datamodule=data, return_predictions=False)
            name, _, numbers = part.rstrip("]").partition("[")
            start, _, stop = numbers.partition(":")
            frames = (int(start or 0), int(stop or 12))
            counts.append(evaluate(tmp_path / f"{name}_RES", simulated / f"{name}_GT", frames))
            pairs += detected(tmp_path / f"{name}_RES", simulated / f"{name}_GT/SEG", frames)
        hits, results, truths = (int(number) for number in pairs)
        found = {"P": hits / results, "R": hits / truths, "F": 2 * hits / (results + truths)}
        return {f"val/{name}": value for name, value in {**reduce(add, counts).values(), **found}.items()}

    return measure


def detected(result: Path, truth: Path, frames: tuple[int, int]) -> np.ndarray:
    """Pairs of cells with a Jaccard index above 0.5, result cells and truth cells of written masks, one by one."""
    hits = results = truths = 0
    for frame in range(*frames):
        ours, true = read_mask(result / f"mask{frame:03d}.tif"), read_mask(truth / f"man_seg{frame:03d}.tif")
        for cell in np.unique(true[true > 0]):
            for other in np.unique(ours[(true == cell) & (ours > 0)]):
                both, either = (true == cell) & (ours == other), (true == cell) | (ours == other)
                hits += 2 * both.sum() > either.sum()
        results += len(np.unique(ours[ours > 0]))
        truths += len(np.unique(true[true > 0]))
    return np.array([hits, results, truths])


@pytest.mark.parametrize("lag", [0, 1, 5, 50])
def test_late_frames_are_scored_with_their_own_truth(simulated, measured, lag):
    parts = ["02", "01[3:9]", "03"]
    data = SequenceDataModule(str(simulated), val=parts, chunk=4)
    (found,) = trainer().validate(Late(lag), datamodule=data, verbose=False)
    assert found == pytest.approx(measured(Late(0), *parts), abs=1e-6)
    assert found["val/SEG"] > 0.2  # or the comparison says little
    assert found["val/TRA"] > 0.2
    assert found["val/F"] > 0.2


@pytest.mark.parametrize(("lag", "part"), [(0, "02[:8]"), (3, "02[:5]")])
def test_of_a_video_cut_short_what_came_out_is_scored(simulated, measured, lag, part):
    data = SequenceDataModule(str(simulated), val=["01", "02"], chunk=4)
    (found,) = trainer(limit_val_batches=5).validate(Late(lag), datamodule=data, verbose=False)
    assert found == pytest.approx(measured(Late(0), "01", part), abs=1e-6)


def test_no_frame_came_out_at_all(simulated):
    data = SequenceDataModule(str(simulated), val=["01"], chunk=4)
    (found,) = trainer(limit_val_batches=1).validate(Late(50), datamodule=data, verbose=False)
    assert all(np.isnan(value) for value in found.values())


def test_steps_say_which_frames_they_return(simulated):
    data = SequenceDataModule(str(simulated), predict=["01[2:9]", "02"], chunk=3)
    method = Late(2)
    data.setup("predict")
    chunks: list[Chunk] = list(data.predict_dataloader())
    steps: list[Tracked] = [method.predict_step(chunk, 0) for chunk in chunks]
    assert [(s.start, len(s.labels)) for s in steps] == [(0, 1), (1, 3), (4, 3), (0, 1), (1, 3), (4, 3), (7, 5)]
    for step in steps:
        assert all(labels.shape == (64, 64) for labels in step.labels)
    assert min(track.begin for track in steps[2].lineage.values()) == 2
    assert max(track.end for track in steps[2].lineage.values()) == 8


def test_measures_start_anew_in_each_validation(simulated, tmp_path):
    """The sanity check before a training leaves nothing behind either."""
    data = SequenceDataModule(str(simulated), val=["02"], chunk=5)
    (alone,) = trainer().validate(Late(), datamodule=data, verbose=False)
    for limit in (1, 2, -1):
        loop = trainer(max_epochs=2, limit_train_batches=1, num_sanity_val_steps=limit)
        loop.fit(Late(seen=str(tmp_path)), datamodule=data)
        found = {name: float(value) for name, value in loop.callback_metrics.items() if name.startswith("val/")}
        assert found == pytest.approx(alone)


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_measure_what_one_does(simulated, processes):
    """With three processes and two videos, one is idle."""
    data = SequenceDataModule(str(simulated), val=["02", "03[4:10]"], chunk=4)
    (one,) = trainer().validate(Late(1), datamodule=data, verbose=False)
    (several,) = trainer(processes).validate(Late(1), datamodule=data, verbose=False)
    assert several == pytest.approx(one, abs=1e-6)


def test_two_processes_train_on_the_clips_of_one_and_go_on_where_they_stopped(simulated, tmp_path):
    def fit(name: str, processes: int, batch_size: int, ckpt_path: Path | None = None) -> list[list[str]]:
        seed_everything(3, verbose=False)
        folder = tmp_path / name
        folder.mkdir()
        saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
        options = {"batch_size": batch_size, "clip_length": 3, "batches_per_epoch": 4, "streaming": True}
        data = SequenceDataModule(str(simulated), **options, augmentation=Augmentation(crop=32))
        loop = trainer(processes, max_epochs=2, callbacks=[saving])
        loop.fit(Late(seen=str(folder)), datamodule=data, ckpt_path=ckpt_path)
        return [(folder / f"{rank}.txt").read_text().splitlines() for rank in range(processes)]

    (one,) = fit("one", 1, 4)
    assert len(one) == len(set(one)) == 32
    first, second = fit("two", 2, 2)
    assert first == [line for number, line in enumerate(one) if number % 4 < 2]
    assert second == [line for number, line in enumerate(one) if number % 4 >= 2]
    for step in (3, 4, 6):
        rest = fit(f"rest{step}", 2, 2, tmp_path / "two" / f"step={step}.ckpt")
        assert rest == [first[2 * step :], second[2 * step :]]


def test_what_a_killed_prediction_left_is_removed(simulated: Path, tmp_path: Path) -> None:
    left = tmp_path / ".01_RES.predicting"
    left.mkdir()
    (left / "mask000.tif").write_bytes(b"half")
    data = SequenceDataModule(str(simulated), predict=["01"], chunk=4)
    folders = ResultFolders(str(tmp_path))
    trainer(callbacks=[folders]).predict(Late(lag=0), datamodule=data, return_predictions=False)
    assert [path.name for path in tmp_path.iterdir()] == ["01_RES"]
    assert len(list((tmp_path / "01_RES").glob("mask*.tif"))) == 12
