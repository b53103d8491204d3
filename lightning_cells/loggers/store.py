"""Where runs are kept: the MLflow store of a project."""

import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from lightning_cells.data.atomic import writing
from lightning_cells.errors import HIDDEN, InputError, one_line, without_passwords
from lightning_cells.loggers.relocation import follow_move
from lightning_cells.paths import database_address, output_dir

# Opens the experiment in MLflow's pages for model training instead of those for language models.
_KIND = {"mlflow.experimentKind": "custom_model_development"}
_ARTIFACTS = "artifacts"
_SERVER = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


def tracking_uri() -> str:
    """Address of the store: ``$MLFLOW_TRACKING_URI``, or sqlite under the output folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or default_uri()


def default_uri() -> str:
    """Address of the store under the output folder.

    Raises:
        InputError: for a folder with which there is no such address.
    """
    return database_address("mlflow.db")


def with_password(address: str) -> str:
    """What an address that was written down stands for: passwords are not kept, so they are those of `tracking_uri`.

    Raises:
        InputError: if that is another store.
    """
    if HIDDEN not in address:
        return address
    now = tracking_uri()
    if without_passwords(now) != address:
        raise InputError(f"{address}: its password is not kept: give the whole address as MLFLOW_TRACKING_URI")
    return now


def open_store(uri: str) -> MlflowClient:
    """Returns a client of the store at `uri`; a fresh sqlite file is set up, which two processes may not do at once.

    A server that does not answer is not waited for as long as MLflow would: minutes.

    Raises:
        InputError: if runs cannot be kept at that address.
    """
    if uri.startswith(("http:", "https:")):
        for variable, value in _SERVER.items():
            os.environ.setdefault(variable, value)
    try:
        with _alone():
            if uri == under_outputs():
                _set_up(output_dir() / "mlflow.db")
            client = MlflowClient(uri)
            if uri == under_outputs():
                follow_move(output_dir() / "mlflow.db", output_dir() / _ARTIFACTS)
            return client
    except (MlflowException, ImportError, SQLAlchemyError, FileExistsError, NotADirectoryError) as error:
        reason = one_line(error).partition(". ")[0]
        raise InputError(
            f"runs cannot be kept in {uri} ({reason}): give a database or a server as "
            "MLFLOW_TRACKING_URI, such as sqlite:////folder/mlflow.db, or unset it"
        ) from error


def _set_up(path: Path) -> None:
    """Makes a fresh database whole or not at all: MLflow takes none of which a killed process made a part."""
    if path.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # which a server does not need

    for left in path.parent.glob(f".{path.name}.*.tmp"):
        left.unlink()
    with writing(path) as temporary:
        SqlAlchemyStore(f"sqlite:///{temporary}", artifact_root()).engine.dispose()


def open_experiment(client: MlflowClient, name: str) -> Experiment:
    """Returns the experiment `name`, made where it does not exist, by one process at a time."""
    with _alone():
        experiment = client.get_experiment_by_name(name)
        if experiment is not None and experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
        if experiment is not None:
            return experiment
        # a sqlite store would put artifacts under the working directory; a server knows its own place
        place = artifact_root() if client.tracking_uri.startswith("sqlite:") else None
        return client.get_experiment(client.create_experiment(name, place, _KIND))


def runs_named(client: MlflowClient, name: str) -> list[Run]:
    """Returns the runs of that name, in any experiment."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    quote = "'" if "'" not in name else '"'
    if quote in name or not experiments:
        return []  # no filter can ask for such a name
    return list(client.search_runs(experiments, f"attributes.run_name = {quote}{name}{quote}"))


def artifact_root() -> str:
    """Address of the folder where a local store keeps pictures and other files."""
    return (output_dir() / _ARTIFACTS).as_uri()


def under_outputs() -> str | None:
    """`default_uri`, if there can be one: who keeps runs elsewhere may call the folder as they like."""
    with suppress(InputError):
        return default_uri()
    return None


def _alone() -> FileLock:
    """Held while the store is changed, by one process at a time."""
    output_dir().mkdir(parents=True, exist_ok=True)
    return FileLock(output_dir() / ".mlflow.lock")
