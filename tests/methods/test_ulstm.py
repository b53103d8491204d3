"""The U-LSTM as a method: training in clips, results in chunks, checkpoints, measures."""

import copy
import os
import warnings
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_cells.callbacks.result_writer import ResultFolders
from lightning_cells.data.augment import Augmentation
from lightning_cells.data.clips import ChunkDataset, Clip
from lightning_cells.data.ctc import frame_paths
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.data.image_files import read_mask
from lightning_cells.data.sampling import ChunkRequest
from lightning_cells.data.sequence import open_sequence
from lightning_cells.data.tracks import read_tracks
from lightning_cells.errors import InputError
from lightning_cells.instances.components import ArgmaxDecoder, ThresholdDecoder
from lightning_cells.instances.linkers import Overlap
from lightning_cells.methods import ULSTM, Tracked
from lightning_cells.methods.loading import checkpoint_settings, read_checkpoint
from lightning_cells.methods.objectives import ThreeClass, TwoClass
from lightning_cells.methods.optimisation import Optimization
from lightning_cells.metrics.evaluate import evaluate

TINY = {"channels": (4, 8), "lstm_kernel": 3, "norm": "group", "bn_momentum": 0.1, "warm_up_frames": 2}


def trainer(**options) -> Trainer:
    defaults = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**{**defaults, **options})


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def checkpoint(simulated, tmp_path_factory) -> Path:
    """A small network after a second of training: it finds most cells."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("LIGHTNING_CELLS_HOME", str(folder))
        seed_everything(1, verbose=False)
        parts = {"loss": ThreeClass((0.15, 0.25, 0.6)), "optimization": Optimization("adam", 1e-2, "one_cycle", 0.1)}
        method = ULSTM(**TINY, **parts, decoder=ThresholdDecoder(min_size=12))
        options = {"clip_length": 3, "batches_per_epoch": 80, "augmentation": Augmentation(crop=48)}
        loop = trainer(max_epochs=1)
        loop.fit(method, datamodule=SequenceDataModule(str(simulated), train=["01"], **options))
        loop.save_checkpoint(folder / "trained.ckpt")
        os.environ.pop("PL_GLOBAL_SEED", None)
    return folder / "trained.ckpt"


def predict(checkpoint: Path, data: SequenceDataModule, folder: Path, **changed) -> dict[str, np.ndarray]:
    """Result folders of a checkpoint, read back: each mask, and the table of tracks."""
    method = ULSTM.load_from_checkpoint(checkpoint, **changed)
    trainer(callbacks=[ResultFolders(str(folder))]).predict(method, datamodule=data, return_predictions=False)
    found: dict[str, np.ndarray] = {}
    for result in sorted(folder.iterdir()):
        found |= {f"{result.name}/{path.name}": read_mask(path) for path in sorted(result.glob("*.tif"))}
        rows = list(read_tracks(result / "res_track.txt").values())
        found[f"{result.name}/tracks"] = np.array(rows).reshape(-1, 4)
    return found


def test_parameters_at_the_size_of_the_paper():
    with torch.device("meta"):
        method = ULSTM()
    assert sum(p.numel() for p in method.parameters()) == 42_940_067


def clip(lanes: int = 2, frames: int = 3, first: tuple[bool, ...] = (True, True), seed: int = 0) -> Clip:
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(-1, 3, (lanes, frames, 16, 16), generator=generator).to(torch.int8)
    images = torch.randn(lanes, frames, 1, 16, 16, generator=generator)
    return Clip(images, None, None, {"classes": classes}, torch.tensor(first))


def test_state_is_carried_detached_and_reset_per_lane():
    """Equals a loop over clips that keeps, cuts and zeroes the state of each lane by itself."""
    torch.manual_seed(0)
    method = ULSTM(**TINY)
    method.train()
    network = copy.deepcopy(method.network)
    state = None
    for number, first in enumerate([(True, True), (False, False), (True, False), (False, True), (True, True)]):
        batch = clip(first=first, seed=number)
        method.zero_grad()
        network.zero_grad()
        loss = method.training_step(batch, number)
        loss.backward()
        if state is not None:
            zeroed = torch.tensor([0.0 if new else 1.0 for new in first])[:, None, None, None]
            state = tuple((h.detach() * zeroed, c.detach() * zeroed) for h, c in state)
        logits, state = network(batch.frames, state)
        expected = F.cross_entropy(logits.flatten(0, 1), batch.target["classes"].flatten(0, 1).long(), ignore_index=-1)
        expected.backward()
        torch.testing.assert_close(loss, expected)
        for ours, theirs in zip(method.network.parameters(), network.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad)
    method.on_train_epoch_end()
    assert method._lanes.before(batch) is None  # memory is free for the validation
    fresh = method.training_step(batch, 0)
    torch.testing.assert_close(fresh, expected)  # all lanes were new


def test_carried_state_matters():
    torch.manual_seed(0)
    method = ULSTM(**TINY)
    losses = []
    for first in ((True, True), (False, False)):
        method.on_train_epoch_end()
        method.training_step(clip(), 0)
        losses.append(float(method.training_step(clip(first=first, seed=1), 1)))
    assert abs(losses[0] - losses[1]) > 1e-6


class Losses(Callback):
    def __init__(self) -> None:
        self.all: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs, batch, batch_idx: int) -> None:
        self.all.append(float(outputs["loss"]))


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"loss": TwoClass()},
        {"temporal": "single-frame"},
        {"bn_eval": "batch"},
        {"optimization": Optimization("rmsprop", 3e-3)},
    ],
)
def test_the_loss_falls_on_a_clip_seen_again_and_again(simulated, variant):
    seed_everything(0, verbose=False)
    method = ULSTM(**{**TINY, "optimization": Optimization("adam", 1e-2), **variant})
    video = open_sequence(simulated, "01", "zscore")
    target = {key: torch.from_numpy(value[None]) for key, value in method.clip_target(video.labels[:3]).items()}
    frames = torch.from_numpy(video.frames[None, :3, None].astype(np.float32))
    one = Clip(frames, None, None, target, torch.tensor([True]))
    losses = Losses()
    trainer(max_epochs=1, callbacks=[losses]).fit(method, DataLoader([one] * 25, batch_size=None))
    assert np.isfinite(losses.all).all()
    assert losses.all[-1] < 0.6 * losses.all[0]


def test_batch_norm_that_was_replaced_is_refused():
    for choice in ("running", "batch"):
        method = ULSTM(**TINY, bn_eval=choice)
        method.on_fit_start()
        method.network = nn.SyncBatchNorm.convert_sync_batchnorm(method.network)  # what Lightning does
        if choice == "running":
            method.on_fit_start()
            continue
        with pytest.raises(InputError, match="sync_batchnorm=true"):
            method.on_fit_start()


def challenge(found: dict[str, float]) -> dict[str, float]:
    """The challenge's measures among those of a stage."""
    names = {key.partition("/")[2]: value for key, value in found.items()}
    return {name: value for name, value in names.items() if name not in ("P", "R", "F")}


def test_measures_in_the_trainer_are_those_of_the_written_results(checkpoint, simulated, tmp_path):
    parts = ["02", "03[4:10]"]
    data = SequenceDataModule(str(simulated), val=["02"], test=parts, chunk=5)
    method = ULSTM.load_from_checkpoint(checkpoint)
    (validated,) = trainer().validate(method, datamodule=data, verbose=False)
    (tested,) = trainer().test(method, datamodule=data, verbose=False)
    predict(checkpoint, SequenceDataModule(str(simulated), predict=parts, chunk=5), tmp_path)

    whole = evaluate(tmp_path / "02_RES", simulated / "02_GT")
    part = evaluate(tmp_path / "03_RES", simulated / "03_GT", frames=(4, 10))
    assert challenge(validated) == pytest.approx(whole.values(), abs=1e-6)
    both = reduce(add, (whole, part)).values()
    assert challenge(tested) == pytest.approx(both, abs=1e-6)
    assert whole.SEG > 0.3  # or the comparison says little
    assert part.SEG > 0.3
    assert whole.TRA > 0.3


def test_a_validation_that_is_cut_short_measures_what_it_saw(checkpoint, simulated, tmp_path):
    method = ULSTM.load_from_checkpoint(checkpoint)
    data = SequenceDataModule(str(simulated), val=["02", "03"], chunk=5)
    (seen,) = trainer(limit_val_batches=4).validate(method, datamodule=data, verbose=False)
    predict(checkpoint, SequenceDataModule(str(simulated), predict=["02", "03[:5]"], chunk=5), tmp_path)
    counts = evaluate(tmp_path / "02_RES", simulated / "02_GT")
    counts += evaluate(tmp_path / "03_RES", simulated / "03_GT", frames=(0, 5))
    assert challenge(seen) == pytest.approx(counts.values(), abs=1e-6)
    (again,) = trainer(limit_val_batches=3).validate(method, datamodule=data, verbose=False)  # nothing was left over
    whole = evaluate(tmp_path / "02_RES", simulated / "02_GT").values()
    assert challenge(again) == pytest.approx(whole, abs=1e-6)


def test_videos_without_truth_are_tracked_without_measures(checkpoint, simulated, tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "01").symlink_to(simulated / "01")
    method = ULSTM.load_from_checkpoint(checkpoint)
    data = SequenceDataModule(str(tmp_path / "plain"), val=["01"])
    (measured,) = trainer().validate(method, datamodule=data, verbose=False)
    assert all(np.isnan(value) for value in measured.values())


def test_results_do_not_depend_on_the_size_of_chunks(checkpoint, simulated, tmp_path):
    def results(chunk: int) -> dict[str, np.ndarray]:
        data = SequenceDataModule(str(simulated), predict=["02", "03"], chunk=chunk)
        return predict(checkpoint, data, tmp_path / str(chunk))

    small, large = results(3), results(100)
    assert small.keys() == large.keys()
    for name in small:
        np.testing.assert_array_equal(small[name], large[name], name)
    assert len(small["02_RES/tracks"]) > 3


def test_a_chunk_too_short_for_the_warm_up_is_refused(checkpoint, simulated, tmp_path):
    def results(chunk: int, video: str) -> None:
        data = SequenceDataModule(str(simulated), predict=[video], chunk=chunk)
        predict(checkpoint, data, tmp_path, warm_up_frames=4)

    with pytest.raises(InputError, match=r"data\.chunk=4: ULSTM starts with 5 frames"):
        results(4, "02")
    assert not (tmp_path / "02_RES").exists()
    results(5, "02")
    results(2, "02[0:2]")  # a video may be shorter


def test_frames_keep_their_numbers(checkpoint, simulated, tmp_path):
    data = SequenceDataModule(str(simulated), predict=["03[4:10]"], chunk=4)
    results = predict(checkpoint, data, tmp_path)
    assert sorted(frame_paths(tmp_path / "03_RES", "mask")) == [4, 5, 6, 7, 8, 9]
    tracks = results["03_RES/tracks"]
    assert tracks[:, 1].min() == 4
    assert tracks[:, 2].max() == 9


@pytest.mark.parametrize("scale", [0.5, 1.5])
def test_results_have_the_size_of_the_original(checkpoint, simulated, tmp_path, scale):
    data = SequenceDataModule(str(simulated), predict=["02"], chunk=6, scale=scale)
    results = predict(checkpoint, data, tmp_path)
    assert {image.shape for name, image in results.items() if name.endswith("tif")} == {(64, 64)}
    assert evaluate(tmp_path / "02_RES", simulated / "02_GT").vertices > 0
    half = ULSTM.load_from_checkpoint(checkpoint)
    (measured,) = trainer().validate(
        half, datamodule=SequenceDataModule(str(simulated), val=["02"], scale=scale, chunk=6), verbose=False
    )
    counts = evaluate(tmp_path / "02_RES", simulated / "02_GT")
    assert measured["val/DET"] == pytest.approx(counts.DET, abs=1e-6)


def test_the_warm_up_plays_the_first_frames_backwards(checkpoint):
    """The network sees frames 2, 1, 0, 1, 2, ... of the mirrored images; the first two results are dropped."""
    method = ULSTM.load_from_checkpoint(checkpoint).eval()
    frames = torch.randn(4, 1, 21, 30)
    seen = []
    video = method.open_video((21, 30))
    video._decoder = lambda probabilities: seen.append(probabilities) or np.zeros((21, 30), np.int32)
    video.push(frames)  # with gradients on, as in a notebook
    padded = np.pad(frames.numpy(), [(0, 0), (0, 0), (8, 8), (8, 8)], mode="reflect")
    with torch.no_grad():
        logits, _ = method.network(torch.from_numpy(padded[[2, 1, 0, 1, 2, 3]])[None])
    expected = logits[0, 2:, :, 8:-8, 8:-8].softmax(1)
    torch.testing.assert_close(torch.from_numpy(np.stack(seen)), expected)


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (8, 9), (33, 17)])
def test_frames_of_any_size(size):
    method = ULSTM(**TINY).eval()
    (labels, *_) = method.open_video(size).push(torch.randn(3, 1, *size))
    assert labels.shape == size
    assert labels.dtype == np.int32


def test_a_network_without_memory_sees_frames_by_themselves():
    torch.manual_seed(0)
    method = ULSTM(**{**TINY, "temporal": "single-frame"}).eval()
    frames = torch.randn(4, 1, 24, 24)
    seen: dict[str, list[np.ndarray]] = {"whole": [], "single": []}
    for key, pieces in (("whole", [frames]), ("single", frames.split(1))):
        video = method.open_video((24, 24))
        video._decoder = lambda p, key=key: seen[key].append(p) or np.zeros((24, 24), np.int32)
        for piece in pieces:
            video.push(piece)
    np.testing.assert_allclose(seen["whole"], seen["single"], atol=1e-5)


def test_an_empty_chunk_gives_nothing(simulated):
    method = ULSTM(**TINY).eval()
    empty = ChunkDataset([open_sequence(simulated, "01", "zscore")])[ChunkRequest(0, 0, 0)]
    for step in (method.validation_step, method.test_step, method.predict_step):
        assert step(empty, 0) == Tracked(0, [], {})
    assert method.val_measures["CTCMeasures"].counts() == method.test_measures["CTCMeasures"].counts()
    assert method.val_measures["CTCMeasures"].counts().vertices == 0


def test_a_checkpoint_remembers_its_method_and_preprocessing(checkpoint, simulated):
    settings = checkpoint_settings(checkpoint)
    assert settings["data"] == {"normalisation": "zscore", "scale": 1.0, "smoothing": 0.0, "sequence": "time"}
    assert settings["model"]["class_path"] == "lightning_cells.methods.ulstm.ULSTM"
    remembered = settings["model"]["init_args"]
    assert remembered["channels"] == [4, 8]
    assert remembered["decoder"]["class_path"] == "lightning_cells.instances.components.ThresholdDecoder"
    assert remembered["decoder"]["init_args"]["min_size"] == 12
    loaded = ULSTM.load_from_checkpoint(checkpoint)
    assert loaded.decoder == ThresholdDecoder(min_size=12)
    assert loaded.optimization == Optimization("adam", 1e-2, "one_cycle", 0.1)
    assert loaded.linker == Overlap()
    other = ULSTM.load_from_checkpoint(checkpoint, linker=Overlap(min_overlap=0.7), decoder=ArgmaxDecoder())
    assert (other.linker, other.decoder) == (Overlap(min_overlap=0.7), ArgmaxDecoder())


def test_a_checkpoint_of_the_command_line_is_as_plain(simulated, tmp_path):
    """Loadable by torch with ``weights_only``, and the same to the method's own loader."""
    from lightning_cells.cli.training import TrainingCLI

    tiny = ["--model.channels", "[4,8]", "--model.lstm_kernel", "3", "--model.lr", "0.002"]
    decoder = ["--model.decoder", "ThresholdDecoder", "--model.decoder.edge_threshold", "0.4"]
    data = ["--data.root", str(simulated), "--data.train", "['01']", "--data.val", "['02[0:5]']"]
    sizes = ["--data.clip_length", "2", "--data.batches_per_epoch", "2", "--data.augmentation.crop", "32"]
    quiet = [f"--trainer.{name}=false" for name in ("logger", "enable_progress_bar", "enable_model_summary")]
    once = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--data.scale", "0.5", *quiet]
    folder = ["--checkpoint.folder", str(tmp_path / "kept")]
    command = TrainingCLI(["fit", "--model", "ULSTM", *tiny, *decoder, *data, *sizes, *once, *folder])
    for name in ("best.ckpt", "last.ckpt"):
        path = tmp_path / "kept" / name
        torch.load(path, weights_only=True)
        settings = checkpoint_settings(path)
        assert settings["model"]["class_path"] == "lightning_cells.methods.ulstm.ULSTM"
        assert settings["model"]["init_args"]["optimization"]["lr"] == 0.002
        assert settings["model"]["init_args"]["decoder"]["init_args"]["edge_threshold"] == 0.4
        assert settings["data"]["scale"] == 0.5
        loaded = ULSTM.load_from_checkpoint(path)
        assert loaded.decoder == ThresholdDecoder(edge_threshold=0.4)
        for ours, theirs in zip(loaded.parameters(), command.model.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


class Payload:
    """Makes a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("place", ["state_dict", "hyper_parameters", "callbacks"])
def test_code_in_a_checkpoint_is_not_run(checkpoint, tmp_path, place):
    contents = read_checkpoint(checkpoint)
    contents[place] = {**contents.get(place, {}), "payload": Payload(tmp_path / "executed")}
    torch.save(contents, tmp_path / "hostile.ckpt")
    with pytest.raises(InputError, match=r"hostile\.ckpt.*not loaded"):
        checkpoint_settings(tmp_path / "hostile.ckpt")
    assert not (tmp_path / "executed").exists()
    torch.load(tmp_path / "hostile.ckpt", weights_only=False)
    assert (tmp_path / "executed").exists()  # it would have worked


def test_damaged_checkpoints_are_refused_in_one_line(checkpoint, tmp_path):
    whole = checkpoint.read_bytes()
    legacy = tmp_path / "legacy"  # torch before 1.6: nothing bounds what it takes, so it is refused, too
    torch.save(read_checkpoint(checkpoint), legacy, _use_new_zipfile_serialization=False)
    older = legacy.read_bytes()
    pieces = [whole[: len(whole) * part // 8] for part in range(8)] + [
        older[: len(older) * part // 60] for part in range(61)
    ]
    for number, piece in enumerate([*pieces, whole[:-1], b"text\n", bytes(1000)]):
        path = tmp_path / f"{number}.ckpt"
        path.write_bytes(piece)
        with pytest.raises(InputError, match=rf"^[^\n]*{number}\.ckpt[^\n]*$"):
            checkpoint_settings(path)


def test_other_files_are_no_checkpoints_of_ours(tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        checkpoint_settings(tmp_path / "none.ckpt")
    for number, contents in enumerate([{}, [1], torch.zeros(3), {"state_dict": {}}, {"lightning_cells": {"data": {}}}]):
        torch.save(contents, tmp_path / f"{number}.ckpt")
        with pytest.raises(InputError, match=r"not written by a method of lightning_cells|holds no weights"):
            checkpoint_settings(tmp_path / f"{number}.ckpt")


@pytest.mark.parametrize("option", [{"warm_up_frames": -1}, {"bn_momentum": -1.0}, {"bn_momentum": float("nan")}])
def test_options_out_of_range(option):
    with pytest.raises(InputError, match=rf"^model\.{next(iter(option))}=(-1|nan).*: must be"):
        ULSTM(**TINY | option)


def test_a_training_without_end_needs_a_constant_rate(simulated):
    method = ULSTM(**TINY, optimization=Optimization(schedule="decay"))
    data = SequenceDataModule(str(simulated), clip_length=2, batches_per_epoch=1)
    with pytest.raises(InputError, match=r"trainer\.max_epochs"):
        trainer(max_epochs=-1).fit(method, datamodule=data)


def test_cytoplasm_is_background_of_its_own_weight() -> None:
    target = torch.tensor([[[[-1, 0, 0, 0, 1, 2]]]], dtype=torch.int8)
    semantic = torch.tensor([[[[2, 0, 1, 2, 2, 2]]]], dtype=torch.int8)
    clip = Clip(torch.zeros(1, 1, 1, 1, 6), None, semantic, {"classes": target}, torch.ones(1, dtype=torch.bool))
    given = ThreeClass(cytoplasm_weight=0.5).truth(clip)["classes"]
    assert given.tolist() == [[[[-1, 0, 0, 3, 1, 2]]]]
    assert ThreeClass().truth(clip)["classes"] is target
    assert ThreeClass(cytoplasm_weight=0.5).truth(clip._replace(classes=None))["classes"] is target

    logits = torch.zeros(1, 1, 3, 1, 6, requires_grad=True)
    ThreeClass((0.1, 1.0, 1.0), cytoplasm_weight=0.5).build()(logits, given).backward()
    pull = -logits.grad[0, 0, 0, 0]
    assert pull[3] == pytest.approx(5 * pull[1].item()), "the network learns that it is background"
