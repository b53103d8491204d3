"""What the training of a trial tells its worker, without a training."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_cells.experiments.tuning.mistakes import StudyMistake
from lightning_cells.experiments.tuning.reporter import Reporter


class Line:
    """Takes the place of the link: says stop after some reports."""

    def __init__(self, patience: int = 99) -> None:
        self.sent: list[dict[str, Any]] = []
        self.patience = patience

    def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def receive(self) -> dict[str, bool]:
        return {"stop": len(self.sent) >= self.patience}


def trainer(measures: dict[str, float], answer: bool | None = None, stage: str = "fit", checking: bool = False) -> Any:
    return SimpleNamespace(
        sanity_checking=checking,
        state=SimpleNamespace(fn=stage),
        callback_metrics=measures,
        strategy=SimpleNamespace(broadcast=lambda told, src: told if answer is None else answer),
        should_stop=False,
        logger=None,
    )


def validate(reporter: Reporter, *values: dict[str, float]) -> list[Any]:
    trainers = [trainer(value) for value in values]
    for one in trainers:
        reporter.on_validation_end(one, None)
    return trainers


def test_first_objective_decides_which_validation_counts() -> None:
    line = Line()
    reporter = Reporter({"val/SEG": "maximize", "val/FP": "minimize"}, line)
    validate(
        reporter,
        {"val/SEG": 0.4, "val/FP": 1.0},
        {"val/SEG": math.nan, "val/FP": 0.0},
        {"val/SEG": 0.6, "val/FP": 3.0},
        {"val/SEG": 0.6, "val/FP": 2.0},
        {"val/SEG": 0.5, "val/FP": 0.0},
    )
    assert reporter.best == {"val/SEG": 0.6, "val/FP": 3.0}, "of equal ones the first, as best.ckpt"
    assert [message["step"] for message in line.sent] == [0, 1, 2, 3, 4]
    assert line.sent[2]["report"] == {"val/SEG": 0.6, "val/FP": 3.0}


def test_less_can_be_better() -> None:
    reporter = Reporter({"val/loss": "minimize"}, Line())
    validate(reporter, {"val/loss": 0.4}, {"val/loss": 0.2}, {"val/loss": 0.3})
    assert reporter.best == {"val/loss": 0.2}


def test_what_is_never_a_number_leaves_nothing() -> None:
    reporter = Reporter({"val/SEG": "maximize"}, Line())
    validate(reporter, {"val/SEG": math.nan}, {"val/SEG": math.nan})
    assert reporter.best == {}


def test_other_validations_are_not_reported() -> None:
    line = Line()
    reporter = Reporter({"val/SEG": "maximize"}, line)
    reporter.on_validation_end(trainer({"val/SEG": 0.1}, checking=True), None)
    reporter.on_validation_end(trainer({"val/SEG": 0.1}, stage="validate"), None)
    assert (line.sent, reporter.best) == ([], {})


def test_training_ends_when_the_worker_says_so() -> None:
    reporter = Reporter({"val/SEG": "maximize"}, Line(patience=2))
    first, second = validate(reporter, {"val/SEG": 0.1}, {"val/SEG": 0.2})
    assert (first.should_stop, second.should_stop, reporter.pruned) == (False, True, True)


def test_processes_do_what_process_zero_was_told() -> None:
    """They have no link: whatever they measure, the answer is the one that is broadcast."""
    for answer in (True, False):
        other = Reporter({"val/SEG": "maximize"}, None)
        told = trainer({"val/SEG": 0.1}, answer=answer)
        other.on_validation_end(told, None)
        assert (told.should_stop, other.pruned) == (answer, answer)


def test_objective_that_is_never_logged() -> None:
    reporter = Reporter({"val/SEGG": "maximize"}, Line())
    with pytest.raises(StudyMistake, match=r"objective 'val/SEGG' is never logged: did you mean 'val/SEG'\?"):
        reporter.on_validation_end(trainer({"val/SEG": 0.1}), None)
    late = Reporter({"train/loss_epoch": "minimize"}, Line())
    validate(late, {"val/SEG": 0.1})  # it may come after the first epoch
    late.on_fit_end(trainer({"train/loss_epoch": 0.3}), None)
    never = Reporter({"unheard of": "minimize"}, Line())
    validate(never, {"val/SEG": 0.1})
    with pytest.raises(StudyMistake, match="logged are val/SEG"):
        never.on_fit_end(trainer({}), None)
