"""The adversarial game on two real processes, under plain ddp; what hangs is killed."""

import copy
import os
from pathlib import Path

import pytest
import torch
import yaml
from cli_cases import NO_RUN, QUIET, run_python

from lightning_cells.methods import Adversarial
from lightning_cells.methods.optimisation import Optimization
from lightning_cells.networks.architectures import Estimator

NETWORK = {"filters": (6, 6), "kernels": (5, 4)}
GAME = {"rib_filters": (4, 4), "rib_kernels": (3, 3), "rib_size": 16, "discriminator_steps": 2, "estimator_steps": 1}

# A callback for the processes, written where they can import it: keeps the clips of each, and what came of them.
RECORD = """
import copy
from pathlib import Path

import torch
from lightning.pytorch import Callback

class Keep(Callback):
    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.clips = []

    def on_train_start(self, trainer, pl_module) -> None:
        self.start = copy.deepcopy(pl_module.state_dict())

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.clips.append((batch.frames, batch.target["classes"]))

    def on_fit_end(self, trainer, pl_module) -> None:
        kept = {"world": trainer.world_size, "step": trainer.global_step, "strategy": type(trainer.strategy).__name__}
        kept |= {"clips": self.clips, "start": self.start, "end": pl_module.state_dict()}
        torch.save(kept, self.folder / f"{trainer.global_rank}.pt")
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are trying to .self.log")  # the plain loop has no trainer
@pytest.mark.parametrize("ce_weight", [0.0, 1.0])
def test_two_processes_play_one_game(
    ce_weight: float, simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have the same weights: those of a plain loop over their batches that averages the gradients."""
    (tmp_path / "ddp_keep.py").write_text(RECORD)
    config = {"class_path": "ddp_keep.Keep", "init_args": {"folder": str(tmp_path)}}
    (tmp_path / "keep.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [config]}}))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    sizes = {**{f"network.{name}": value for name, value in NETWORK.items()}, **GAME, "ce_weight": ce_weight}
    sizes |= {"optimizer": "rmsprop", "lr": 1e-3}
    words = ["-c", "conf/method/adversarial/tiny.yaml", "-c", tmp_path / "keep.yaml", *QUIET, *NO_RUN]
    words += [f"--model.{name}={list(value) if isinstance(value, tuple) else value}" for name, value in sizes.items()]
    words += ["--data.root", simulated, "--data.train", "['01', '02']", "--data.batch_size", "4"]
    words += ["--data.augmentation.crop", "16", "--trainer.max_steps", "7"]
    said = run_python(
        "-m", "lightning_cells", "fit", *words, "--trainer.devices", "2", "--trainer.strategy", "ddp", limit=200
    )
    assert said.status == 0, said.err[-3000:]
    assert "error" not in said.err.lower()
    assert "recommended" not in said.err

    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for kept in (first, second):
        assert [kept[key] for key in ("world", "step", "strategy")] == [2, 7, "DDPStrategy"]
    assert not any(torch.equal(a, b) for (a, _), (b, _) in zip(first["clips"], second["clips"], strict=True))
    method = Adversarial(Estimator(**NETWORK), **GAME, ce_weight=ce_weight, optimization=Optimization("rmsprop", 1e-3))
    method.load_state_dict(first["start"])
    expected = plain_loop(method, first["clips"], second["clips"])
    without_effect = {"network.0.bias", "network.4.bias"}  # batch norm takes the mean away: their gradient is noise
    assert without_effect < expected.keys()
    for name, value in expected.items():
        assert torch.equal(first["end"][name], second["end"][name]), name
        if name not in without_effect:
            torch.testing.assert_close(first["end"][name], value, rtol=0, atol=3e-5, msg=name)
            assert (value - first["start"][name]).abs().max() > 1e-3, name


def plain_loop(method: Adversarial, *batches: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Weights after the steps that two processes made, each with its own batches."""
    method.train()
    copies = [method, copy.deepcopy(method)]
    alone = method.discriminator is None
    optimizers = [torch.optim.RMSprop(one.parameters(), lr=1e-3, alpha=0.9, eps=1e-8) for one in copies]
    for step, pair in enumerate(zip(*batches, strict=True)):
        for one, (clip, target) in zip(copies, pair, strict=True):
            one.zero_grad()
            frames, classes = clip.flatten(0, 1), target.flatten(0, 1)
            if alone or step % 3 == 2:
                one.estimator_loss(frames[:2], classes[:2]).backward()
            else:
                one.discriminator_loss(frames[:2], classes[:2], frames[2:], classes[2:]).backward()
        for ours, others in zip(*(one.parameters() for one in copies), strict=True):
            if ours.grad is not None:
                ours.grad = others.grad = (ours.grad + others.grad) / 2
        for optimizer in optimizers:
            optimizer.step()
    return {name: value.detach() for name, value in method.named_parameters()}
