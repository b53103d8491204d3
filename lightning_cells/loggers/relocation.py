"""A store under the output folder that was moved or copied with it: MLflow keeps absolute addresses of artifacts."""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def follow_move(database: Path, artifacts: Path) -> None:
    """Has all addresses below an earlier folder of artifacts be those of the folder beside the store.

    An earlier folder is one where an experiment of ours keeps its files, some of which are here now. A copy so becomes
    a store of its own; that from which it was copied stays as it is. Artifacts in places of the user's choice stay
    there.

    Args:
        database: MLflow's sqlite file.
        artifacts: the folder beside it.
    """
    here = artifacts.as_uri()
    with closing(sqlite3.connect(database, timeout=60)) as store:
        try:
            places = [place for (place,) in store.execute("SELECT DISTINCT artifact_location FROM experiments")]
            for old in places:
                if old and old != here and old.startswith("file:") and old.endswith(f"/{artifacts.name}"):
                    runs = store.execute("SELECT run_uuid FROM runs WHERE artifact_uri LIKE ? || '/%'", (old,))
                    if any((artifacts / run).is_dir() for (run,) in runs):
                        _replace(store, old, here)
        except sqlite3.DatabaseError:
            return  # no tables yet, or none of a store: MLflow says so


def _replace(store: sqlite3.Connection, old: str, new: str) -> None:
    with store:
        for table, column in _ADDRESSES:
            with suppress(sqlite3.OperationalError):  # MLflow's versions differ
                store.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                )
