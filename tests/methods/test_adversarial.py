"""The adversarial method: who moves when, in which direction, and what stays as it is."""

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cells.data.augment import Augmentation
from lightning_cells.data.clips import Clip
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.errors import InputError
from lightning_cells.instances.components import ThresholdDecoder
from lightning_cells.methods import Adversarial
from lightning_cells.methods.loading import read_checkpoint
from lightning_cells.methods.optimisation import Optimization
from lightning_cells.networks.architectures import Estimator

SMALL = {
    "network": Estimator(filters=(6, 6), kernels=(5, 4)),
    "rib_filters": (4, 4),
    "rib_kernels": (3, 3),
    "rib_size": 16,
    "discriminator_steps": 2,
    "estimator_steps": 1,
    "optimization": Optimization("rmsprop", 1e-3),
}


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        yield


def method(**changed) -> Adversarial:
    torch.manual_seed(1)
    return Adversarial(**{**SMALL, **changed}).train()


def images(count: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Frames and their classes, some of them unknown."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(count, 1, 16, 16, generator=generator)
    return frames, torch.randint(-1, 3, (count, 16, 16), generator=generator).to(torch.int8)


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, after[name]) for name, value in before.items())


def test_parameters_at_the_size_of_the_paper():
    built = Adversarial()
    assert sum(p.numel() for p in built.network.parameters()) == 143_843
    assert sum(p.numel() for p in built.discriminator.parameters()) == 1_268_920


def test_estimator_loss_by_its_definition():
    game = method()
    frames, classes = images()
    other = copy.deepcopy(game)
    shown = other.network(frames).softmax(1) * (classes >= 0).unsqueeze(1)
    probability = torch.sigmoid(other.discriminator(frames, shown))
    expected = -probability.log().mean()
    torch.testing.assert_close(game.estimator_loss(frames, classes), expected)


def test_discriminator_loss_by_its_definition():
    game = method()
    (real, real_classes), (other, other_classes) = images(seed=0), images(seed=1)
    copied = copy.deepcopy(game)
    manual = torch.stack([(real_classes == number).float() for number in range(3)], 1)
    estimated = copied.network(other).softmax(1) * (other_classes >= 0).unsqueeze(1)
    right = torch.sigmoid(copied.discriminator(real, manual))
    wrong = torch.sigmoid(copied.discriminator(other, estimated))
    expected = -torch.cat([right.log(), (1 - wrong).log()]).mean()  # over all images, as many of either kind
    torch.testing.assert_close(game.discriminator_loss(real, real_classes, other, other_classes), expected)


def test_an_estimator_step_raises_what_the_discriminator_believes():
    game = method()
    frames, classes = images()
    known = (classes >= 0).unsqueeze(1)

    def belief() -> float:
        with torch.no_grad():
            judge, player = copy.deepcopy(game.discriminator), copy.deepcopy(game.network)
            return float(judge(frames, player(frames).softmax(1) * known).sigmoid().mean())

    before, frozen = belief(), state(game.discriminator)
    for _ in range(3):
        game.zero_grad()
        game.estimator_loss(frames, classes).backward()
        assert all(parameter.grad is None for parameter in game.discriminator.parameters())
        with torch.no_grad():
            for parameter in game.network.parameters():
                parameter -= 0.05 * parameter.grad
        after = belief()
        assert after > before + 1e-5
        before = after
    assert same(frozen, state(game.discriminator)), "weights or running statistics moved"


def test_a_discriminator_step_tells_them_apart_better():
    game = method()
    (real, real_classes), (other, other_classes) = images(seed=0), images(seed=1)
    frozen = state(game.network)

    def scores() -> tuple[float, float]:
        with torch.no_grad():
            judge, player = copy.deepcopy(game.discriminator), copy.deepcopy(game.network)
            manual = torch.stack([real_classes == number for number in range(3)], 1).float()
            estimated = player(other).softmax(1) * (other_classes >= 0).unsqueeze(1)
            return float(judge(real, manual).sigmoid().mean()), float(judge(other, estimated).sigmoid().mean())

    before = scores()
    game.discriminator_loss(real, real_classes, other, other_classes).backward()
    assert all(parameter.grad is None for parameter in game.network.parameters())
    with torch.no_grad():
        for parameter in game.discriminator.parameters():
            parameter -= 0.05 * parameter.grad
    after = scores()
    assert after[0] - after[1] > before[0] - before[1]
    assert same(frozen, state(game.network)), "weights or running statistics moved"


def test_statistics_of_the_one_who_moves_are_kept():
    game = method()
    (real, real_classes), (other, other_classes) = images(seed=0), images(seed=1)
    before = state(game)
    game.discriminator_loss(real, real_classes, other, other_classes)
    moved = {name for name, value in game.state_dict().items() if not torch.equal(value, before[name])}
    norms = {name for name in before if "running" in name or "num_batches" in name}
    assert moved == {name for name in norms if name.startswith("discriminator")}
    before = state(game)
    game.estimator_loss(real, real_classes)
    moved = {name for name, value in game.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in norms if name.startswith("network")}


def test_in_discriminator_steps_the_estimator_normalises_by_the_batch():
    """As it does when it learns; running statistics would show the discriminator another network."""
    game = method()
    (real, real_classes), (other, other_classes) = images(seed=0), images(seed=1)
    first = game.discriminator_loss(real, real_classes, other, other_classes)
    with torch.no_grad():
        for part in game.network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean += 3
    torch.testing.assert_close(game.discriminator_loss(real, real_classes, other, other_classes), first)


def test_both_kinds_of_segmentation_are_blank_where_the_truth_is_unknown():
    game = method()
    (real, real_classes), (other, other_classes) = images(seed=0), images(seed=1)
    shown = []
    game.discriminator.register_forward_pre_hook(lambda module, given: shown.append(given))
    game.discriminator_loss(real, real_classes, other, other_classes)
    game.estimator_loss(other, other_classes)
    expected = [(real, real_classes), (other, other_classes), (other, other_classes)]
    for (frames, segmentation), (image, classes) in zip(shown, expected, strict=True):
        assert frames is image
        torch.testing.assert_close(segmentation.sum(1), (classes >= 0).float())
    assert set(shown[0][1].unique().tolist()) == {0.0, 1.0}
    assert len(shown[1][1].unique()) > 100


def test_cross_entropy_is_the_mean_over_known_pixels():
    game = method(ce_weight=1.0)
    frames, classes = images()
    expected = F.cross_entropy(copy.deepcopy(game.network)(frames), classes.long(), ignore_index=-1)
    torch.testing.assert_close(game.estimator_loss(frames, classes), expected)


def test_double_softmax_by_hand():
    game = method(ce_weight=1.0, double_softmax=True)
    frames, classes = images()
    with torch.no_grad():
        logits = copy.deepcopy(game.network)(frames).numpy().astype(np.float64)
    once = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    twice = np.exp(once) / np.exp(once).sum(1, keepdims=True)
    truth = classes.numpy()
    chosen = [twice[n, truth[n, y, x], y, x] for n, y, x in np.argwhere(truth >= 0)]
    loss = float(game.estimator_loss(frames, classes).detach())
    assert loss == pytest.approx(-np.log(chosen).mean(), rel=1e-5)
    assert loss > -np.log(np.e / (np.e + 2)), "it never gets below the entropy of (e, 1, 1)"


def test_the_mixture_of_both_losses():
    frames, classes = images()
    alone = [float(method(ce_weight=weight).estimator_loss(frames, classes)) for weight in (0.0, 1.0)]
    mixed = float(method(ce_weight=0.3).estimator_loss(frames, classes))
    assert mixed == pytest.approx(0.7 * alone[0] + 0.3 * alone[1], rel=1e-5)


class Record(Callback):
    """Notes after each step what has moved, and how many steps there were."""

    def __init__(self) -> None:
        self.moved: list[set[str]] = []
        self.steps: list[int] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Clip, batch_idx: int) -> None:
        self.before = state(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs, batch, batch_idx: int) -> None:
        after = pl_module.state_dict()
        changed = [name for name, value in self.before.items() if not torch.equal(value, after[name])]
        self.moved.append({name.split(".")[0] for name in changed})
        self.steps.append(trainer.global_step)


def fit(game: Adversarial, root: Path, *callbacks: Callback, ckpt_path: Path | None = None, **options) -> Trainer:
    seed_everything(3, verbose=False)
    sizes = {"clip_length": 1, "batch_size": 4, "batches_per_epoch": 5, "augmentation": Augmentation(crop=16)}
    data = SequenceDataModule(str(root), train=["01"], **sizes)
    loop = Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": -1, **options},
    )
    loop.fit(game, datamodule=data, ckpt_path=ckpt_path)
    return loop


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_steps_go_in_cycles_and_each_counts(simulated, precision):
    """Over the end of an epoch, too, which comes after five batches."""
    record = Record()
    game = method(discriminator_steps=3, estimator_steps=2, optimization=Optimization("adam", 1e-3))
    loop = fit(game, simulated, record, max_steps=13, precision=precision)
    names = {"d": {"discriminator"}, "e": {"network"}}
    assert record.moved == [names[turn] for turn in "dddeedddeeddd"]
    assert record.steps == list(range(1, 14))
    assert loop.global_step == 13


def test_plain_cross_entropy_has_no_discriminator_at_all(simulated):
    record = Record()
    game = method(ce_weight=1.0)
    assert game.discriminator is None
    assert {name.split(".")[0] for name, _ in game.named_parameters()} == {"network"}
    loop = fit(game, simulated, record, max_steps=5)
    assert record.moved == [{"network"}] * 5
    assert len(loop.optimizers) == 1


def test_halves_of_a_batch_are_different_images(simulated):
    game = method()
    seen: list[Tensor] = []
    game.discriminator.register_forward_pre_hook(lambda module, given: seen.append(given[0].clone()))
    fit(game, simulated, max_steps=3)
    assert [len(frames) for frames in seen] == [2] * 5  # real, estimated, real, estimated, estimated
    for real, estimated in ((seen[0], seen[1]), (seen[2], seen[3])):
        assert not any(torch.equal(a, b) for a in real for b in estimated)


@pytest.mark.parametrize("step", [1, 2, 4, 5])
def test_a_resumed_training_goes_on_within_the_cycle(simulated, tmp_path, step):
    saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    whole = method()
    fit(whole, simulated, saving, max_steps=7)
    saved = read_checkpoint(tmp_path / f"step={step}.ckpt")
    assert len(saved["optimizer_states"]) == 2
    assert [bool(part["state"]) for part in saved["optimizer_states"]] == [step > 2, True]
    rest = method()
    record = Record()
    fit(rest, simulated, record, max_steps=7, ckpt_path=tmp_path / f"step={step}.ckpt")
    names = {"d": {"discriminator"}, "e": {"network"}}
    assert record.moved == [names[turn] for turn in "ddeddedd"[step:7]]
    assert same(state(whole), state(rest))


def test_a_checkpoint_remembers_the_method(simulated, tmp_path):
    game = method(ce_weight=0.25, decoder=ThresholdDecoder(min_size=7))
    fit(game, simulated, max_steps=1).save_checkpoint(tmp_path / "game.ckpt")
    loaded = Adversarial.load_from_checkpoint(tmp_path / "game.ckpt")
    assert loaded.decoder == ThresholdDecoder(min_size=7)
    assert loaded.hparams["ce_weight"] == 0.25
    assert same(state(game), state(loaded))


def test_the_cross_entropy_learns(simulated):
    frames, _ = images(8)
    classes = (frames[:, 0] > 0).to(torch.int8)
    game = method(ce_weight=1.0)
    optimizer = torch.optim.Adam(game.network.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = game.estimator_loss(frames, classes)
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (33, 17)])
def test_frames_of_any_size(size):
    video = method().eval().open_video(size)
    labels = video.push(torch.randn(3, 1, *size))
    labels = [*labels, *video.finish()]
    assert [(image.shape, image.dtype) for image in labels] == [(size, np.int32)] * 3


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"discriminator_steps": 0}, r"model\.discriminator_steps=0: must be at least 1"),
        ({"estimator_steps": -1}, r"model\.estimator_steps=-1"),
        ({"ce_weight": 1.5}, r"model\.ce_weight=1\.5: must be between 0 and 1"),
        ({"double_softmax": True}, r"model\.double_softmax.*model\.ce_weight"),
        ({"rib_kernels": (3,)}, "as many kernels as filters"),
        ({"rib_size": 3}, "crops of 3 pixels"),
        ({"optimization": Optimization(schedule="decay")}, r"model\.optimization: the learning rate is constant"),
        ({"network": Estimator(filters=(4, 0))}, "estimator"),
    ],
)
def test_values_that_cannot_be(wrong, words):
    with pytest.raises(InputError, match=words) as caught:
        method(**wrong)
    assert "\n" not in str(caught.value)


def test_a_rate_that_cannot_be():
    with pytest.raises(InputError, match=r"model\.optimization\.lr=0"):
        method(optimization=Optimization(lr=0.0))


def test_a_batch_of_one_has_no_halves(simulated):
    data = SequenceDataModule(str(simulated), clip_length=1, batch_size=1, augmentation=Augmentation(crop=16))
    loop = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_steps=1)
    with pytest.raises(InputError, match=r"data\.batch_size=1"):
        loop.fit(method(), datamodule=data)
    loop.fit(method(ce_weight=1.0), datamodule=data)
    assert loop.global_step == 1
