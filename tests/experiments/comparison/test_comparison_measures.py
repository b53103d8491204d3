"""Cells, intervals and verdicts of tests, by hand and against `scipy.stats.bootstrap`."""

import json

import numpy as np
import pytest
from compare_cases import COLUMNS, a_test, store, training
from scipy.stats import bootstrap

from lightning_cells.experiments.comparison.statistics import Cells, measured, read_cells, verdict, verdicts


def cells(ious: list[float], first_area: int = 50, video: str = "01") -> Cells:
    """True cells 1, 2, ... of frame 0."""
    iou = np.array(ious)
    truth = [(video, 0, label, first_area + label) for label in range(1, len(ious) + 1)]
    return Cells(truth, iou, (iou > 0.5) * 1.0, np.ones(3))


def read(rows: list[list]) -> Cells | None:
    client = store()
    run = training(client, "any")
    client.log_text(run, json.dumps({"columns": COLUMNS, "data": rows}), "test/cells.json")
    return read_cells(client, client.get_run(run))


def test_the_table_gives_seg_recall_and_precision() -> None:
    found = read(
        [
            ["01", 0, 1, 11, 30, 0.8, "matched"],
            ["01", 0, 2, 12, 31, 0.45, "matched"],  # covered, but too unlike to belong together
            ["01", 0, 3, 13, 32, 0.6, "merged"],
            ["01", 0, 4, 13, 33, 0.3, "merged"],
            ["01", 1, 1, 0, 34, 0.0, "missed"],
            ["01", 1, 0, 21, 35, 0.0, "spurious"],
            ["01", 1, 0, 22, 36, 0.0, "unknown"],
        ]
    )
    assert found is not None
    assert found.truth[3] == ("01", 0, 4, 33)
    assert found.iou.mean() == pytest.approx((0.8 + 0.45 + 0.6 + 0.3) / 5)
    assert found.found.mean() == pytest.approx(2 / 5)
    assert found.right.tolist() == [1, 0, 1, 0], "cells 11, 12, 13 and 21; where nothing is known, nothing is wrong"
    assert found.of_frame("01", 1).tolist() == [0]


@pytest.mark.parametrize("rows", [[["01", 0]], [["01", 0, "one", 1, 30, 0.8, "matched"]]])
def test_a_broken_table_is_none(rows: list[list]) -> None:
    assert read(rows) is None


def test_a_run_without_a_table_has_none() -> None:
    client = store()
    assert read_cells(client, client.get_run(training(client, "any"))) is None


def test_intervals_are_those_of_the_bootstrap_over_cells() -> None:
    ious = np.random.default_rng(2).beta(8, 2, 80).tolist()
    client = store()
    run = client.get_run(a_test(client, "a test", "none", ious))
    measures = measured(run.data.metrics, read_cells(client, run))
    expected = bootstrap((ious,), np.mean, method="percentile", rng=np.random.default_rng(1)).confidence_interval
    low, high = measures["SEG"].interval[1:]
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.003)
    assert measures["SEG"].whole
    assert str(measures["SEG"]) == f"{np.mean(ious):.3f} [{low:.3f}, {high:.3f}]"
    assert measures["DET"].interval is None
    assert str(measures["DET"]) == "0.970"


def test_a_table_that_lacks_cells_is_noticed() -> None:
    client = store()
    run = client.get_run(a_test(client, "a test", "none", [0.5, 0.6, 0.7], seg=0.9))
    assert not measured(run.data.metrics, read_cells(client, run))["SEG"].whole


def test_a_measure_that_is_nowhere_is_left_out() -> None:
    assert measured({"test/SEG": 0.5, "test/TRA": float("nan"), "val/DET": 1.0}, None).keys() == {"SEG"}


def test_a_small_gain_on_every_cell_is_decided_and_a_mixed_one_is_not() -> None:
    base = np.linspace(0.5, 0.95, 40)
    other = base + np.where(np.arange(40) % 2, 0.05, -0.05)
    gain = verdict("SEG", ("A", cells((base + 0.01).tolist())), ("B", cells(base.tolist())))
    assert gain.words == "A beats B"
    assert gain.difference.mean == pytest.approx(0.01)
    assert verdict("SEG", ("B", cells(base.tolist())), ("A", cells((base + 0.01).tolist()))).words == "A beats B"
    assert verdict("SEG", ("A", cells(other.tolist())), ("B", cells(base.tolist()))).words == "undecided"
    assert verdict("SEG", ("A", cells(base.tolist())), ("B", cells(base.tolist()))).words == "undecided"


def test_only_cells_that_both_have_are_compared() -> None:
    few = cells([0.9, 0.9, 0.9])
    many = cells([0.5, 0.5, 0.5, 1.0, 1.0, 1.0])
    found = verdict("SEG", ("few", few), ("many", many))
    assert found.cells == 3
    assert found.difference.mean == pytest.approx(0.4), "the other cells have no say"
    assert found.words == "few beats many"


@pytest.mark.parametrize("other", [cells([0.1] * 4, first_area=90), cells([0.1] * 4, video="02"), cells([])])
def test_runs_on_other_data_are_not_compared(other: Cells) -> None:
    found = verdict("SEG", ("A", cells([0.9] * 4)), ("B", other))
    assert found.difference is None
    assert "different cells" in found.words


def test_each_pair_is_judged_by_seg_and_by_recall() -> None:
    found = verdicts([(name, cells([0.9, 0.8])) for name in "ABC"])
    assert [(v.measure, v.first, v.second) for v in found] == [
        (measure, *pair) for measure in ("SEG", "R") for pair in ("AB", "AC", "BC")
    ]
