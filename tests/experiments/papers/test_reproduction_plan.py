"""What is run for a table, and what makes a run another one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_reproduction_table import SMALL, changed, written

from lightning_cells.errors import InputError
from lightning_cells.experiments.papers.plan import Job, check_data, identity, make_surrogates, missing, plan
from lightning_cells.experiments.papers.table import Table, parse_table


@pytest.fixture
def table(tmp_path: Path) -> Table:
    tree = yaml.safe_load(yaml.safe_dump(SMALL))
    tree["rows"]["one"] |= {
        "set": {"model.lr": 0.5},
        "tiny": {"configs": ["row.yaml"], "by_data": {"x": {"data.chunk": 9}}},
    }
    tree["rows"]["two"] |= {"set": {"model.lr": 0.25}}
    tree["rows"]["rule"] = {"classical": True}
    tree["tiny"] |= {"configs": ["all.yaml"], "set": {"model.lr": 1, "data.chunk": 2}, "seeds": [1, 2], "folds": 2}
    tree["tiny"]["data"]["x"]["configs"] = ["data.yaml"]
    tree["paper"]["data"]["x"]["tests"]["y"]["set"] = {"data.test": ["01"]}
    return parse_table(written(tmp_path, tree))


def option(words: tuple[str, ...], name: str) -> str:
    """The value of the last option of that name."""
    return [word.split("=", 1)[1] for word in words if word.startswith(f"--{name}=")][-1]


def test_rows_data_folds_and_seeds_are_crossed(table: Table, home: Path) -> None:
    jobs = plan(table, "tiny", {})
    units = [("x", fold, seed) for fold in (0, 1) for seed in (1, 2)]
    assert [job.unit for job in jobs if job.row == "one"] == units
    assert [job.unit for job in jobs if job.row == "rule"] == [("x", 0, 1), ("x", 1, 1)], "nothing in it is random"
    assert [job.row for job in jobs[-4:]] == ["two"] * 4, "weights have to be there before others take them"
    first = jobs[0]
    assert first.words[:6] == ("-c", "all.yaml", "-c", "row.yaml", "-c", "data.yaml")
    assert (option(first.words, "model.lr"), option(first.words, "data.chunk")) == ("0.5", "9")
    assert option(first.words, "data.root") == str(home / "reproduce/data/nuclei-3x4-32x48-seed7")
    assert (option(first.words, "data.folds"), option(jobs[2].words, "data.fold")) == ("2", "1")
    assert first.weights == "last", "the best one was chosen by the fold that is measured"


def test_options_of_the_call_win(table: Table) -> None:
    assert option(plan(table, "tiny", {"model.lr": "7"})[0].words, "model.lr") == "7"


def test_a_row_with_the_weights_of_another_tests_them_with_its_own_options(table: Table) -> None:
    jobs = plan(table, "tiny", {})
    source, job = jobs[1], jobs[-3]
    assert (job.kind, job.source, job.unit) == ("measure", source, source.unit)
    assert (option(job.words, "model.lr"), option(job.tests["x"], "model.lr")) == ("0.5", "0.25")


def test_other_data_are_tested_without_the_choice_of_the_training(table: Table) -> None:
    job = plan(table, "paper", {})[0]
    assert list(job.tests) == ["y", "z"]
    words = job.tests["y"]
    assert (option(words, "data.root"), option(words, "data.test"), option(words, "data.train")) == (
        "Y",
        '["01"]',
        "null",
    )
    assert job.weights == "best"


def described(words: tuple[str, ...], verb: str) -> dict[str, Any]:
    """A configuration that is made of the words, of data whose contents are their name."""
    data = {"root": option(words, "data.root"), "chunk": option(words, "data.chunk")}
    return {"data": data, "model": [word for word in words if "model" in word], "contents": Path(data["root"]).name}


def test_what_makes_a_run_another_one(table: Table) -> None:
    (one, seeded, *_), (again, *_) = plan(table, "tiny", {}), plan(table, "tiny", {})
    assert identity(one, described) == identity(again, described)
    changes = {
        "seed": seeded,
        "fold": plan(table, "tiny", {})[2],
        "option": plan(table, "tiny", {"model.lr": "7"})[0],
        "weights": replace(one, weights="best"),
        "test": replace(one, tests={"x": (*one.tests["x"], "--model.decoder=other")}),
    }
    found = {what: identity(job, described) for what, job in changes.items()}
    assert identity(one, described) not in found.values()
    assert len(set(found.values())) == len(found)

    def other_contents(words: tuple[str, ...], verb: str) -> dict[str, Any]:
        return described(words, verb) | {"contents": "other"}

    assert identity(one, other_contents) != identity(one, described)


def test_a_classical_pipeline_does_not_depend_on_the_method(table: Table) -> None:
    def rule(overrides: dict[str, Any]) -> Job:
        return next(job for job in plan(table, "tiny", overrides) if job.kind == "classical")

    assert identity(rule({}), described) == identity(rule({"model.lr": "7"}), described)
    assert identity(rule({}), described) != identity(rule({"data.chunk": "7"}), described)


def test_surrogates_are_made_once(table: Table, home: Path) -> None:
    make_surrogates([table, table], "tiny")
    image = home / "reproduce/data/nuclei-3x4-32x48-seed7/03/t003.tif"
    before = image.stat().st_mtime_ns
    make_surrogates([table], "tiny")
    assert image.stat().st_mtime_ns == before


def test_missing_data_are_told_with_the_command_that_gets_them(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTNING_CELLS_DATA", str(tmp_path))
    (tmp_path / "Y").mkdir()
    assert missing(table, "paper") == ["lightning-cells download X", "lightning-cells download Z"]
    with pytest.raises(InputError, match=r"table t at scale paper: .*: lightning-cells download X; .*--scale tiny"):
        check_data("t", table, "paper", {})
    check_data("t", table, "tiny", {})
    check_data("t", table, "paper", {"data.root": "Y"})


def test_private_data_are_told_in_words(tmp_path: Path) -> None:
    tree = changed("paper", "data", value={"x": {"root": "X", "private": "ask the authors"}})
    assert missing(parse_table(written(tmp_path, tree)), "paper") == ["ask the authors"]
