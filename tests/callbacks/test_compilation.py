"""A training with a compiled network is the same training; videos are evaluated by the network as it is."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import Tensor, nn

from lightning_cells.callbacks.compilation import CompiledNetwork
from lightning_cells.cli.resolving import Resolver


class Backend:
    """Runs what it is given as it is, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Any:
        def run(*args: Tensor) -> Any:
            self.calls += 1
            return graph.forward(*args)

        return run


class Calls(Callback):
    """How often compiled code ran up to the beginning, and the end, of each validation."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.before: list[int] = []
        self.after: list[int] = []

    def on_validation_start(self, *args: Any) -> None:
        self.before.append(self._backend.calls)

    def on_validation_end(self, *args: Any) -> None:
        self.after.append(self._backend.calls)


def trained(data: Path, *callbacks: Callback) -> nn.Module:
    seed_everything(1)
    words = ["-c", "conf/method/ulstm/tiny.yaml", "--model.channels", "[4, 8]", "--data.root", str(data)]
    words += ["--data.train", "['01']", "--data.val", "['02']"]
    words += ["--data.augmentation.crop", "32", "--data.clip_length", "2"]
    built = Resolver().build([*words, "--data.batches_per_epoch", "2"])
    trainer = Trainer(
        max_epochs=2,
        callbacks=list(callbacks),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(built.model, built.data)
    return built.model.network


def test_a_compiled_training_is_the_same(simulated: Path) -> None:
    backend = Backend()
    calls = Calls(backend)
    compiled = trained(simulated, CompiledNetwork(backend=backend), calls)
    plain = trained(simulated)
    assert backend.calls >= 4, "all steps"
    assert calls.before[0] >= 2
    assert calls.before == calls.after, "no video"
    assert calls.before[0] < calls.before[1], "the steps after a validation, too"
    theirs = plain.state_dict()
    assert list(compiled.state_dict()) == list(theirs), "a checkpoint is that of any training"
    for name, weight in compiled.state_dict().items():
        torch.testing.assert_close(weight, theirs[name], msg=name)
