"""Runs by id and by name, with what belongs to them."""

import re

import pytest
from compare_cases import HOSTILE, a_test, store, training

from lightning_cells.errors import InputError
from lightning_cells.experiments.comparison.runs import select


def test_runs_are_found_by_id_and_by_name_in_any_experiment() -> None:
    client = store()
    first, second = training(client, "first"), training(client, "second's", experiment="another")
    found = select(client, [first, "second's"])
    assert [chosen.run.info.run_id for chosen in found] == [first, second]
    assert [chosen.label for chosen in found] == ["first", "second's"]
    assert [chosen.test for chosen in found] == [None, None]


def test_a_training_comes_with_its_test_and_a_test_with_its_training() -> None:
    client = store()
    trained, other = training(client, "trained"), training(client, "other")
    a_test(client, "old", trained, [0.5])
    newest = a_test(client, "new", trained, [0.5])
    lost = a_test(client, "of a lost training", "0" * 32, [0.5])
    by_training, by_test, without, alone = select(client, [trained, "old", other, lost])
    assert by_training.test.info.run_id == newest
    assert by_test.training.info.run_id == trained
    assert by_test.test.info.run_name == "old"
    assert without.test is None
    assert alone.training is None


def test_a_training_that_holds_its_measures_is_its_own_test() -> None:
    client = store()
    run = training(client, "both")
    client.log_metric(run, "test/SEG", 0.8)
    both, _ = select(client, [run, training(client, "other")])
    assert both.test.info.run_id == both.training.info.run_id == run
    later = a_test(client, "with a table of cells", run, [0.8])
    assert select(client, [run, "other"])[0].test.info.run_id == later


def test_runs_of_one_name_are_told_apart() -> None:
    client = store()
    ids = [training(client, "same"), training(client, "same")]
    assert [chosen.label for chosen in select(client, ids)] == [f"same ({run[:6]})" for run in ids]
    with pytest.raises(InputError, match="2 runs are named 'same'.*" + re.escape(ids[0])):
        select(client, ["same", ids[0]])


@pytest.mark.parametrize("name", ["nobody", "", "two\nlines", HOSTILE, "both ' and \"", "x' OR 1=1 --"])
def test_an_unknown_run_is_told_in_one_line(name: str) -> None:
    client = store()
    with pytest.raises(InputError, match="has no run") as told:
        select(client, [training(client, "known"), name])
    assert "\n" not in str(told.value)


def test_one_run_is_no_comparison() -> None:
    client = store()
    run = training(client, "alone")
    with pytest.raises(InputError, match="two or more"):
        select(client, [run])
    with pytest.raises(InputError, match="given twice"):
        select(client, [run, "alone"])
