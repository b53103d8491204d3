"""Semantic segmentation as a method: loss with L2, measures on disk's size, data that do not fit, checkpoints."""

import copy
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_cells.data.augment import Augmentation
from lightning_cells.data.clips import Clip
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.data.image_files import read_mask, write_image
from lightning_cells.data.sequence import open_sequence
from lightning_cells.data.simulate import simulate
from lightning_cells.data.targets import three_class
from lightning_cells.errors import InputError
from lightning_cells.instances.components import SeedDecoder
from lightning_cells.instances.nuclei import NucleusDecoder
from lightning_cells.methods import BrightField
from lightning_cells.methods.building import load_method
from lightning_cells.methods.objectives import NucleusCytoplasm, Objective, ThreeClass
from lightning_cells.methods.optimisation import Optimization
from lightning_cells.networks.architectures import Architecture, DeepLab, Tiramisu, UNet

UNET = UNet(width=0.5, levels=2, bn_momentum=0.1)
NETWORKS = [UNET, Tiramisu(width=0.5, layers=(1, 1), bottleneck=1, dropout=0.1), DeepLab(width=1 / 16, middle=1)]


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> Path:
    """Two bright-field videos with instance labels and classes. Not to be written to."""
    return simulate(tmp_path_factory.mktemp("cells") / "cells", "brightfield", sequences=2, frames=3, size=(48, 56))


@pytest.fixture(scope="module")
def stills(cells, tmp_path_factory) -> Path:
    """Still images of two sizes with classes alone."""
    root = tmp_path_factory.mktemp("stills") / "stills"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number, video in enumerate(("01", "02")):
        for frame in range(3):
            rows = slice(0, 40 + 8 * number)
            image = read_mask(cells / video / f"t{frame:03d}.tif")[rows]
            classes = read_mask(cells / f"{video}_GT/SEM/man_sem{frame:03d}.tif")[rows]
            write_image(root / f"images/{number}{frame}.tif", image)
            write_image(root / f"labels/{number}{frame}.tif", classes.astype(np.uint8))
    return root


def trainer(**options) -> Trainer:
    defaults = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**{**defaults, **options})


def data(root: Path, **options) -> SequenceDataModule:
    defaults = {
        "train": ["01"],
        "val": ["02"],
        "clip_length": 1,
        "batch_size": 2,
        "batches_per_epoch": 2,
        "augmentation": Augmentation(crop=32),
    }
    return SequenceDataModule(str(root), **{**defaults, **options})


def still(root: Path, **options) -> SequenceDataModule:
    defaults = {"layout": "images", "label_kind": "classes", "train": ["0?"], "val": ["1?"], "balance": "classes"}
    return data(root, **{**defaults, **options})


def batch(seed: int = 0) -> Clip:
    """Two clips of one frame, with unknown pixels."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(-1, 3, (2, 1, 16, 16), generator=generator).to(torch.int8)
    frames = torch.randn(2, 1, 1, 16, 16, generator=generator)
    return Clip(frames, None, classes, {}, torch.tensor([True, True]))


def test_l2_is_keras_term_of_the_loss():
    """Equals three steps of Adam on the cross entropy plus l2 times the sum of squares of all kernels, by autograd."""
    torch.manual_seed(0)
    method = BrightField(UNet(width=0.25, levels=1), optimization=Optimization(lr=1e-2, weight_decay=0.06))
    network = copy.deepcopy(method.network).train()
    batches = [batch(seed) for seed in range(3)]
    trainer(max_epochs=1).fit(method, DataLoader(batches, batch_size=None))

    kernels = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(kernels) == 8
    adam = torch.optim.Adam(network.parameters(), lr=1e-2)
    for clip in batches:
        logits = network(clip.frames[:, 0])
        loss = F.cross_entropy(logits, clip.classes[:, 0].long(), ignore_index=-1)
        loss = loss + 0.03 * sum((kernel**2).sum() for kernel in kernels)
        adam.zero_grad()
        loss.backward()
        adam.step()
    for (name, ours), theirs in zip(method.network.named_parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4, msg=name)


def test_rate_halves_every_sixth_of_the_training():
    method = BrightField(UNet(width=0.1, levels=0))
    rates: list[float] = []

    class Rates(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer(max_epochs=12, callbacks=[Rates()]).fit(method, DataLoader([batch()] * 2, batch_size=None))
    assert rates[:5] == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4, 5e-4])
    assert rates[-2:] == pytest.approx([1e-3 / 32] * 2)


class Losses(Callback):
    def __init__(self) -> None:
        self.all: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs, batch, batch_idx: int) -> None:
        self.all.append(float(outputs["loss"]))


@pytest.mark.parametrize("loss", [NucleusCytoplasm(), ThreeClass()], ids=["classes", "three_class"])
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: type(network).__name__)
def test_the_loss_falls_on_a_batch_seen_again_and_again(cells, network: Architecture, loss: Objective):
    seed_everything(0, verbose=False)
    method = BrightField(network, loss, Optimization(lr=1e-2))
    video = open_sequence(cells, "01", "zscore")
    frames = torch.from_numpy(video.frames[:2, None, None].astype(np.float32))
    classes = torch.from_numpy(np.array(video.classes[:2, None]))
    targets = {} if loss.target is None else {"classes": torch.from_numpy(three_class(video.labels[:2, None]))}
    clip = Clip(frames, None, classes, targets, torch.tensor([True, True]))
    losses = Losses()
    trainer(max_epochs=1, callbacks=[losses]).fit(method, DataLoader([clip] * 30, batch_size=None))
    assert np.isfinite(losses.all).all()
    assert losses.all[-1] < 0.7 * losses.all[0]


def by_hand(predictions: list[np.ndarray], truths: list[np.ndarray]) -> list[float]:
    """Pooled coefficient of each class."""
    p, t = (np.concatenate([image.ravel() for image in images]) for images in (predictions, truths))
    p, t = p[t >= 0], t[t >= 0]
    return [2 * np.sum((p == c) & (t == c)) / (np.sum(p == c) + np.sum(t == c)) for c in range(3)]


@pytest.mark.parametrize("loss", [NucleusCytoplasm(), ThreeClass()], ids=["classes", "three_class"])
def test_measures_are_those_of_the_size_on_disk(cells, loss: Objective):
    torch.manual_seed(0)
    method = BrightField(UNET, loss)
    scaled = data(cells, val=["02", "01[1:3]"], scale=0.5, chunk=2)
    (measured,) = trainer().validate(method, datamodule=scaled, verbose=False)
    (tested,) = trainer().test(method, datamodule=scaled, verbose=False)

    predictions, truths, losses = [], [], []
    for video, frames in (("02", range(3)), ("01", range(1, 3))):
        sequence = open_sequence(cells, video, "zscore", 0.5)
        for frame in frames:
            image = torch.from_numpy(sequence.frames[frame, None, None].astype(np.float32))
            with torch.no_grad():
                probabilities = F.interpolate(method.eval()(image), (48, 56), mode="bilinear")[0].numpy()
            predictions.append(probabilities.argmax(0))
            if loss.target is None:
                truth = read_mask(cells / f"{video}_GT/SEM/man_sem{frame:03d}.tif")
            else:
                truth = three_class(read_mask(cells / f"{video}_GT/SEG/man_seg{frame:03d}.tif").astype(np.int32))
            truths.append(truth.astype(int))
            losses.append(-np.log(np.take_along_axis(probabilities, truths[-1][None], 0)).mean())
    names = ("nucleus", "cytoplasm") if loss.target is None else ("interior", "contour")
    expected = by_hand(predictions, truths)
    for name, value in zip(("background", *names), expected, strict=True):
        assert measured[f"val/Dice_{name}"] == pytest.approx(value, abs=1e-6)
    assert measured["val/Dice"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert measured["val/loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert {key.removeprefix("test/") for key in tested} == {key.removeprefix("val/") for key in measured}
    for key, value in measured.items():
        assert tested[key.replace("val/", "test/")] == pytest.approx(value, nan_ok=True)
    assert np.isfinite(measured["val/SEG"]), "there are instance labels"


def test_planes_of_volumes_are_measured_as_images(tmp_path):
    simulate(tmp_path / "deep", sequences=1, frames=3, size=(48, 56), depth=5, cells=3)
    torch.manual_seed(0)
    method = BrightField(UNET, ThreeClass(), decoder=SeedDecoder())
    loaded = data(tmp_path / "deep", val=["01"], scale=0.5, chunk=2)
    (measured,) = trainer().validate(method, datamodule=loaded, verbose=False)
    predictions, truths, losses = [], [], []
    frames = open_sequence(tmp_path / "deep", "01", "zscore", 0.5).frames
    for frame, volume in enumerate(frames.astype(np.float32)):
        classes = three_class(read_mask(tmp_path / f"deep/01_GT/SEG/man_seg{frame:03d}.tif").astype(np.int32))
        with torch.no_grad():
            said = F.interpolate(method.eval()(torch.from_numpy(volume)[:, None]), (48, 56), mode="bilinear").numpy()
        predictions += list(said.argmax(1))
        truths += list(classes.astype(int))
        losses.append(-np.log(np.take_along_axis(said, classes[:, None].astype(int), 1)).mean())
    expected = by_hand(predictions, truths)
    for name, value in zip(("background", "interior", "contour"), expected, strict=True):
        assert measured[f"val/Dice_{name}"] == pytest.approx(value, abs=1e-6)
    assert measured["val/loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert np.isfinite(measured["val/SEG"])


def test_still_images_with_classes_alone_and_patches_larger_than_they(stills):
    seed_everything(0, verbose=False)
    method = BrightField(UNET, optimization=Optimization(lr=1e-2, weight_decay=2e-4))
    loop = trainer(max_epochs=1)
    loop.fit(method, datamodule=still(stills, augmentation=Augmentation(crop=64, elastic=3), batches_per_epoch=60))
    measured = {key: float(value) for key, value in loop.callback_metrics.items()}
    assert measured["val/Dice"] > 0.3, "untrained 0.2"
    assert np.isnan(measured["val/SEG"])
    clip = next(iter(loop.datamodule.train_dataloader()))
    assert clip.frames.shape == (2, 1, 1, 64, 64)
    assert (clip.classes == -1).any(), "beyond the image nothing is known"


def test_instances_without_classes(cells, tmp_path):
    shutil.copytree(cells, tmp_path / "cells")
    for video in ("01", "02"):
        shutil.rmtree(tmp_path / f"cells/{video}_GT/SEM")
    loop = trainer(max_epochs=1)
    with pytest.raises(InputError, match=r"data\.train: no semantic classes for 01.*model\.loss=ThreeClass"):
        loop.fit(BrightField(UNET), datamodule=data(tmp_path / "cells"))
    loop.fit(BrightField(UNET, ThreeClass()), datamodule=data(tmp_path / "cells"))
    assert 0 < float(loop.callback_metrics["val/Dice"]) < 1


@pytest.mark.parametrize(("verb", "video"), [("fit", "01"), ("fit", "02"), ("validate", "02"), ("test", "02")])
def test_class_that_the_network_lacks(cells, tmp_path, verb, video):
    shutil.copytree(cells, tmp_path / "cells")
    path = tmp_path / f"cells/{video}_GT/SEM/man_sem001.tif"
    classes = read_mask(path)
    classes[0, 0] = 3
    write_image(path, classes)
    with pytest.raises(InputError) as error:
        getattr(trainer(max_epochs=1), verb)(BrightField(UNET), datamodule=data(tmp_path / "cells"))
    assert str(error.value).startswith(f"{path}: holds class 3, but the network has only 0 to 2")
    assert "\n" not in str(error.value)


def test_class_of_a_video_that_is_not_used_is_no_matter(cells, tmp_path):
    shutil.copytree(cells, tmp_path / "cells")
    path = tmp_path / "cells/01_GT/SEM/man_sem001.tif"
    write_image(path, np.full((48, 56), 9, np.uint8))
    trainer().validate(BrightField(UNET), datamodule=data(tmp_path / "cells"), verbose=False)


def test_data_without_any_truth_measure_nothing(cells, tmp_path):
    shutil.copytree(cells / "01", tmp_path / "bare/01")
    (measured,) = trainer().validate(BrightField(UNET), datamodule=data(tmp_path / "bare", val=["01"]), verbose=False)
    assert all(np.isnan(value) for value in measured.values())


def test_options_out_of_range():
    with pytest.raises(InputError, match=r"model\.optimization\.weight_decay=-1"):
        Optimization(weight_decay=-1)
    with pytest.raises(InputError, match=r"model\.tile=8"):
        BrightField(UNET, tile=8)


def test_checkpoint_is_enough(cells, tmp_path):
    seed_everything(0, verbose=False)
    decoder = NucleusDecoder(nucleus_threshold=0.4, min_size=3)
    method = BrightField(Tiramisu(width=0.25, layers=(1, 2), bottleneck=1), tile=40, decoder=decoder)
    loop = trainer(max_epochs=1)
    loop.fit(method, datamodule=data(cells, scale=0.75))
    loop.save_checkpoint(tmp_path / "some.ckpt")
    again, preprocessing = load_method(tmp_path / "some.ckpt")
    assert isinstance(again, BrightField)
    assert (again.hparams["tile"], again.tile, again.decoder, preprocessing.scale) == (40, 40, decoder, 0.75)
    frames = torch.randn(2, 1, 36, 50)
    torch.testing.assert_close(again(frames), method.eval()(frames))
    changed = BrightField.load_from_checkpoint(tmp_path / "some.ckpt", decoder=SeedDecoder())
    assert changed.decoder == SeedDecoder()


def test_default_is_the_papers_best():
    with torch.device("meta"):
        method = BrightField()
    assert sum(p.numel() for p in method.parameters()) == 41_050_223
    assert method.optimization == Optimization("adam", 1e-3, "halving", weight_decay=2e-4)
