"""The runs that are compared: for each its training and its test, what they have kept, and how their options differ."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
from mlflow.exceptions import MlflowException

from lightning_cells.errors import InputError, first_line
from lightning_cells.loggers.store import runs_named
from lightning_cells.methods.short_options import complete_model


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


CONFIG = "config.yaml"
_LATEST_TESTS = 100  # in which that of a training is looked for
_LONGEST = 60  # characters of a name that are shown


class Selected(NamedTuple):
    """A run to compare.

    Attributes:
        label: its name, in which it differs from the others.
        run: the run that was asked for.
        training: where its curves are: itself, or the training whose checkpoint it tested; None if that is unknown.
        test: where its measures are: itself if it is a test, else the latest test of one of its checkpoints, else
            itself if it holds measures of a test; None without a test.
    """

    label: str
    run: Run
    training: Run | None
    test: Run | None


def select(client: MlflowClient, names: Sequence[str]) -> list[Selected]:
    """Finds runs in any of the store's experiments.

    Args:
        client: of the store.
        names: ids or names of runs, two or more.

    Raises:
        InputError: if there are fewer than two, one of them is unknown or given twice, or several have its name.
    """
    if len(names) < 2:
        raise InputError(f"{' '.join(names)}: one run cannot be compared: give two or more, by id or name")
    runs = [_find(client, name) for name in names]
    ids = [run.info.run_id for run in runs]
    for position, run_id in enumerate(ids):
        if run_id in ids[:position]:
            raise InputError(f"run {names[position]} is given twice: give each run once")
    return [Selected(label, run, *_halves(client, run)) for label, run in zip(_labels(runs), runs, strict=True)]


def read_config(client: MlflowClient, run: Run) -> dict[str, Any] | None:
    """Returns the resolved configuration that a run was made with, or None if it kept none that can be read.

    Options that were renamed since have the names of today.
    """
    try:
        config = yaml.safe_load(read_file(client, run, CONFIG) or b"")
    except (ValueError, yaml.YAMLError):
        return None
    if not isinstance(config, dict):
        return None
    return {**config, "model": complete_model(config["model"])} if "model" in config else config


def _find(client: MlflowClient, name: str) -> Run:
    try:
        return client.get_run(name)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise InputError(f"{client.tracking_uri} does not tell its runs: {first_line(error)}") from error
    found = runs_named(client, name)
    shown = " ".join(name.split())
    if not found:
        raise InputError(f"{client.tracking_uri} has no run '{shown}': take its id or name from the dashboard")
    if len(found) > 1:
        ids = ", ".join(run.info.run_id for run in found)
        raise InputError(f"{len(found)} runs are named '{shown}': give one of their ids: {ids}")
    return found[0]


def _halves(client: MlflowClient, run: Run) -> tuple[Run | None, Run | None]:
    """The training and the test of a run that may be either, or both."""
    if run.data.tags.get("stage") == "test":
        return _training_of(client, run), run
    own = run if any(key.startswith("test/") for key in run.data.metrics) else None
    return run, _test_of(client, run) or own


def _training_of(client: MlflowClient, test: Run) -> Run | None:
    trained = _tested(client, test)
    try:
        return client.get_run(trained) if trained else None
    except MlflowException:
        return None


def _test_of(client: MlflowClient, training: Run) -> Run | None:
    tests = client.search_runs(
        [training.info.experiment_id],
        "tags.stage = 'test' and attributes.status = 'FINISHED'",
        max_results=_LATEST_TESTS,
        order_by=["attributes.start_time DESC"],
    )
    return next((test for test in tests if _tested(client, test) == training.info.run_id), None)


def _tested(client: MlflowClient, test: Run) -> str | None:
    """The id of the run whose checkpoint was tested: checkpoints lie in a folder of that name."""
    checkpoint = (read_config(client, test) or {}).get("ckpt_path")
    return PurePosixPath(checkpoint).parent.name or None if isinstance(checkpoint, str) else None


def _labels(runs: Sequence[Run]) -> list[str]:
    names = [_short(run.info.run_name or run.info.run_id) for run in runs]
    return [
        f"{name} ({run.info.run_id[:6]})" if names.count(name) > 1 else name
        for name, run in zip(names, runs, strict=True)
    ]


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


_OF_ONE_CALL = (
    "ckpt_path",
    "output_dir",
    "weights_only",
    "config",
    "allow",
    "trainer.logger",
    "results.folder",
    "checkpoint.folder",
)

ABSENT = "not an option"
"""Stands for an option that a configuration does not have."""


def differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Returns the options that are not the same everywhere, with their value in each configuration.

    What belongs to one call alone, such as the name of the run or where results are written, is left out.

    Args:
        configs: resolved configurations, nested as in YAML.

    Returns:
        Dotted names as on the command line, in the order of the configurations, to one text per configuration.
    """
    flat = [_flatten(config) for config in configs]
    names = dict.fromkeys(name for options in flat for name in options if not _of_one_call(name))
    table = {name: [options.get(name, ABSENT) for options in flat] for name in names}
    return {name: values for name, values in table.items() if len(set(values)) > 1}


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings and lists of objects -> dotted names, without the ``init_args`` that nobody writes."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}".strip(".")
        if isinstance(value, list) and any(isinstance(part, dict) for part in value):
            value = {_class(part, number): part for number, part in enumerate(value, start=1)}
        if isinstance(value, dict) and value:
            flat |= _flatten(value, name)
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat


def _class(part: Any, number: int) -> str:
    """What an object in a list is called: by its class, so that another order alone makes no difference."""
    path = part.get("class_path") if isinstance(part, dict) else None
    return str(path).rpartition(".")[2] if path else str(number)


def _of_one_call(name: str) -> bool:
    return any(name == other or name.startswith(f"{other}.") for other in _OF_ONE_CALL)
