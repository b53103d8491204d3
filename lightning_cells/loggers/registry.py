"""MLflow's model registry: a run's best checkpoint becomes a version of a model, and is fetched from there."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import requires, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import mlflow
import mlflow.pyfunc
import numpy as np
import yaml
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModel, LoggedModelOutput, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from lightning_cells.errors import InputError, one_line
from lightning_cells.loggers.delivery import refused
from lightning_cells.loggers.run_folder import RunFolder, find_run
from lightning_cells.loggers.served_model import SIGNATURE
from lightning_cells.loggers.store import open_store, runs_named, tracking_uri
from lightning_cells.methods.building import load_method
from lightning_cells.methods.loading import read_checkpoint
from lightning_cells.metrics.measures import FIRST

_LOADER = "lightning_cells.loggers.served_model"
_EARLIER_LOADER = "lightning_cells.experiments.served_model"
_CHECKPOINT = "data/best.ckpt"  # where a model keeps it

_ADDRESS = re.compile(r"models:/(?P<name>[^/@:]+)(/(?P<version>[1-9][0-9]*|latest)|@(?P<alias>[^/@:]+))")
_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,99}")
_SHOWN = (*FIRST, "OP_CTB")


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
        with _explained(f"--model {model}", uri):
            source = _source(client, **found.groupdict())
            if not _is_ours(Path(download_artifacts(f"{source}/MLmodel", dst_path=folder, tracking_uri=uri))):
                raise InputError(f"--model {model}: was not made by lightning-cells register: take another")
            path = Path(download_artifacts(f"{source}/{_CHECKPOINT}", dst_path=folder, tracking_uri=uri))
        with _called(path, model):
            yield path


@contextmanager
def _called(path: Path, name: str) -> Iterator[None]:
    """What is said of a temporary file is said of what it is a copy of."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace(str(path), name)) from None


@contextmanager
def _explained(what: str, uri: str) -> Iterator[None]:
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
        return flavor["loader_module"] in (_LOADER, _EARLIER_LOADER) and flavor["data"] == _CHECKPOINT
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
        return False


class Registered(NamedTuple):
    """A new version of a model.

    Attributes:
        name: of the model.
        version: its number.
        method: the method's name.
        run: id of the run that it came from.
        store: address of the store it is in.
    """

    name: str
    version: str
    method: str
    run: str
    store: str


def register(run: str, name: str, checkpoint: Path | None = None) -> Registered:
    """Makes an MLflow model of a checkpoint, logs it to its run, and registers it as the next version of `name`.

    Args:
        run: id or name of the run.
        name: of the model: letters, digits, ``_``, ``.`` and ``-``.
        checkpoint: a checkpoint of the run; None takes its best one.

    Raises:
        InputError: if there is no such run or checkpoint, if the checkpoint cannot be used, or the store does not
            take the model.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"NAME {name!r}: is no name of a model: give up to 100 letters, digits, '_', '.' or '-', such as nuclei"
        )
    folder = _known(run)
    uri = tracking_uri() if folder is None else folder.uri
    client = open_store(uri)
    with _explained(f"run {run}", uri):
        origin = _find(client, run if folder is None else folder.run_id)
    folder = folder or _known(origin.info.run_id) or RunFolder(origin.info.run_id)
    path = checkpoint or folder.checkpoints / "best.ckpt"
    if checkpoint is None and not path.is_file():
        raise InputError(f"run {run}: has no checkpoint here ({path}): give one of its own with --checkpoint")
    with TemporaryDirectory(prefix="lightning_cells-") as temporary:
        copy = Path(temporary, Path(_CHECKPOINT).name)  # the training may go on and replace its best
        if path.is_file():
            shutil.copyfile(path, copy)
        with _called(copy, str(path)):
            method = type(load_method(copy)[0]).__name__
        if origin.data.tags.get("method", method) != method:
            raise InputError(f"{path}: is of {method}, the run of {origin.data.tags['method']}: give one of the run")
        with _explained(f"model {name}", uri):
            number = _log(client, origin, name, method, copy)
    return Registered(name, number, method, origin.info.run_id, uri)


def _known(run: str) -> RunFolder | None:
    """What this machine keeps of a run, if it is known here."""
    with suppress(InputError):
        return find_run(run)
    return None


def _find(client: MlflowClient, run: str) -> Run:
    """The run of that id or name."""
    if re.fullmatch(r"[0-9a-f]{32}", run):
        return client.get_run(run)
    found = runs_named(client, run)
    if not found:
        raise InputError(
            f"run '{run}': is not in {client.tracking_uri}: take an id or a name from the dashboard; what was logged "
            "while a server was away is sent by lightning-cells deliver"
        )
    if len(found) > 1:
        ids = ", ".join(one.info.run_id for one in found)
        raise InputError(f"run '{run}': several have this name: give one of the ids {ids}")
    return found[0]


def _log(client: MlflowClient, origin: Run, name: str, method: str, checkpoint: Path) -> str:
    """Logs a model to its run, registers it, and returns the number of its version."""
    run = origin.info.run_id
    tags = _tags(client, origin, method, checkpoint)
    model = client.create_logged_model(origin.info.experiment_id, name, run, tags, model_type=method)
    try:
        place = checkpoint.parent / "model"
        _save(place, model, run, checkpoint)
        client.log_model_artifacts(model.model_id, str(place))
        client.finalize_logged_model(model.model_id, "READY")
        number = _add_version(client, name, model, _described(origin, tags), tags)
        client.log_outputs(run, [LoggedModelOutput(model.model_id, step=0)])
    except BaseException:
        with suppress(Exception):
            client.delete_logged_model(model.model_id)
        raise
    return number


def _add_version(client: MlflowClient, name: str, model: LoggedModel, description: str, tags: dict[str, str]) -> str:
    """Makes a logged model the next version of `name`, and returns its number."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    with _by_default(client.tracking_uri):
        made = client.create_model_version(
            name, model.model_uri, model.source_run_id, tags, description=description, model_id=model.model_id
        )
    versions = [{"name": name, "version": str(made.version)}]
    client.set_logged_model_tags(model.model_id, {MLFLOW_MODEL_VERSIONS: json.dumps(versions)})  # links the pages
    return str(made.version)


@contextmanager
def _by_default(uri: str) -> Iterator[None]:
    """MLflow looks for the files of a new version in the default store, whichever its client is of."""
    before = os.environ.get("MLFLOW_TRACKING_URI")  # MLflow writes there, too, what is set
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None unsets it


def _save(place: Path, model: LoggedModel, run: str, checkpoint: Path) -> None:
    """Writes the model's files: the checkpoint, the signature, and which module loads it; no code."""
    mlflow.pyfunc.save_model(
        place,
        loader_module=_LOADER,
        data_path=str(checkpoint),
        mlflow_model=Model(
            run_id=run, model_id=model.model_id, model_uuid=model.model_id, artifact_path=model.artifact_location
        ),
        signature=SIGNATURE,
        input_example={"frames": np.zeros((1, 8, 8), np.float32)},
        pip_requirements=_requirements(),
    )


def _requirements() -> list[str]:
    """This package and those that it needs, in the versions that are installed here."""
    needed = [one for one in requires("lightning-cells") or [] if ";" not in one]  # what follows says "extra == ..."
    names = ["lightning-cells", *(re.split(r"[^\w.-]", one, maxsplit=1)[0] for one in needed)]
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]  # no index has torch==2.13.0+cpu


def _tags(client: MlflowClient, origin: Run, method: str, checkpoint: Path) -> dict[str, str]:
    """Method, data set, and the measures of the validation that the checkpoint comes from."""
    known = origin.data.tags
    tags = {"method": method} | {key: known[key] for key in ("paper", "preset", "fold") if key in known}
    tags |= {key: value for key, value in known.items() if key.startswith("data.")}
    loops = read_checkpoint(checkpoint).get("loops", {})
    step = loops.get("fit_loop", {}).get("epoch_loop.state_dict", {}).get("_batches_that_stepped", 0) - 1
    for key in sorted(origin.data.metrics):
        if key.startswith("val/"):
            values = {entry.step: entry.value for entry in client.get_metric_history(origin.info.run_id, key)}
            if step in values:
                tags[key] = f"{values[step]:.4g}"
    return tags


def _described(origin: Run, tags: dict[str, str]) -> str:
    measures = ", ".join(f"{name} {tags[f'val/{name}']}" for name in _SHOWN if f"val/{name}" in tags)
    data = f"{tags.get('data.root', 'unknown data')}, videos {tags.get('data.train', 'unknown')}"
    lines = [f"{tags['method']}, trained on {data}, in run {origin.info.run_name}."]
    return "\n\n".join([*lines, *([f"Validation: {measures}."] if measures else [])])
