"""Short names of options, on the command line and in checkpoints and files of earlier versions."""

import pytest

from lightning_cells.methods import RSHN, ULSTM, Adversarial, BrightField, GRUUNet
from lightning_cells.methods.short_options import complete, complete_model, complete_option

LOSSES = "lightning_cells.methods.objectives"


@pytest.mark.parametrize(
    ("method", "name", "value", "full"),
    [
        (ULSTM, "lr", "1e-3", ("optimization.lr", "1e-3")),
        (RSHN, "weight_decay", "0", ("optimization.weight_decay", "0")),
        (ULSTM, "loss", "two_class", ("loss", f"{LOSSES}.TwoClass")),
        (ULSTM, "loss", "my_lab.Dice", ("loss", "my_lab.Dice")),
        (ULSTM, "border_weight", "3", ("loss.border_weight", "3")),
        (GRUUNet, "classes", "3", ("loss.classes", "3")),
        (GRUUNet, "gamma", "1", ("loss.gamma", "1")),
        (BrightField, "target", "three_class", ("loss", f"{LOSSES}.ThreeClass")),
        (BrightField, "l2", "1e-4", ("optimization.weight_decay", 2e-4)),
        (Adversarial, "contour", "outer", ("loss.contour", "outer")),
        (ULSTM, "network.width", "3", ("network.width", "3")),
        (ULSTM, "optimization.lr", "3", ("optimization.lr", "3")),
    ],
)
def test_a_short_name_stands_for_the_option_of_a_part(method: type, name: str, value: str, full: tuple) -> None:
    assert complete_option(method, name, value) == full


def test_a_method_that_has_such_an_option_itself_keeps_it() -> None:
    class Mine:
        def __init__(self, lr: float, loss: str, gamma: float) -> None: ...

    options = {"lr": 1.0, "loss": "hinge", "gamma": 2.0}
    assert complete(Mine, options) == options


def test_of_the_settings_of_losses_those_of_the_chosen_one_are_taken() -> None:
    every = {"class_weights": [1, 2, 3], "contour": "outer", "border_weight": 5.0, "border_sigma": 3.0, "norm": "group"}
    two = {"class_path": f"{LOSSES}.TwoClass", "init_args": {"border_weight": 5.0, "border_sigma": 3.0}}
    assert complete(ULSTM, {"loss": "two_class", **every}) == {"loss": two, "norm": "group"}
    three = {"class_path": f"{LOSSES}.ThreeClass", "init_args": {"class_weights": [1, 2, 3], "contour": "outer"}}
    assert complete(ULSTM, {**every, "loss": "three_class"}) == {"loss": three, "norm": "group"}


def test_parts_and_short_names_go_together() -> None:
    assert complete(RSHN, {"lr": 1, "optimization": {"schedule": "tenth"}}) == {
        "optimization": {"lr": 1, "schedule": "tenth"}
    }


def test_a_configuration_without_a_method_is_of_the_one_that_is_known() -> None:
    short, full = {"init_args": {"lr": 1}}, {"init_args": {"optimization": {"lr": 1}}}
    assert complete_model(short) == short
    assert complete_model(short, ULSTM) == full
    assert complete_model({"lr": 1}, ULSTM) == full["init_args"]
    named = {"class_path": "lightning_cells.methods.ULSTM"}
    assert complete_model(named | short) == named | full
    assert complete_model({"class_path": "my_lab.Nothing", **short}) == {"class_path": "my_lab.Nothing", **short}
    assert complete_model("ULSTM") == "ULSTM"
