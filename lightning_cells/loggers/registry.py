"""MLflow's model registry: the checkpoint behind ``models:/NAME/VERSION``."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from lightning_cells.errors import InputError, one_line
from lightning_cells.loggers.delivery import refused
from lightning_cells.loggers.store import open_store, tracking_uri

LOADER = "lightning_cells.loggers.served_model"
_EARLIER_LOADER = "lightning_cells.experiments.served_model"
CHECKPOINT = "data/best.ckpt"
"""Where a model keeps its checkpoint."""

_ADDRESS = re.compile(r"models:/(?P<name>[^/@:]+)(/(?P<version>[1-9][0-9]*|latest)|@(?P<alias>[^/@:]+))")


@contextmanager
def registered_checkpoint(model: str) -> Iterator[Path]:
    """Fetches the checkpoint of a registered model, into a file that is there within the context.

    Args:
        model: ``models:/NAME/VERSION``, ``models:/NAME/latest`` or ``models:/NAME@ALIAS``.

    Raises:
        InputError: if there is no such model, or it is none of ours; also what the context says of the file, with the
            model's address for the file's path.
    """
    found = _ADDRESS.fullmatch(model)
    if found is None:
        raise InputError(f"--model {model}: is no address: give models:/NAME/VERSION, /latest or models:/NAME@ALIAS")
    uri = tracking_uri()
    client = open_store(uri)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with TemporaryDirectory(prefix="lightning_cells-") as folder:
        with explained(f"--model {model}", uri):
            source = _source(client, **found.groupdict())
            if not _is_ours(Path(download_artifacts(f"{source}/MLmodel", dst_path=folder, tracking_uri=uri))):
                raise InputError(f"--model {model}: was not made by lightning-cells register: take another")
            path = Path(download_artifacts(f"{source}/{CHECKPOINT}", dst_path=folder, tracking_uri=uri))
        with called(path, model):
            yield path


@contextmanager
def called(path: Path, name: str) -> Iterator[None]:
    """What is said of a temporary file is said of what it is a copy of."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace(str(path), name)) from None


@contextmanager
def explained(what: str, uri: str) -> Iterator[None]:
    """Says in one line why the store at `uri` does not do `what`."""
    try:
        yield
    except (MlflowException, OSError) as error:
        reason = one_line(error)[:200]
        if refused(error):
            raise InputError(f"{what}: {uri} says: {reason}: check the name, and MLFLOW_TRACKING_URI") from error
        raise InputError(f"{what}: {uri} cannot be used: is it the right store, and up? ({reason})") from error


def _source(client: MlflowClient, name: str, version: str | None, alias: str | None) -> str:
    """Address of a model's files."""
    if alias is not None:
        version = client.get_model_version_by_alias(name, alias).version
    elif version == "latest":
        versions = client.search_model_versions(f"name = '{name}'", order_by=["version_number DESC"], max_results=1)
        if not versions:
            raise InputError(f"--model models:/{name}/latest: there is no such model: check the name")
        version = versions[0].version
    return client.get_model_version_download_uri(name, str(version))


def _is_ours(description: Path) -> bool:
    try:
        flavor = yaml.safe_load(description.read_text())["flavors"]["python_function"]
        return flavor["loader_module"] in (LOADER, _EARLIER_LOADER) and flavor["data"] == CHECKPOINT
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
        return False
