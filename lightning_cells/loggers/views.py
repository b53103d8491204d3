"""The project's view of its runs in MLflow's pages: which columns the list has, and which charts come first.

MLflow keeps a view that is shared as a tag of the experiment (`savedViewEnvelope.ts` in its source); the page offers it
in its menu "Views", and an address with ``viewStateShareKey`` opens it. The form is that of MLflow 3.17; a version that
does not know it shows its own columns and charts instead.
"""

import base64
import json
import time
import zlib
from typing import Any, Literal
from urllib.parse import urlencode

from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from lightning_cells.loggers.mlflow import CHILD, EXPERIMENT
from lightning_cells.loggers.store import open_experiment
from lightning_cells.metrics.measures import FIRST

NAME = "Cells"
"""The view in the menu."""
_KEY = "lightning-cells"
_TAG = f"mlflow.sharedViewState.{_KEY}"
_MODES = {"list": "TABLE", "charts": "CHART"}

_COLUMNS = (
    *((f"metrics.`test/{name}`") for name in FIRST),
    *((f"metrics.`val/{name}`") for name in FIRST),
    *((f"tags.`{name}`") for name in ("method", "preset", "data.root", "stage", "seed")),
)
_CURVES = (*(f"val/{name}" for name in FIRST), "train/loss_epoch")
_BARS = tuple(f"test/{name}" for name in FIRST)
# A grid shows one step of all runs, and tests are logged at step 0.
_PICTURES = ("test/worst_1", "test/worst_2", "test/frame_1", "test/frame_2")
_GRID = {"step": 0, "showRunParams": False}
_WIDE = {"columns": 1, "cardHeight": 400}  # room for the pictures of several runs beside each other
_OPENED = 10  # parents at most whose runs are shown below them
_LINE = {"xAxisKey": "step", "lineSmoothness": 0, "useGlobalXaxisKey": True, "useGlobalLineSmoothing": False}


def prepare_views(client: MlflowClient) -> list[Experiment]:
    """Puts the view into each experiment with runs of this project, and into the usual one.

    Returns:
        Those experiments, the usual one first.
    """
    usual = open_experiment(client, EXPERIMENT)
    found = [other for other in client.search_experiments() if other.experiment_id != usual.experiment_id]
    ours = [usual, *(experiment for experiment in found if _has_runs(client, experiment))]
    for experiment in ours:
        state = _state(_parents(client, experiment))
        if _written(experiment) != state:
            now = time.time_ns() // 1_000_000
            view = {"name": NAME, "createdAt": now, "updatedAt": now, "state": state}
            client.set_experiment_tag(experiment.experiment_id, _TAG, json.dumps(view))
    return ours


def address(server: str, experiment: Experiment, page: Literal["list", "charts"]) -> str:
    """Returns where a browser finds the runs of an experiment in the project's view.

    Args:
        server: such as ``http://127.0.0.1:5000``.
        experiment: one that has the view.
        page: the list of runs with its columns, or their charts and pictures side by side.
    """
    query = urlencode({"compareRunsMode": _MODES[page], "viewStateShareKey": _KEY, "workflowType": "machine_learning"})
    return f"{server.rstrip('/')}/#/experiments/{experiment.experiment_id}/runs?{query}"


def _has_runs(client: MlflowClient, experiment: Experiment) -> bool:
    """Whether the experiment holds a run that this package logged: others may share the store."""
    return bool(client.search_runs([experiment.experiment_id], "tags.method LIKE '%'", max_results=1))


def _written(experiment: Experiment) -> str | None:
    try:
        return json.loads(experiment.tags[_TAG])["state"]
    except (KeyError, TypeError, ValueError):
        return None


def _parents(client: MlflowClient, experiment: Experiment) -> list[str]:
    """The runs below which the latest rows of tables and folds are; charts leave out what a closed parent hides."""
    rows = client.search_runs([experiment.experiment_id], f"tags.{CHILD} LIKE '%'", max_results=500)
    return list(dict.fromkeys(run.data.tags[MLFLOW_PARENT_RUN_ID] for run in rows))[:_OPENED]


def _state(opened: list[str]) -> str:
    """The view as the page keeps its own, deflated: a tag holds 5000 characters in some stores.

    Args:
        opened: parents whose runs are shown.
    """
    charts = [
        *(_chart("LINE", "Curves", key, metricKey=key, selectedMetricKeys=[key], **_LINE) for key in _CURVES),
        *(_chart("BAR", "Tests", key, metricKey=key, dataAccessKey=key) for key in _BARS),
        *(_chart("IMAGE", "Pictures", key, imageKeys=[key], **_GRID) for key in _PICTURES),
    ]
    state = {
        "selectedColumns": _COLUMNS,
        "columnOrder": _COLUMNS,
        "columnWidths": dict.fromkeys(_COLUMNS, 100),
        "compareRunCharts": charts,
        "compareRunSections": [_section("Curves"), _section("Tests"), _section("Pictures", **_WIDE)],
        "isAccordionReordered": True,  # else the sections are sorted by name
        "hideEmptyCharts": True,
        "runsExpanded": dict.fromkeys(opened, True),
    }
    packed = zlib.compress(json.dumps(state, separators=(",", ":")).encode(), 9)
    return f"deflate;{base64.b64encode(packed).decode()}"


def _chart(kind: Literal["LINE", "BAR", "IMAGE"], section: str, name: str, **options: Any) -> dict[str, Any]:
    common = {"type": kind, "uuid": f"{_KEY}-{name}", "metricSectionId": f"{_KEY}-{section}", "displayName": name}
    return {**common, "runsCountToCompare": 10, "deleted": False, "isGenerated": False, **options}


def _section(name: str, **options: int) -> dict[str, Any]:
    common = {"uuid": f"{_KEY}-{name}", "name": name, "display": True, "isReordered": True, "deleted": False}
    return {**common, **options}
