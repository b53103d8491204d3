"""What is written into the store for MLflow's pages; `tests/browser` looks at the pages themselves."""

import base64
import json
import zlib
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from lightning_cells.loggers.store import open_experiment, open_store, tracking_uri
from lightning_cells.loggers.views import address, prepare_views

TAG = "mlflow.sharedViewState."


def tags(client: MlflowClient, name: str) -> dict[str, str]:
    found = client.get_experiment_by_name(name).tags
    return {key: value for key, value in found.items() if key.startswith(TAG)}


def state_of(client: MlflowClient, name: str) -> dict[str, Any]:
    (value,) = tags(client, name).values()
    return json.loads(zlib.decompress(base64.b64decode(json.loads(value)["state"].removeprefix("deflate;"))))


def test_the_view_is_put_where_our_runs_are_and_nowhere_else() -> None:
    client = open_store(tracking_uri())
    for name, tag in (("ours", {"method": "ULSTM"}), ("others'", {"model": "trees"})):
        client.create_run(open_experiment(client, name).experiment_id, tags=tag)
    open_experiment(client, "empty")
    assert [experiment.name for experiment in prepare_views(client)] == ["lightning_cells", "ours"]
    (value,) = tags(client, "ours").values()
    assert json.loads(value)["name"] == "Cells"
    state = state_of(client, "ours")
    assert "metrics.`test/SEG`" in state["selectedColumns"]
    assert "tags.`method`" in state["selectedColumns"]
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == sections
    assert len({chart["uuid"] for chart in state["compareRunCharts"]}) == len(state["compareRunCharts"])
    assert len(value) < 5000, "some databases hold no more"
    assert not tags(client, "others'")
    assert not tags(client, "empty")


def test_the_runs_of_tables_and_folds_are_shown_those_of_sweeps_are_not() -> None:
    client = open_store(tracking_uri())
    place = open_experiment(client, "lightning_cells").experiment_id
    table, sweep = (client.create_run(place).info.run_id for _ in range(2))
    for parent, tag in ((table, {"child": "row 1"}), (table, {"child": "row 2"}), (sweep, {"sweep.trial": "0"})):
        client.create_run(place, tags={MLFLOW_PARENT_RUN_ID: parent, **tag})
    prepare_views(client)
    assert state_of(client, "lightning_cells")["runsExpanded"] == {table: True}


def test_it_is_written_once_and_a_broken_one_again() -> None:
    client = open_store(tracking_uri())
    prepare_views(client)
    before = tags(client, "lightning_cells")
    prepare_views(client)
    assert tags(client, "lightning_cells") == before
    (experiment,) = prepare_views(client)
    client.set_experiment_tag(experiment.experiment_id, next(iter(before)), "broken")
    prepare_views(client)
    (mended,) = tags(client, "lightning_cells").values()
    assert json.loads(mended)["state"] == json.loads(next(iter(before.values())))["state"]


def test_the_address_names_the_tag() -> None:
    client = open_store(tracking_uri())
    (experiment,) = prepare_views(client)
    (tag,) = tags(client, "lightning_cells")
    for page, mode in (("list", "TABLE"), ("charts", "CHART")):
        place = urlsplit(address("http://127.0.0.1:5000/", experiment, page))
        assert place.netloc == "127.0.0.1:5000"
        path, _, query = place.fragment.partition("?")
        assert path == f"/experiments/{experiment.experiment_id}/runs"
        assert parse_qs(query)["viewStateShareKey"] == [tag.removeprefix(TAG)]
        assert parse_qs(query)["compareRunsMode"] == [mode]
