"""What the benchmarks' results rest on: the plain networks, turns, presets, and tables that are read back."""

import json
import os
import subprocess
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
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "").parent == FOLDER:
            sys.modules.pop(name)


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


METHODS = ["rshn/tiny", "ulstm/tiny", "gruunet/tiny", "adversarial/tiny", "brightfield/tiny", "rshn/paper"]


@pytest.mark.parametrize("preset", METHODS)
def test_presets_are_built_as_the_command_line_builds_them(preset, simulated):
    import gpu_presets

    from lightning_cells.cli.resolving import Resolver

    words = ["--model.loss", "ThreeClass", "--data.balance", "uniform"] if preset.startswith("brightfield") else []
    built = Resolver().build(["-c", f"conf/method/{preset}.yaml", "--data.root", str(simulated), *words])
    said = gpu_presets.settings(f"method/{preset}")
    if words:
        said["model"]["init_args"]["loss"] = {"class_path": "lightning_cells.methods.objectives.ThreeClass"}
        said["data"]["balance"] = "uniform"
    method, data = gpu_presets.method_of(said), gpu_presets.data_of(said, simulated)
    assert plain(method.hparams) == plain(built.model.hparams)
    assert plain(data.hparams) == plain(built.data.hparams)
    assert data.augmentation == built.data.augmentation


def plain(value):
    """Mappings and sequences without their kinds."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items() if name != "_instantiator"}
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


def test_operations_are_those_of_the_convolutions():
    import gpu_steps

    method, data = gpu_steps.prepared("gruunet", "tiny")
    seen = []
    convolutions = [part for part in method.modules() if isinstance(part, torch.nn.Conv2d)]
    for layer in convolutions:
        layer.register_forward_hook(lambda layer, _, out: seen.append((layer, out.numel())))
    clip = gpu_steps.batch(method, data, data["batch_size"], "cpu")
    clip = clip._replace(frames=torch.randn(*clip.frames.shape[:3], *[data["augmentation"]["crop"]] * 2))
    method.network(clip.frames.flatten(0, 1))
    forward = sum(2 * size * layer.weight[0].numel() for layer, size in seen)
    first = next(2 * size * layer.weight[0].numel() for layer, size in seen if layer.in_channels == 1)
    counted = gpu_steps.operations("gruunet", "tiny")[""]
    assert counted == pytest.approx(3 * forward - first, rel=0.02)  # the frames need no gradient


def test_tables_are_made_of_the_lines_that_a_killed_run_has_left(tmp_path, capsys):
    import gpu
    import gpu_tables
    import record

    lines = gpu.Lines(tmp_path / "gpu.jsonl")
    lines.note("device", name="A card", memory_gb=80, versions={"torch": "2"}, peaks={"bfloat16": 500.0})
    lines.note("beside", preset="rshn", operations=2.5e12)
    lines.note("rshn", preset="rshn", variant="bfloat16", wall_ms=50.0, python_ms=9.0, first_s=1.0, peak_gb=3.0)
    lines.note("rshn", preset="rshn", variant="events", kernels=900, busy_ms=40.0, waits=[])
    lines.note("rshn", preset="rshn", variant="batch of 8", error="OutOfMemoryError: too large")
    lines.note("track", method="ulstm", tracks=7, frames_per_second=30.0)
    with lines.path.open("a") as file:
        file.write('{"part": "rs')
    gpu_tables.report(lines.read(), cuda=True)
    tables = {found["heading"]: found for found in record.tables(capsys.readouterr().out)}
    assert tables["Limits of a step"]["rows"] == [["rshn", "2.50", "5.00", "900", "40.0", "none"]]
    steps = tables["Steps of training"]["rows"]
    assert steps[0] == ["rshn", "bfloat16", "50.0", "9.0", "", "3.0", "1.0", "50.0", ""]
    assert steps[1][-1] == "OutOfMemoryError: too large"
    assert tables["track"]["rows"] == [["ulstm", "7", "30.0"]]


BARE = """
import sys
ABSENT = {"albumentations", "albucore", "jsonargparse", "mlflow", "optuna", "pydantic", "imagecodecs", "plotly"}
class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}, on a bare machine", name=name)
sys.meta_path.insert(0, Bare())
"""


@pytest.mark.slow
@pytest.mark.timeout(1500)  # two minutes of the processor
def test_a_bare_machine_measures_all_parts_in_the_small_form(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BARE)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    environment |= {"OMP_NUM_THREADS": "1", "LIGHTNING_CELLS_DATA": str(tmp_path)}
    absent = subprocess.run([sys.executable, "-c", "import mlflow"], env=environment, capture_output=True, text=True)
    assert "on a bare machine" in absent.stderr
    words = [str(FOLDER / "gpu.py"), "--device", "cpu", "--lines", str(tmp_path / "gpu.jsonl"), "--budget", "1300"]
    run = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert [line for line in lines if "error" in line or "skipped" in line or line.get("ended")] == []
    assert [line["part"] for line in lines if "ended" in line] == [
        "device", "rshn", "ulstm", "clustering", "track", "gruunet", "brightfield", "adversarial", "train"
    ]  # fmt: skip
    counted = {line["preset"]: line["operations"] / 1e12 for line in lines if "operations" in line}
    assert counted["rshn"] == pytest.approx(2.4, abs=0.05)
    assert counted["ulstm"] == pytest.approx(15.7, abs=0.05)
    assert counted["gruunet"] == pytest.approx(1.4, abs=0.05)
    assert counted["brightfield"] == pytest.approx(0.85, abs=0.005)
    assert {line["method"] for line in lines if "frames_per_second" in line} == {"ulstm", "rshn"}
    assert {"SEG", "DET", "TRA"} <= {name for line in lines for name in line}
    assert "### Limits of a step" in run.stdout
