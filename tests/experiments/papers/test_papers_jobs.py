"""What is run for a table, and what makes a run another one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_papers_table import SMALL, changed, written

from lightning_cells.errors import InputError
from lightning_cells.experiments.papers.jobs import (
    CODE,
    IDENTITY,
    RowJob,
    check_data,
    code_version,
    identified,
    identity,
    jobs_of,
    make_surrogates,
    missing,
)
from lightning_cells.experiments.papers.table import Table, read_table


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
    return read_table(str(written(tmp_path, tree)))


def option(words: tuple[str, ...], name: str) -> str:
    """The value of the last option of that name."""
    return [word.split("=", 1)[1] for word in words if word.startswith(f"--{name}=")][-1]


def test_rows_data_folds_and_seeds_are_crossed(table: Table, home: Path) -> None:
    jobs = jobs_of(table, "tiny", {})
    units = [("x", fold, seed) for fold in (0, 1) for seed in (1, 2)]
    assert [job.unit for job in jobs if job.row == "one"] == units
    assert [job.unit for job in jobs if job.row == "rule"] == [("x", 0, 1), ("x", 1, 1)], "nothing in it is random"
    assert [job.row for job in jobs[-4:]] == ["two"] * 4, "weights have to be there before others take them"
    first = jobs[0]
    assert first.fit[:6] == ("-c", "all.yaml", "-c", "row.yaml", "-c", "data.yaml")
    assert (option(first.fit, "model.lr"), option(first.fit, "data.chunk")) == ("0.5", "9")
    assert option(first.fit, "data.root") == str(home / "reproduce/data/nuclei-3x4-32x48-seed7")
    assert (option(first.fit, "data.folds"), option(jobs[2].fit, "data.fold")) == ("2", "1")
    assert first.weights == "last", "the best one was chosen by the fold that is measured"


def test_options_of_the_call_win(table: Table) -> None:
    assert option(jobs_of(table, "tiny", {"model.lr": "7"})[0].fit, "model.lr") == "7"


def test_a_row_with_the_weights_of_another_tests_them_with_its_own_options(table: Table) -> None:
    jobs = jobs_of(table, "tiny", {})
    source, job = jobs[1], jobs[-3]
    assert (job.weights_of, job.unit) == (source, source.unit)
    assert (option(job.fit, "model.lr"), option(job.tests["x"], "model.lr")) == ("0.5", "0.25")


def test_other_data_are_tested_without_the_choice_of_the_training(table: Table) -> None:
    job = jobs_of(table, "paper", {})[0]
    assert list(job.tests) == ["y", "z"]
    words = job.tests["y"]
    assert (option(words, "data.root"), option(words, "data.test"), option(words, "data.train")) == (
        "Y",
        '["01"]',
        "null",
    )
    assert job.weights == "best"


def test_videos_are_tracked_as_anyone_s_where_the_table_says_so(tmp_path: Path) -> None:
    tree = changed("paper", "data", "x", "tests", "y", "unseen", value=True)
    tree["rows"]["two"] = {}
    job = jobs_of(read_table(str(written(tmp_path, tree))), "paper", {})[0]
    assert (list(job.tests), job.unseen) == (["y", "z"], {"y"})


def described(words: tuple[str, ...], verb: str) -> dict[str, Any]:
    """A configuration that is made of the words, of data whose contents are their name."""
    data = {"root": option(words, "data.root"), "chunk": option(words, "data.chunk")}
    return {"data": data, "model": [word for word in words if "model" in word], "contents": Path(data["root"]).name}


def test_what_makes_a_run_another_one(table: Table) -> None:
    (one, seeded, *_), (again, *_) = jobs_of(table, "tiny", {}), jobs_of(table, "tiny", {})
    assert identity(one, described) == identity(again, described)
    changes = {
        "seed": seeded,
        "fold": jobs_of(table, "tiny", {})[2],
        "option": jobs_of(table, "tiny", {"model.lr": "7"})[0],
        "weights": replace(one, weights="best"),
        "unseen": replace(one, unseen=frozenset({"x"})),
        "test": replace(one, tests={"x": (*one.tests["x"], "--model.decoder=other")}),
    }
    found = {what: identity(job, described) for what, job in changes.items()}
    assert identity(one, described) not in found.values()
    assert len(set(found.values())) == len(found)

    def other_contents(words: tuple[str, ...], verb: str) -> dict[str, Any]:
        return described(words, verb) | {"contents": "other"}

    assert identity(one, other_contents) != identity(one, described)


def test_a_classical_pipeline_does_not_depend_on_the_method(table: Table) -> None:
    def rule(overrides: dict[str, Any]) -> RowJob:
        return next(job for job in jobs_of(table, "tiny", overrides) if job.classical)

    assert identity(rule({}), described) == identity(rule({"model.lr": "7"}), described)
    assert identity(rule({}), described) != identity(rule({"data.chunk": "7"}), described)


def test_jobs_are_known_by_what_they_are_and_by_their_code(table: Table) -> None:
    jobs = jobs_of(table, "tiny", {})
    known = identified("t", jobs, described)
    assert [job.name for job in known] == [job.name for job in jobs]
    assert all(job.tags == {IDENTITY: identity(job, described), CODE: code_version()} for job in known)
    assert known[-3].weights_of is known[1]

    def broken(words: tuple[str, ...], verb: str) -> dict[str, Any]:
        raise InputError("no light")

    with pytest.raises(InputError, match="table t, one, x, fold 0 of 2, seed 1: no light"):
        identified("t", jobs, broken)


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
    assert missing(read_table(str(written(tmp_path, tree))), "paper") == ["ask the authors"]
