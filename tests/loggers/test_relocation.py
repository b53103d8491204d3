"""Outputs that are moved or copied with their store."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from run_cases import client, the_run, words

from lightning_cells.cli import main
from lightning_cells.cli.parsing import resumed
from lightning_cells.errors import InputError
from lightning_cells.loggers.store import default_uri, open_store, tracking_uri


def artifacts(home: Path) -> set[str]:
    run = the_run(home).info.run_id
    return {file.path for file in client(home).list_artifacts(run)}


@pytest.mark.parametrize("how", [shutil.move, shutil.copytree], ids=["moved", "copied"])
def test_a_run_goes_on_where_its_outputs_are(
    how: object, simulated: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(words(simulated, "--pictures.samples", "1")) == 0
    run, before = the_run(home).info.run_id, artifacts(home)
    there = tmp_path / "elsewhere"
    how(home, there)  # type: ignore[operator]
    old = {path: path.stat().st_mtime_ns for path in home.rglob("*")} if home.exists() else {}
    monkeypatch.setenv("LIGHTNING_CELLS_HOME", str(there))
    again = resumed(["fit", "--resume", run], None)
    assert again is not None
    assert again.checkpoint == there / "checkpoints" / run / "last.ckpt"
    command = [sys.executable, "-m", "lightning_cells", "fit", "--resume", run, "--trainer.max_epochs", "3"]
    subprocess.run(command, check=True, timeout=300, capture_output=True)  # MLflow remembers addresses in a process
    assert the_run(there).info.artifact_uri == (there / "artifacts" / run / "artifacts").as_uri()
    assert artifacts(there) >= before, "old ones are found"
    assert sorted(path.name for path in (there / "checkpoints" / run).iterdir()) == ["best.ckpt", "last.ckpt"]
    if old:
        assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == old, "the other one stays as it was"
    else:
        assert [path for path in home.rglob("*") if path.is_file()] == []


def test_artifacts_in_a_place_of_the_users_choice_stay_there(store: Path, home: Path, tmp_path: Path) -> None:
    chosen = (tmp_path / "artifacts").as_uri()
    one = open_store(tracking_uri())
    one.create_run(one.create_experiment("own", chosen))
    assert open_store(tracking_uri()).get_experiment_by_name("own").artifact_location == chosen


@pytest.mark.parametrize("sign", "%?#")
def test_folders_that_no_address_can_name_are_refused_at_once(
    sign: str, simulated: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / f"out{sign}put"
    assert main([*words(simulated), "--output_dir", str(folder)]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert f"has a '{sign}' in its name" in line
    assert not list(tmp_path.rglob("*.db"))


def test_such_a_folder_does_where_runs_are_kept_elsewhere(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    monkeypatch.setenv("LIGHTNING_CELLS_HOME", str(tmp_path / "50 %"))
    with pytest.raises(InputError):
        default_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
    assert open_store(tracking_uri()).search_experiments()
