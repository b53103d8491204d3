"""Reads what a run has kept as files."""

import os
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
from mlflow.exceptions import MlflowException


def read_files(client: MlflowClient, run: Run, path: str) -> dict[str, bytes]:
    """Returns the contents of an artifact, or of all below a folder, by path within it; nothing where there is none.

    Args:
        client: of the store.
        run: whose artifact it is.
        path: of a file, whose own path within itself is its name, or of a folder.
    """
    os.environ.setdefault(MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.name, "false")
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = Path(client.download_artifacts(run.info.run_id, path, folder))
        except (MlflowException, OSError):
            return {}
        files = sorted(found.rglob("*")) if found.is_dir() else [found]
        base = found if found.is_dir() else found.parent
        return {str(file.relative_to(base)): file.read_bytes() for file in files if file.is_file()}


def read_file(client: MlflowClient, run: Run, path: str) -> bytes | None:
    """Returns the content of one artifact, or None where there is none."""
    return next(iter(read_files(client, run, path).values()), None)
