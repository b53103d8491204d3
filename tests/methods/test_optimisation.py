"""Optimisers and schedules, by hand."""

import math

import pytest
import torch
from torch.nn import Parameter, ParameterList
from torch.optim import Optimizer

from lightning_cells.errors import InputError
from lightning_cells.methods.optimisation import Optimization, schedule


def optimiser(parameter: Parameter, *args, **kwargs) -> Optimizer:
    return Optimization(*args, **kwargs).start(ParameterList([parameter]))


def rates(name, steps: int, warm_up: float, run: int | None = None) -> list[float]:
    """The learning rate at each step, of a peak of 2."""
    chosen = optimiser(Parameter(torch.zeros(1)), "adam", 2.0)
    course = schedule(chosen, name, steps, warm_up)
    found = []
    for _ in range(run or steps):
        found.append(chosen.param_groups[0]["lr"] / 2)
        chosen.step()
        course.step()
    return found


def test_constant():
    assert rates("constant", 5, 0.0) == [1, 1, 1, 1, 1]


def test_warm_up_rises_from_four_percent():
    assert rates("constant", 10, 0.4) == pytest.approx([0.04, 0.28, 0.52, 0.76, 1, 1, 1, 1, 1, 1])


def test_decay_falls_over_the_last_fifth():
    assert rates("decay", 20, 0.0) == pytest.approx([1.0] * 17 + [0.75, 0.5, 0.25])
    assert rates("decay", 20, 0.0, run=23)[20:] == pytest.approx([0.01] * 3)
    assert rates("decay", 10, 0.2) == pytest.approx([0.04, 0.52, 1, 1, 1, 1, 1, 1, 1, 0.5])


def test_tenth_from_the_middle_on():
    assert rates("tenth", 6, 0.0, run=8) == pytest.approx([1.0] * 3 + [0.1] * 5)
    assert rates("tenth", 5, 0.0) == pytest.approx([1.0] * 3 + [0.1] * 2)


def test_one_cycle_is_a_half_cosine():
    found = rates("one_cycle", 10, 0.2, run=12)
    assert found[:2] == pytest.approx([0.04, 0.52])
    assert found[2] == pytest.approx(1)
    assert found[6] == pytest.approx(0.01 + 0.99 / 2)
    assert found[2:11] == sorted(found[2:11], reverse=True)
    assert found[10:] == pytest.approx([0.01, 0.01])
    assert rates("one_cycle", 3, 1 / 3) == pytest.approx([0.04, 1, 0.01 + 0.99 / 2])


def test_without_a_known_end_the_rate_can_only_stay():
    assert rates("constant", math.inf, 0.0, run=3) == [1, 1, 1]
    for name, warm_up in (("decay", 0.0), ("one_cycle", 0.0), ("constant", 0.1)):
        with pytest.raises(InputError, match=r"trainer\.max_epochs"):
            rates(name, math.inf, warm_up, run=3)


def test_rmsprop_is_that_of_tensorflow():
    """One step by hand: mean square 0.1 g^2, the epsilon of no account."""
    weight = Parameter(torch.tensor([3.0]))
    chosen = optimiser(weight, "rmsprop", 0.5)
    weight.grad = torch.tensor([4.0])
    chosen.step()
    assert weight.item() == pytest.approx(3 - 0.5 * 4 / math.sqrt(0.1 * 16))


def test_amsgrad_divides_by_the_largest_second_moment():
    """Adam's own formula, with the maximum over the steps so far, where the gradient falls."""
    weight, expected = Parameter(torch.tensor([3.0], dtype=torch.float64)), 3.0
    chosen = optimiser(weight, "amsgrad", 0.5)
    first = second = largest = 0.0
    for step, gradient in enumerate([8.0, 0.1, 0.1, 0.1], start=1):
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        chosen.step()
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        largest = max(largest, second)
        expected -= 0.5 * (first / (1 - 0.9**step)) / (math.sqrt(largest / (1 - 0.999**step)) + 1e-8)
    assert largest > second  # or the case would say nothing
    assert weight.item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["adam", "amsgrad", "rmsprop"])
def test_weight_decay_is_a_term_of_the_loss(name):
    plain, decayed = Parameter(torch.tensor([[3.0]])), Parameter(torch.tensor([[3.0]]))
    one, other = optimiser(plain, name, 0.1), optimiser(decayed, name, 0.1, weight_decay=0.2)
    for _ in range(3):
        plain.grad = torch.tensor([[1.0]]) + 0.2 * plain.detach()
        decayed.grad = torch.tensor([[1.0]])
        one.step()
        other.step()
    torch.testing.assert_close(plain, decayed)


def test_biases_do_not_decay():
    bias = Parameter(torch.tensor([3.0]))
    chosen = optimiser(bias, "adam", 0.1, weight_decay=0.2)
    bias.grad = torch.tensor([0.0])
    chosen.step()
    assert bias.item() == 3.0


@pytest.mark.parametrize("lr", [0.0, -1.0])
def test_a_learning_rate_is_positive(lr):
    with pytest.raises(InputError, match=r"model\.optimization\.lr"):
        Optimization(lr=lr)


def test_halving_is_every_sixth():
    """Of 300 epochs of two steps: every 50."""
    assert rates("halving", 600, 0.0) == pytest.approx([0.5 ** (step // 100) for step in range(600)])
    assert rates("halving", 12, 0.0, run=14)[11:] == pytest.approx([1 / 32] * 3)
