"""The GRUU-Net as a method: loss and targets, training, other networks in its place, checkpoints."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_cells.data.augment import Augmentation
from lightning_cells.data.clips import Clip
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.data.sequence import open_sequence
from lightning_cells.errors import InputError
from lightning_cells.instances.components import ArgmaxDecoder, SeedDecoder
from lightning_cells.instances.linkers import Overlap
from lightning_cells.methods import GRUUNet
from lightning_cells.methods.loading import checkpoint_settings
from lightning_cells.methods.objectives import Focal
from lightning_cells.methods.optimisation import Optimization
from lightning_cells.networks import architectures

SMALL = architectures.GRUUNet(stem=6, hidden=6, widths=(8, 8), down=(1, 1), up=(1,), growth=4, layers=2)
UNET = architectures.UNet(width=0.25, levels=2, bn_momentum=0.1)


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def trainer(**options) -> Trainer:
    names = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return Trainer(**{"accelerator": "cpu", **dict.fromkeys(names, False), **options})


def clip_of(method: GRUUNet, video, start: int = 0, frames: int = 3) -> Clip:
    """Two clips of consecutive frames."""
    parts = [slice(start, start + frames), slice(start + frames, start + 2 * frames)]
    targets = [method.clip_target(np.asarray(video.labels[part])) for part in parts]
    target = {key: torch.from_numpy(np.stack([each[key] for each in targets])) for key in targets[0]}
    images = torch.from_numpy(np.stack([video.frames[part] for part in parts])[:, :, None].astype(np.float32))
    return Clip(images, None, None, target, torch.tensor([True, True]))


def test_parameters_of_the_default():
    with torch.device("meta"):
        method = GRUUNet()
    assert sum(parameter.numel() for parameter in method.parameters()) == 956_242


def test_targets():
    labels = np.array([[[1, 1, 1, 2, 2, 2], [1, 1, 1, 2, 2, 2], [1, 1, 1, 2, 2, 2], [0, 0, -1, -5, 0, 0]]], np.int32)
    two = GRUUNet(SMALL).clip_target(labels)
    assert two.keys() == {"classes"}  # no weights are computed that the loss does not want
    assert two["classes"][0].tolist() == [[1, 1, 0, 1, 1, 1]] * 2 + [[1, 1, 0, 0, 0, 1], [0, 0, -1, -1, 0, 0]]
    three = GRUUNet(SMALL, Focal(classes=3)).clip_target(labels)["classes"]
    assert three[0].tolist() == [[1, 1, 2, 2, 1, 1]] * 2 + [[2, 2, 2, 2, 2, 2], [0, 0, -1, -1, 0, 0]]
    outer = GRUUNet(SMALL, Focal(classes=3, contour="outer")).clip_target(labels)["classes"]
    assert outer[0, 0].tolist() == [1, 1, 2, 1, 1, 1]


@pytest.mark.parametrize("classes", [2, 3])
def test_the_loss_of_a_clip_is_that_of_its_frames_as_a_batch(simulated, classes):
    torch.manual_seed(0)
    method = GRUUNet(SMALL, Focal(classes, gamma=1.5))
    video = open_sequence(simulated, "01", "percentile")
    clip = clip_of(method, video)
    loss = method.training_step(clip, 0)
    frames = torch.cat([clip.frames[0], clip.frames[1]])
    truth = torch.cat([clip.target["classes"][0], clip.target["classes"][1]]).long()
    assert set(truth.unique().tolist()) == set(range(classes))
    logp = F.log_softmax(method.network(frames), 1).gather(1, truth[:, None])
    weights = (1 - logp.exp()) ** 1.5
    torch.testing.assert_close(loss, -(weights * logp).sum() / weights.sum())


class Losses(Callback):
    def __init__(self) -> None:
        self.all: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs, batch, batch_idx: int) -> None:
        self.all.append(float(outputs["loss"]))


@pytest.mark.parametrize(
    ("variant", "share"),
    [
        ({}, 0.85),  # the loss of the hard pixels falls slowly
        ({"loss": Focal(3)}, 0.9),
        ({"loss": Focal(normalize="batch_mean")}, 0.85),
        ({"loss": Focal(normalize="none")}, 0.5),
        ({"loss": Focal(gamma=0.0, class_weights=(0.3, 0.7))}, 0.6),
        ({"network": UNET}, 0.85),
        ({"optimization": Optimization("rmsprop", 1e-2, "one_cycle")}, 0.9),
    ],
)
def test_the_loss_falls_on_a_clip_seen_again_and_again(simulated, variant, share):
    seed_everything(0, verbose=False)
    method = GRUUNet(**{"network": SMALL, "optimization": Optimization("amsgrad", 1e-2, "one_cycle"), **variant})
    clip = clip_of(method, open_sequence(simulated, "01", "percentile"))
    losses = Losses()
    trainer(max_epochs=1, callbacks=[losses]).fit(method, DataLoader([clip] * 25, batch_size=None))
    assert np.isfinite(losses.all).all()
    assert losses.all[-1] < share * losses.all[0]


def test_frames_are_segmented_by_themselves():
    torch.manual_seed(0)
    method = GRUUNet(SMALL).eval()
    frames = torch.randn(3, 1, 33, 50)
    with torch.no_grad():
        whole, single = method(frames), torch.cat([method(frame[None]) for frame in frames])
    assert whole.shape == (3, 2, 33, 50)
    torch.testing.assert_close(whole, single)
    torch.testing.assert_close(whole.sum(1), torch.ones(3, 33, 50))


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (33, 17)])
def test_videos_of_any_size(size):
    (labels, *_) = GRUUNet(SMALL).eval().open_video(size).push(torch.randn(2, 1, *size))
    assert labels.shape == size
    assert labels.dtype == np.int32


def test_it_learns_to_find_cells_and_goes_on_from_a_checkpoint(simulated, tmp_path):
    """Two epochs at once, and two trainings of one: the same network, optimiser and data."""

    def fit(epochs: int, resumed: Path | None = None) -> tuple[GRUUNet, Trainer, SequenceDataModule]:
        seed_everything(1, verbose=False)
        method = GRUUNet(
            SMALL, Focal(classes=3), Optimization("amsgrad", 1e-2), decoder=SeedDecoder(), linker=Overlap()
        )
        data = SequenceDataModule(
            str(simulated),
            train=["01"],
            val=["02"],
            normalisation="percentile",
            clip_length=1,
            balance="foreground",
            augmentation=Augmentation(crop=48, rotation=180, elastic=4, noise=0.1, blur=0.5),
            batch_size=4,
            batches_per_epoch=25,
        )
        loop = trainer(max_epochs=epochs, limit_val_batches=0)
        loop.fit(method, datamodule=data, ckpt_path=resumed)
        return method, loop, data

    half, loop, _ = fit(1)
    loop.save_checkpoint(tmp_path / "half.ckpt")
    straight, loop, data = fit(2)
    resumed, _, _ = fit(2, tmp_path / "half.ckpt")
    for name, value in straight.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)
        assert name.endswith("num_batches_tracked") or not torch.equal(half.state_dict()[name], value)
    assert loop.optimizers[0].defaults["amsgrad"]
    (measured,) = trainer().validate(straight, datamodule=data, verbose=False)
    assert measured["val/SEG"] > 0.4
    assert measured["val/TRA"] > 0.5


def test_a_unet_in_its_place_from_the_command_line(simulated, tmp_path):
    from lightning_cells.cli.training import TrainingCLI

    network = ["--model.network", "UNet", "--model.network.width", "0.25", "--model.network.levels", "2"]
    options = ["--model.gamma", "1", "--model.class_weights", "[1,2]", "--model.decoder.min_size", "7"]
    data = ["--data.root", str(simulated), "--data.train", "['01']", "--data.val", "['02[0:3]']"]
    sizes = ["--data.clip_length", "1", "--data.batches_per_epoch", "2", "--data.augmentation.crop", "32"]
    off = [f"--trainer.{name}=false" for name in ("logger", "enable_progress_bar", "enable_model_summary")]
    once = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", *off]
    folder = ["--checkpoint.folder", str(tmp_path / "kept")]
    command = TrainingCLI(["fit", "--model", "GRUUNet", *network, *options, *data, *sizes, *once, *folder])
    path = tmp_path / "kept/last.ckpt"
    torch.load(path, weights_only=True)
    remembered = checkpoint_settings(path)["model"]
    assert remembered["class_path"] == "lightning_cells.methods.gruunet.GRUUNet"
    assert remembered["init_args"]["network"]["class_path"] == "lightning_cells.networks.architectures.UNet"
    loaded = GRUUNet.load_from_checkpoint(path)
    assert type(loaded.network).__name__ == "UNet"
    assert loaded.decoder == ArgmaxDecoder(min_size=7)
    assert loaded.loss.class_weights.tolist() == [1, 2]
    for ours, theirs in zip(loaded.parameters(), command.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_checkpoint_keeps_the_sizes_of_the_network(simulated, tmp_path):
    method = GRUUNet(SMALL, optimization=Optimization("amsgrad"))
    loop = trainer(max_epochs=1)
    data = SequenceDataModule(str(simulated), train=["01"], clip_length=1, batches_per_epoch=1)
    loop.fit(method, datamodule=data)
    loop.save_checkpoint(tmp_path / "small.ckpt")
    loaded = GRUUNet.load_from_checkpoint(tmp_path / "small.ckpt")
    assert [p.shape for p in loaded.parameters()] == [p.shape for p in method.parameters()]


def test_large_frames_may_be_cut_into_tiles():
    torch.manual_seed(0)
    whole, tiled = GRUUNet(SMALL).eval(), GRUUNet(SMALL, tile=64).eval()
    tiled.load_state_dict(whole.state_dict())
    seen = []
    tiled.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[-2:]))
    with torch.no_grad():
        probabilities = tiled(torch.randn(1, 1, 100, 64))
    assert probabilities.shape == (1, 2, 100, 64)
    assert len(seen) > 1
    assert max(max(size) for size in seen) < 100


def test_class_weights_of_another_number_are_refused(simulated):
    method = GRUUNet(SMALL, Focal(class_weights=(1.0, 1.0, 1.0)))
    with pytest.raises(InputError, match="3 given for a network of 2 classes"):
        method.training_step(clip_of(method, open_sequence(simulated, "01", "percentile")), 0)


def test_the_refinement_is_drawn_step_by_step() -> None:
    frame = torch.randn(1, 1, 20, 24)
    picture = GRUUNet(network=SMALL).eval().refinement(frame)
    assert (picture.shape, picture.dtype) == ((20, 3 * 24, 3), np.uint8)
    assert picture.std() > 10
    with pytest.raises(InputError, match="UNet has no such steps"):
        GRUUNet(network=UNET).refinement(frame)
