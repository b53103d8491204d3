"""Checkpoint files are whole at any time, and a full disk ends no training."""

import os
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from run_cases import NO_RUN, assert_same, die, in_child, words

from lightning_cells.callbacks import checkpoint as module
from lightning_cells.callbacks.checkpoint import AtomicCheckpointIO
from lightning_cells.cli import main
from lightning_cells.cli.training import TrainingCLI

Capture = pytest.CaptureFixture[str]


class Disk:
    """Is full while it is told so; counts what could not be written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self.refused = 0
        write = module._write

        def guarded(path: Path, content: memoryview) -> None:
            if self.full:
                self.refused += 1
                raise OSError(28, "No space left on device")
            write(path, content)

        monkeypatch.setattr(module, "_write", guarded)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_full_disk_leaves_the_checkpoint_before(disk: Disk, tmp_path: Path, capfd: Capture) -> None:
    plugin, path = AtomicCheckpointIO(), tmp_path / "below" / "last.ckpt"
    plugin.save_checkpoint({"step": 1, "weights": torch.ones(1000)}, path)
    disk.full = True
    plugin.save_checkpoint({"step": 2, "weights": torch.ones(100_000)}, path)
    plugin.save_checkpoint({"step": 3, "weights": torch.ones(100_000)}, path)
    assert plugin.failure is not None
    assert (plugin.failure.errno, plugin.failure.filename) == (28, str(path))
    said = capfd.readouterr().err
    assert said.count("\n") == 1, "told once, not at each step"
    assert str(path) in said
    assert plugin.load_checkpoint(path)["step"] == 1
    assert [path.name for path in path.parent.iterdir()] == ["last.ckpt"], "no half of one"
    disk.full = False
    plugin.save_checkpoint({"step": 3}, path)
    assert plugin.failure is None
    assert plugin.load_checkpoint(path)["step"] == 3


def test_kill_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    plugin = AtomicCheckpointIO()
    plugin.save_checkpoint({"step": 1}, path)

    def killed(function: str) -> None:
        setattr(os, function, lambda *args: die())
        plugin.save_checkpoint({"step": 2}, path)

    for function in ("fsync", "replace"):
        assert in_child(lambda name=function: killed(name)) == -9
        assert torch.load(path, weights_only=True) == {"step": 1}
    assert len(list(tmp_path.glob(".last.ckpt.*.tmp"))) == 2


def test_what_killed_trainings_left_is_removed(simulated: Path, home: Path) -> None:
    folder = home / "checkpoints/unlogged"
    folder.mkdir(parents=True)
    (folder / ".last.ckpt.123-abc.tmp").write_bytes(b"half")
    (folder / "mine.txt").write_text("kept")
    assert main(words(simulated, *NO_RUN, "--trainer.max_epochs", "1")) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt", "mine.txt"]


class FullInEpoch(Callback):
    """Fills the disk for one epoch."""

    def __init__(self, disk: Disk, epoch: int) -> None:
        self.disk = disk
        self.epoch = epoch
        self.scores: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.disk.full = trainer.current_epoch == self.epoch

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.scores.append(float(trainer.callback_metrics["val/SEG"]))


def train(callback: Callback, monkeypatch: pytest.MonkeyPatch, line: list[str]) -> Trainer:
    make = TrainingCLI._instantiate_trainer
    with monkeypatch.context() as patch:
        patch.setattr(TrainingCLI, "_instantiate_trainer", lambda cli, config, own: make(cli, config, [callback, *own]))
        return TrainingCLI(line).trainer


def test_training_goes_on_while_the_disk_is_full(
    disk: Disk, simulated: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is then the best is the best that could be written."""
    line = words(simulated, *NO_RUN, "--trainer.max_epochs", "3")
    unbroken = home / "unbroken"
    assert main([*line, "--checkpoint.folder", str(unbroken)]) == 0
    full = FullInEpoch(disk, epoch=1)
    trainer = train(full, monkeypatch, line)
    assert disk.refused > 0
    folder = home / "checkpoints/unlogged"
    assert_same(folder / "last.ckpt", unbroken / "last.ckpt")
    saved = torch.load(folder / "best.ckpt", weights_only=True)
    written = {4: full.scores[0], 12: full.scores[2]}
    assert saved["global_step"] == max(written, key=lambda step: (written[step], -step))
    assert float(trainer.checkpoint_callback.best_model_score) == pytest.approx(max(written.values()))
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_result_that_cannot_be_written_is_an_error(
    disk: Disk, simulated: Path, home: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Always(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            disk.full = True

    make = TrainingCLI._instantiate_trainer
    patched = "_instantiate_trainer"
    monkeypatch.setattr(TrainingCLI, patched, lambda cli, config, own: make(cli, config, [Always(), *own]))
    assert main(words(simulated, *NO_RUN, "--trainer.max_epochs", "1")) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("lightning-cells fit: error:")
    assert "last.ckpt: No space left on device" in last


def test_last_is_the_last_and_best_the_best(simulated: Path, home: Path) -> None:
    """Also after epochs that are not the best: Lightning leaves the last as it was then."""
    line = words(simulated, *NO_RUN, "--trainer.max_epochs", "3", "--checkpoint.monitor", "epoch")
    assert main([*line, "--checkpoint.mode", "min"]) == 0
    steps = {
        name: torch.load(home / f"checkpoints/unlogged/{name}.ckpt", weights_only=True)["global_step"]
        for name in ("best", "last")
    }
    assert steps == {"best": 4, "last": 12}
