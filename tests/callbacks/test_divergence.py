"""A training that diverges ends with one line, as FAILED, and keeps no weights of NaN."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_cases import client, the_run, words

from lightning_cells.cli import main
from lightning_cells.methods import ULSTM

Capture = pytest.CaptureFixture[str]


def breaking(method: type, step: int, value: float, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Multiplies the loss of one step, counted from 0, by a number; returns the losses of the steps before."""
    right: Callable[..., Any] = method.training_step
    losses: list[float] = []

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = right(self, *args, **kwargs)
        if len(losses) == step:
            return loss * value
        losses.append(float(loss))
        return loss

    monkeypatch.setattr(method, "training_step", training_step)
    return losses


def told(capfd: Capture) -> str:
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
    assert line.startswith("lightning-cells fit: error: the training has diverged: ")
    return line


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_training(
    value: float, simulated: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    losses = breaking(ULSTM, 6, value, monkeypatch)
    assert main(words(simulated, "--trainer.log_every_n_steps", "100", "--trainer.max_epochs", "9")) == 2
    assert "in step 6 (epoch 2) the loss is NaN or infinite" in told(capfd)
    run = the_run(home)
    assert run.info.status == "FAILED"
    assert run.data.tags["diverged"] == "step 6 (epoch 2): the loss"
    (point,) = client(home).get_metric_history(run.info.run_id, "train/loss_step")
    assert (point.step, point.value) == (5, pytest.approx(losses[5]))
    folder = home / "checkpoints" / run.info.run_id
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"], "of the first epoch"
    for path in folder.iterdir():
        content = torch.load(path, weights_only=True)
        assert content["global_step"] == 4
        assert all(weight.isfinite().all() for weight in content["state_dict"].values())


def test_weights_of_nan_are_not_kept(
    simulated: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    """They are spoilt after the last loss of an epoch, before its checkpoint."""
    right: Callable[..., Any] = ULSTM.validation_step

    def validation_step(self: ULSTM, *args: Any) -> Any:
        with torch.no_grad():
            next(self.network.parameters()).fill_(float("nan"))
        return right(self, *args)

    monkeypatch.setattr(ULSTM, "validation_step", validation_step)
    assert main(words(simulated)) == 2
    assert "network." in told(capfd)
    assert the_run(home).info.status == "FAILED"
    assert not list(home.rglob("*.ckpt"))


@pytest.mark.parametrize("method", ["ulstm", "rshn", "adversarial"])
def test_a_rate_that_is_far_too_high(method: str, simulated: Path, home: Path, capfd: Capture) -> None:
    preset = ["-c", f"conf/method/{method}/tiny.yaml"]
    assert main(words(simulated, "--model.lr", "1e30", "--model.schedule", "constant", method=preset)) == 2
    told(capfd)
    assert the_run(home).info.status == "FAILED"
    assert not list(home.rglob("best.ckpt"))
