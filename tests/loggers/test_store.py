"""The sqlite file of an output folder."""

import os
from pathlib import Path
from typing import Any

import mlflow.store.db.utils
import pytest

from lightning_cells.loggers.store import default_uri, open_experiment, open_store


def test_a_process_killed_while_it_makes_the_database_leaves_none(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*args: Any) -> None:
        os._exit(9)

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(mlflow.store.db.utils, "_upgrade_db", killed)  # its tables are there by then, in part
        open_store(default_uri())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not (home / "mlflow.db").exists()
    client = open_store(default_uri())
    assert open_experiment(client, "cells").name == "cells"
    assert [path.name for path in home.glob("*mlflow.db*")] == ["mlflow.db"]
