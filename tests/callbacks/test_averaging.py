"""What is averaged over a training, and how much of its beginning is kept."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_cells.callbacks.averaging import AveragedWeights
from lightning_cells.errors import InputError

DECAY, SHARE, STEPS = 0.75, 0.25, 6


class Line(LightningModule):
    """Learns by large steps, and has a number that is counted and one that is not learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.mean += batch.mean()
        self.count += 1
        return (self.layer(batch) - 1).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Seen(Callback):
    """The weights before the first step and after each."""

    def __init__(self) -> None:
        self.values: list[dict[str, Tensor]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.values.append({name: value.clone() for name, value in pl_module.state_dict().items()})

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.values.append({name: value.clone() for name, value in pl_module.state_dict().items()})


def train(folder: Path, share: float, steps: int = STEPS, go_on: Path | None = None) -> tuple[Path, Seen]:
    """Returns the last checkpoint, and the weights after each step."""
    torch.manual_seed(3)
    data = torch.rand(2 * STEPS, 2, generator=torch.Generator().manual_seed(1))
    seen = Seen()
    trainer = Trainer(
        max_epochs=steps // 3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[AveragedWeights(DECAY, share), seen, ModelCheckpoint(folder, save_last=True)],
    )
    trainer.fit(Line(), torch.utils.data.DataLoader(data[:6], batch_size=2), ckpt_path=go_on, weights_only=True)
    return folder / "last.ckpt", seen


def kept(checkpoint: Path) -> dict[str, Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


@pytest.mark.parametrize("share", [0.0, SHARE, 1.0])
def test_what_is_kept_lies_between_the_beginning_and_the_average(share: float, tmp_path: Path) -> None:
    checkpoint, seen = train(tmp_path, share)
    first, *later = seen.values
    assert len(later) == STEPS
    for name, value in kept(checkpoint).items():
        average = later[0][name]
        for newest in later[1:]:
            average = DECAY * average + (1 - DECAY) * newest[name]
        if value.is_floating_point():
            torch.testing.assert_close(value, share * first[name] + (1 - share) * average)
    assert not torch.allclose(first["layer.weight"], later[-1]["layer.weight"], atol=0.01)


def test_a_training_that_goes_on_knows_what_it_began_with(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole", SHARE)
    half, _ = train(tmp_path / "half", SHARE, STEPS // 2)
    rest, _ = train(tmp_path / "rest", SHARE, go_on=half)
    torch.testing.assert_close(kept(rest), kept(whole))


def test_one_that_goes_on_from_an_earlier_version_keeps_nothing_of_it(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole", 0.0)
    half, _ = train(tmp_path / "half", 0.0, STEPS // 2)
    rest, _ = train(tmp_path / "rest", SHARE, go_on=half)
    torch.testing.assert_close(kept(rest), kept(whole))


@pytest.mark.parametrize("options", [{"decay": 1.5}, {"beginning": -0.1}, {"beginning": 1.1}])
def test_shares_are_from_0_to_1(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="must be from 0 to 1"):
        AveragedWeights(**options)
