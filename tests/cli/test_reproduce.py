"""The papers' tables as a user runs them: a miniature from beginning to end, and the shipped ones as far as parsed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cli_cases import complaint, say
from mlflow import MlflowClient

from lightning_cells.cli.resolving import Resolver
from lightning_cells.data.image_files import read_mask, write_image
from lightning_cells.data.simulate import simulate
from lightning_cells.experiments.papers.jobs import jobs_of
from lightning_cells.experiments.papers.report import BEGIN, END
from lightning_cells.experiments.papers.table import names, read_table
from lightning_cells.loggers.store import tracking_uri

Capture = pytest.CaptureFixture[str]
MINIATURE: dict[str, Any] = {
    "title": "A miniature",
    "source": "nobody",
    "measured": "nothing",
    "measures": ["SEG"],
    "tolerance": 0.1,
    "rows": {
        "trained": {"values": {"x": {"SEG": 0.5}}},
        "decoded": {"weights_of": "trained", "set": {"model.decoder.min_size": 4}},
        "classical": {"classical": True},
        "forest": {"classical": "forest"},
    },
    "claims": [{"better": "classical", "worse": "trained", "measure": "SEG", "paper": "six steps are few"}],
    "tiny": {
        "configs": ["conf/method/ulstm/tiny.yaml", "conf/trainer/cpu.yaml"],
        "set": {
            "data.train": ["01"],
            "data.val": ["02[0:2]"],
            "data.test": ["02[2:6]"],
            "data.clip_length": 2,
            "data.batches_per_epoch": 6,
            "data.augmentation.crop": 32,
            "trainer.max_epochs": 1,
        },
        "weights": "last",
        "data": {"x": {"surrogate": {"kind": "nuclei", "sequences": 2, "frames": 6, "size": [48, 48], "seed": 1}}},
    },
    "paper": {"data": {"x": {"root": "Fluo-N2DH-SIM+"}}},
}


@pytest.fixture
def miniature(tmp_path: Path) -> Path:
    path = tmp_path / "miniature.yaml"
    path.write_text(yaml.safe_dump(MINIATURE))
    return path


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_a_table_from_beginning_to_end(miniature: Path, home: Path, tmp_path: Path, capfd: Capture) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\n{END}\n")
    said = say(capfd, "reproduce", miniature, "--workers", "2", "--readme", readme)
    assert said.status == 0, said.err
    folder = home / "reproduce/miniature"
    result = json.loads((folder / "tiny.json").read_text())
    values = {cell["row"]: cell["values"] for cell in result["cells"]}
    assert set(values) == {"trained", "decoded", "classical", "forest"}
    assert values["classical"][0] > 0.3, "a threshold finds simulated nuclei"
    assert values["forest"][0] > 0.3, "so does a classifier of pixels"
    assert "| trained | x | " in (folder / "tiny.md").read_text()
    assert "| `miniature` | classical | x | SEG | " in readme.read_text()
    assert (folder / "tiny.png").stat().st_size > 5000

    client = MlflowClient(tracking_uri())
    place = client.get_experiment_by_name("lightning_cells").experiment_id
    (parent,) = client.search_runs([place], "tags.`reproduce.table` = 'miniature'")
    children = client.search_runs([place], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    by_row = {run.data.tags["child"].split(",")[0]: run for run in children}
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    for row, run in by_row.items():
        assert run.data.metrics["test/SEG"] == pytest.approx(values[row][0])
    lengths = {"diameter", "window", "blur", "depth", "min_size"}
    assert by_row["classical"].data.params.keys() == {"dark", "level", *lengths}
    assert by_row["forest"].data.params.keys() == {"classifier"}
    assert by_row["trained"].data.tags["method"] == "ULSTM"
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {"tiny.md", "tiny.json", "tiny.png"}

    again = say(capfd, "reproduce", miniature)
    assert "4 of 4 runs are there already" in again.out
    assert len(client.search_runs([place])) == 5
    assert json.loads((folder / "tiny.json").read_text()) == result


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_unseen_videos_are_tracked_as_anyone_s(tmp_path: Path, home: Path, capfd: Capture) -> None:
    """Of cells of twice the size: results, and what they took."""
    tree = yaml.safe_load(yaml.safe_dump(MINIATURE))
    tree["rows"] = {name: tree["rows"][name] for name in ("trained", "classical")}
    del tree["rows"]["trained"]["values"]
    tree["measures"] = ["SEG", "DET", "CPU minutes", "s/frame"]
    large = simulate(tmp_path / "large", sequences=1, frames=3, size=(48, 48), seed=2)
    for path in large.rglob("*.tif"):
        write_image(path, np.kron(read_mask(path), np.ones((2, 2), np.uint16)))
    tree["tiny"]["data"]["x"]["tests"] = {"y": {"root": str(large), "set": {"data.test": ["01"]}, "unseen": True}}
    path = tmp_path / "miniature.yaml"
    path.write_text(yaml.safe_dump(tree))
    said = say(capfd, "reproduce", path)
    assert said.status == 0, said.err
    cells = json.loads((home / "reproduce/miniature/tiny.json").read_text())["cells"]
    values = {(cell["row"], cell["measure"]): cell["values"][0] for cell in cells}
    assert values["classical", "SEG"] > 0.3, "a threshold finds simulated nuclei"
    for row in ("trained", "classical"):
        assert 0 < values[row, "CPU minutes"] < 5
        assert 0 < values[row, "s/frame"] < 5
        assert 0 <= values[row, "SEG"] <= 1


def test_missing_data_are_told_with_the_command(miniature: Path, home: Path, capfd: Capture) -> None:
    said = complaint(capfd, "reproduce", miniature, "--scale", "paper")
    assert "lightning-cells download Fluo-N2DH-SIM+" in said
    assert not (home / "mlflow.db").exists(), "nothing is begun"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["ulstm-los"], "there is no table 'ulstm-los': did you mean 'ulstm-loss'?"),
        (["ulstm-loss", "--wrokers", "2"], "there is no option 'wrokers': did you mean 'workers'?"),
        (["ulstm-loss", "--model.channel=3"], "there is no option 'model.channel': did you mean 'model.channels'?"),
        (["ulstm-loss", "--seed_everything=3"], "--seed_everything: each table has its own seeds"),
        (["ulstm-loss", "--readme", "absent.md"], "--readme absent.md: is not a readable text file"),
        (["ulstm-loss", "--workers", "0"], "--workers 0: must be at least 1"),
    ],
)
def test_mistakes(words: list[str], told: str, capfd: Capture) -> None:
    assert told in complaint(capfd, "reproduce", *words)


def test_the_list_says_what_each_table_needs(capfd: Capture) -> None:
    said = say(capfd, "reproduce", "--list", "--scale", "paper").out
    for name in names():
        assert (f"{name}: " in said) == ("paper" in read_table(name).scales)
    assert "data: Fluo-N2DH-SIM+, Fluo-N2DH-GOWT1; missing: lightning-cells download Fluo-N2DH-SIM+; " in said
    assert "rshn-ablation" in say(capfd, "reproduce", "rshn-ablation", "--list").out


@pytest.fixture(scope="module")
def resolver() -> Resolver:
    return Resolver()


@pytest.mark.parametrize(("name", "scale"), [(name, scale) for name in names() for scale in read_table(name).scales])
def test_every_row_of_a_shipped_table_is_a_command(name: str, scale: Any, resolver: Resolver) -> None:
    """Of each row and column one fold and seed: the others differ in a number."""
    seen = set()
    for job in jobs_of(read_table(name), scale, {}):
        if (job.row, job.data) not in seen:
            seen.add((job.row, job.data))
            for words in {job.fit, *job.tests.values()}:
                resolver.resolve(list(words))


@pytest.mark.parametrize("scale", ["tiny", "paper"])
def test_the_losses_on_fibres_differ_in_nothing_else(scale: Any, resolver: Resolver) -> None:
    """Payer et al. 2019, section 5.1: the same network, and all that it is trained with."""
    jobs = {job.row: job for job in jobs_of(read_table("rshn-fibres"), scale, {})}
    ours, theirs = (
        yaml.safe_load(resolver.text([*jobs[row].fit])) for row in ("cosine embeddings", "weighted cross entropy")
    )
    for config in (ours, theirs):
        config["data"].pop("chunk")  # what is in memory at inference
    assert ours["data"] == theirs["data"]
    assert ours["trainer"] == theirs["trainer"]
    hourglass, other = ours["model"]["init_args"], theirs["model"]["init_args"]
    assert hourglass["temporal"] == "single-frame"
    sizes = other["network"]["init_args"]
    assert sizes == {name: hourglass[name] for name in sizes}
    rates = [{**method["optimization"]} for method in (hourglass, other)]
    assert [rate.pop("weight_decay") or 0 for rate in rates] in ([0, 0], [1e-5, 1e-5])
    assert rates[0] == rates[1]
    assert hourglass["decoder"]["min_size"] == other["decoder"]["init_args"]["min_size"]
