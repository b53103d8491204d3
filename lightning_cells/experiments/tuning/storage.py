"""Where studies are kept: a sqlite file for one machine, or PostgreSQL for many."""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from filelock import FileLock
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from lightning_cells.errors import InputError, without_passwords
from lightning_cells.paths import database_address

GRACE = 3
"""Heartbeats that a worker may miss before its trials are taken over."""
_CONNECT_S = 20  # to reach a server
_LOCKED_S = 120  # to wait for others that write to the same sqlite file
_POSTGRES = "postgresql://USER:PASSWORD@HOST/DATABASE"


class Storage:
    """A database of studies.

    Args:
        address: SQLAlchemy's URL: ``sqlite:///FILE`` or ``postgresql://USER:PASSWORD@HOST/DATABASE``. None takes
            ``optuna.db`` in the output folder.
        heartbeat: seconds between two signs of life of a running trial.

    Raises:
        InputError: if it cannot be used; the message does not show the password.

    Attributes:
        shown: the address without password.
        rdb: Optuna's storage.
        heartbeat: as given.
    """

    def __init__(self, address: str | None, heartbeat: int = 30) -> None:
        if heartbeat < 1:
            raise InputError(f"--heartbeat {heartbeat}: must be at least 1 second")
        url = _url(address or database_address("optuna.db"))
        self.shown = without_passwords(url.render_as_string(hide_password=True)).replace("+psycopg", "")
        self.heartbeat = heartbeat
        self._file = Path(str(url.database)) if url.get_backend_name() == "sqlite" else None
        options: dict[str, Any] = {"connect_args": {"connect_timeout": _CONNECT_S}, "pool_pre_ping": True}
        if self._file is not None:
            options = {"connect_args": {"timeout": _LOCKED_S}}
        try:
            if self._file is not None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            self._locks = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, **options)
            with self.explained(), self.alone(""), warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self.rdb = RDBStorage(
                    url.render_as_string(hide_password=False),
                    engine_kwargs=options,
                    heartbeat_interval=heartbeat,
                    grace_period=GRACE * heartbeat,
                )
        except ImportError as error:
            raise InputError(
                f"--storage {self.shown}: its driver is missing ({error}): pip install 'lightning-cells[postgres]'"
            ) from error
        except OSError as error:
            raise InputError(f"--storage {self.shown}: {error.strerror}: give another place") from error
        except RuntimeError as error:  # tables of another version of Optuna
            said = " ".join(str(error).split())
            raise InputError(f"--storage {self.shown}: {said}") from error

    @contextmanager
    def alone(self, study: str) -> Iterator[None]:
        """Keeps other workers of a study from deciding at the same time; a killed worker holds up nobody."""
        if self._file is not None:
            with FileLock(f"{self._file}.lock"):
                yield
            return
        key = int.from_bytes(hashlib.blake2b(study.encode(), digest_size=8).digest(), "big", signed=True)
        with self._locks.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": key})
            yield  # the lock belongs to the connection and goes with it

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Says in one line what is wrong with the database.

        Raises:
            InputError: instead of what SQLAlchemy and Optuna raise.
        """
        try:
            yield
        except KeyError as error:
            if "does not exist" not in str(error):
                raise
            raise InputError(f"--storage {self.shown}: the study is gone: somebody has removed it") from error
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
            said = " ".join(str(getattr(cause, "orig", None) or cause).split())[:300]
            raise InputError(
                f"--storage {self.shown}: cannot be used ({said}): give a sqlite:///FILE that can be written, or a "
                "PostgreSQL server that answers"
            ) from error


def _url(address: str) -> URL:
    try:
        url = make_url(address)
        backend = url.get_backend_name()
    except SQLAlchemyError:
        raise InputError(f"--storage '{address}': is no database address: give sqlite:///FILE or {_POSTGRES}") from None
    if backend == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise InputError(f"--storage {backend}: is no database for sweeps: give sqlite:///FILE or {_POSTGRES}")
    if not url.database or url.database == ":memory:":
        raise InputError("--storage: a database in memory is lost at the end: give sqlite:///FILE")
    return url
