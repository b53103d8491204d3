"""What a training tells another process, and that it ends when it is told to, without a training."""

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from lightning_cells.callbacks.pruning import Pruning


class Listener:
    """Says stop after some validations."""

    def __init__(self, patience: int = 99) -> None:
        self.heard: list[Mapping[str, Any]] = []
        self.patience = patience

    def __call__(self, message: Mapping[str, Any]) -> bool:
        self.heard.append(message)
        return message["step"] + 1 >= self.patience


def trainer(measures: dict[str, float], answer: bool | None = None, stage: str = "fit", checking: bool = False) -> Any:
    return SimpleNamespace(
        sanity_checking=checking,
        state=SimpleNamespace(fn=stage),
        callback_metrics=measures,
        strategy=SimpleNamespace(broadcast=lambda told, src: told if answer is None else answer),
        should_stop=False,
        logger=None,
        checkpoint_callback=None,
    )


def test_each_validation_is_told_in_its_place() -> None:
    listener = Listener()
    pruning = Pruning(listener)
    pruning.on_fit_start(trainer({}), None)
    for value in (0.4, math.nan, 0.6):
        pruning.on_validation_end(trainer({"val/SEG": value}), None)
    pruning.on_fit_end(trainer({"val/SEG": 0.6, "train/loss_epoch": 0.3}), None)
    assert [message["step"] for message in listener.heard] == [-1, 0, 1, 2]
    assert [message["measures"] for message in listener.heard[::3]] == [{}, {"val/SEG": 0.6}]
    assert pruning.logged == {"val/SEG": 0.6, "train/loss_epoch": 0.3}


def test_other_validations_are_not_told() -> None:
    listener = Listener()
    pruning = Pruning(listener)
    pruning.on_validation_end(trainer({"val/SEG": 0.1}, checking=True), None)
    pruning.on_validation_end(trainer({"val/SEG": 0.1}, stage="validate"), None)
    assert listener.heard == []


def test_training_ends_when_it_is_told_to() -> None:
    pruning = Pruning(Listener(patience=2))
    pruning.on_fit_start(trainer({}), None)
    first, second = trainer({"val/SEG": 0.1}), trainer({"val/SEG": 0.2})
    for one in (first, second):
        pruning.on_validation_end(one, None)
    assert (first.should_stop, second.should_stop, pruning.stopped) == (False, True, True)


def test_processes_do_what_process_zero_was_told() -> None:
    """They have nobody to ask: whatever they measure, the answer is the one that is broadcast."""
    for answer in (True, False):
        other = Pruning(None)
        told = trainer({"val/SEG": 0.1}, answer=answer)
        other.on_validation_end(told, None)
        assert (told.should_stop, other.stopped) == (answer, answer)
