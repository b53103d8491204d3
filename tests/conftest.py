"""What all tests share: nothing is written outside of temporary folders, and no test spins up threads."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import torch

from lightning_cells.data.simulate import simulate

torch.set_num_threads(1)
cv2.setNumThreads(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Notebooks train networks, and have nowhere else to say that they are slow."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where this test's runs, checkpoints and cache go."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("LIGHTNING_CELLS_HOME", str(folder))
    for name in (
        "LIGHTNING_CELLS_ALLOW",
        "LIGHTNING_CELLS_DATA",
        "MLFLOW_TRACKING_URI",
        "PL_GLOBAL_SEED",
        "PL_SEED_WORKERS",
    ):
        monkeypatch.delenv(name, raising=False)
    yield folder
    if "mlflow" in sys.modules:  # Lightning's logger makes its store the default of the process
        sys.modules["mlflow"].set_tracking_uri(None)


@pytest.fixture(scope="session")
def _fresh_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lightning_cells.loggers.store import open_store

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTNING_CELLS_HOME", str(path.parent))
        open_store(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(home: Path, _fresh_store: Path) -> Path:
    """This test's MLflow store, without runs; a copy, since MLflow takes seconds to make one."""
    return shutil.copy(_fresh_store, home / "mlflow.db")


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nuclei: videos 01, 02 and 03 of 12 frames of 64 x 64 pixels with whole truth. Not to be written to."""
    return simulate(tmp_path_factory.mktemp("simulated") / "nuclei", sequences=3, frames=12, size=(64, 64), seed=5)
