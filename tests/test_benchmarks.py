"""What the benchmarks' results rest on: the plain networks, turns, and tables that are read back."""

import sys
from pathlib import Path

import pytest
import torch

from lightning_cells.networks.hourglass import StackedHourglass
from lightning_cells.networks.ulstm import ULSTM

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in ("harness", "plain", "record"):
        sys.modules.pop(name, None)


def test_plain_networks_compute_the_same():
    import plain

    torch.manual_seed(0)
    clip = torch.randn(2, 3, 1, 33, 20)
    with torch.no_grad():
        hourglass = StackedHourglass(4, 3, 5)
        torch.testing.assert_close(plain.PlainRSHN(hourglass)(clip)[0], hourglass(clip)[0], rtol=1e-4, atol=1e-4)
        for norm in ("none", "group"):
            network = ULSTM((4, 6), lstm_kernel=3, norm=norm).eval()
            torch.testing.assert_close(
                plain.PlainULSTM(network).eval()(clip)[0], network(clip)[0], rtol=1e-4, atol=1e-4
            )


def test_variants_take_turns_after_a_round_to_warm_up():
    import harness

    calls = []
    times = harness.take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert len(times["a"].cpu) == len(times["b"].wall) == 2


def test_targets_are_found_in_what_was_printed(capsys):
    import harness
    import record

    print("### One\n")
    harness.table(["", "ms"], [["ours", "1.0"]])
    harness.print_targets(
        [harness.Target("speed", 10, 9.996), harness.Target("memory", 100, 120, "MB", at_least=False)]
    )
    first, second = record.tables(capsys.readouterr().out)
    assert first == {"heading": "One", "columns": ["", "ms"], "rows": [["ours", "1.0"]]}
    assert second["columns"] == ["target", "wanted", "measured", "met"]
    assert second["rows"] == [["speed", "at least 10 x", "10 x", "yes"], ["memory", "at most 100 MB", "120 MB", "no"]]
