"""A training step never waits for the device: from the batch to the optimiser nothing asks for a value.

On a CPU there is nothing to wait for, so what would wait on a GPU is told by the operations: those whose result, or its
size, must be known on the host.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from waits import Waits

from lightning_cells.callbacks.averaging import AveragedWeights
from lightning_cells.cli.resolving import Resolver


class Watch(Callback):
    """Watches all steps but the first, which makes what is there once, up to their optimiser's own part."""

    def __init__(self) -> None:
        self.waits = Waits()
        self._watching = False
        self.steps = 0

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        if self.steps:
            self.waits.__enter__()
            self._watching = True
        self.steps += 1

    def on_before_optimizer_step(self, *args: Any) -> None:
        if self._watching:
            self.waits.__exit__(None, None, None)
            self._watching = False


@pytest.mark.parametrize("preset", ["ulstm/tiny", "gruunet/tiny", "rshn/tiny", "adversarial/tiny", "brightfield/tiny"])
def test_no_step_waits(preset: str, simulated: Path) -> None:
    words = ["-c", f"conf/method/{preset}.yaml", "--data.root", str(simulated), "--data.augmentation.crop", "48"]
    if preset.startswith("brightfield"):
        words += ["--model.loss", "ThreeClass", "--data.balance", "uniform"]
    built = Resolver().build(words)
    watch = Watch()
    trainer = Trainer(
        max_steps=3,
        callbacks=[watch],
        accelerator="cpu",
        logger=False,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(built.model, built.data)
    assert watch.steps == 3
    assert watch.waits.found == []


def test_what_waits_is_found() -> None:
    values = torch.arange(4.0)
    for ask in (
        lambda: values.sum().item(),
        lambda: values[values > 1],
        lambda: values.nonzero(),
        lambda: values.unique(),
        lambda: bool(values.any()),
    ):
        with Waits() as waits:
            ask()
        assert waits.found


def test_averaged_weights_are_where_the_network_is_and_counted_on_the_cpu(simulated: Path) -> None:
    """On the device "meta", which has no values that could be asked for."""
    network = torch.nn.Linear(3, 2)

    class Method(torch.nn.Module):
        device = torch.device("meta")

    callback = AveragedWeights(decay=0.9)
    callback._average_model = torch.optim.swa_utils.AveragedModel(network)
    callback.on_fit_start(None, Method())  # type: ignore[arg-type]
    assert {p.device.type for p in callback._average_model.module.parameters()} == {"meta"}
    assert callback._average_model.n_averaged.device.type == "cpu"
    callback._average_model.update_parameters(network.to("meta"))
    callback._average_model.update_parameters(network)
    assert int(callback._average_model.n_averaged) == 2
