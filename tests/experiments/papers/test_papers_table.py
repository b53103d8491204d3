"""The files of tables: what is read, and how mistakes are told."""

from pathlib import Path
from typing import Any

import pytest
import tifffile
import yaml

from lightning_cells.data.simulate import simulate
from lightning_cells.errors import InputError
from lightning_cells.experiments.papers.jobs import jobs_of
from lightning_cells.experiments.papers.table import Simulation, names, read_table

SURROGATE = {"kind": "nuclei", "sequences": 3, "frames": 4, "size": [32, 48], "seed": 7}
SMALL: dict[str, Any] = {
    "title": "a",
    "source": "b",
    "measured": "c",
    "measures": ["SEG"],
    "tolerance": 1,
    "rows": {"one": {"values": {"x": {"SEG": 0.5}}}, "two": {"weights_of": "one"}},
    "claims": [{"better": "one", "worse": "two", "measure": "SEG", "paper": "it does"}],
    "tiny": {"data": {"x": {"surrogate": SURROGATE}}},
    "paper": {"data": {"x": {"root": "X", "tests": {"y": {"root": "Y"}, "z": {"root": "Z"}}}}},
}


def written(tmp_path: Path, tree: Any) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def changed(*keys: str | int, value: Any) -> Any:
    """The small table with another value somewhere."""
    tree = yaml.safe_load(yaml.safe_dump(SMALL))
    inside = tree
    for key in keys[:-1]:
        inside = inside[key]
    inside[keys[-1]] = value
    return tree


def test_a_table_is_read_with_its_types(tmp_path: Path) -> None:
    table = read_table(str(written(tmp_path, SMALL)))
    assert table.tolerance == 1.0
    assert isinstance(table.tolerance, float)
    assert table.rows["one"].values == {"x": {"SEG": 0.5}}
    assert table.tiny.data["x"].surrogate.name == "nuclei-3x4-32x48-seed7"
    assert (table.columns("tiny"), table.columns("paper")) == (["x"], ["y", "z"])


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (("tolrance",), 1, "mine.yaml: there is no 'tolrance': did you mean 'tolerance'?"),
        (("tolerance",), "much", "mine.yaml: tolerance: should be a valid number, not 'much'"),
        (("tolerance",), True, "mine.yaml: tolerance: should be a valid number, not 'True'"),
        (("measures",), "SEG", "mine.yaml: measures: 'SEG' is no list: write [SEG]"),
        (("rows",), ["one"], "mine.yaml: rows: should be a valid mapping, not '['one']'"),
        (
            ("rows", "one", "values"),
            {"x": {"SGE": 1}},
            "rows.one.values.x: there is no measure 'SGE': did you mean 'SEG'?",
        ),
        (("rows", "one", "values"), {"xx": {"SEG": 1}}, "rows.one.values: there is no column 'xx': did you mean 'x'?"),
        (("rows", "two", "weights_of"), "onne", "rows.two.weights_of: there is no row 'onne': did you mean 'one'?"),
        (("rows", "one", "weights_of"), "two", "row 'two' is not trained: name one that is"),
        (("rows", "one", "tiny"), {"by_data": {"y": {}}}, "rows.one.tiny.by_data: there is no data 'y'"),
        (("claims", 0, "worse"), "tow", "claims.0.worse: there is no row 'tow': did you mean 'two'?"),
        (
            ("paper", "data", "x", "tests", "y"),
            {"root": "Y", "unseen": True},
            "rows.two.weights_of: 'unseen' tests know the options of the training alone: train the row",
        ),
        (("tiny", "data", "x"), {}, "tiny.data.x: needs a 'root' or a 'surrogate'"),
        (("tiny", "weights"), "first", "tiny.weights: should be 'best' or 'last', not 'first'"),
        (("tiny", "data", "x", "surrogate", "size"), [32], "surrogate.size: [32] is no size: write [height, width]"),
        (("tiny", "data", "x", "surrogate"), {"kind": "nuclei"}, "tiny.data.x.surrogate: has no 'sequences': add it"),
    ],
)
def test_a_mistake_is_told_by_file_and_key(keys: Any, value: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as told:
        read_table(str(written(tmp_path, changed(*keys, value=value))))
    assert said in str(told.value)
    assert "mine.yaml" in str(told.value)
    assert "\n" not in str(told.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    tree = changed("rows", "two", value={"weights_of": "onne", "values": {"xx": {}}})
    tree["claims"][0]["worse"] = "tow"
    with pytest.raises(InputError) as told:
        read_table(str(written(tmp_path, tree)))
    for said in ("rows.two.weights_of: there is no row 'onne'", "rows.two.values: there is no column 'xx'", "'tow'"):
        assert said in str(told.value)
    with pytest.raises(InputError, match=r"tolerance: should be .*; .*minutes: should be"):
        read_table(str(written(tmp_path, changed("tiny", "minutes", value="few") | {"tolerance": "much"})))


@pytest.mark.parametrize(("text", "said"), [("a: [", "line 1: is no valid YAML"), ("- a", "is no table")])
def test_a_file_that_is_no_table(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_table(str(path))


def test_every_shipped_table_is_sound() -> None:
    assert names() == [
        "adversarial-few-shot",
        "brightfield",
        "gruunet-challenge",
        "gruunet-insights",
        "gruunet-loss",
        "rshn-ablation",
        "rshn-challenge",
        "rshn-fibres",
        "ulstm-challenge",
        "ulstm-loss",
        "ulstm-memory",
        "unseen",
    ]
    for name in names():
        table = read_table(name)
        assert table.tiny.minutes is not None, f"{name}: --list is to say how long it takes"
        real = [table.scale(scale).data for scale in table.scales if scale != "tiny"]
        measured = [part for data in real for one in data.values() for part in one.tests.values() or [one]]
        simulated = [data for data in table.tiny.data.values() if data.surrogate is None]
        assert measured, f"{name}: there is more than tiny"
        assert all(part.root for part in measured), f"{name}: the larger scales are measured on real data"
        small = [] if table.small is None else table.parts("small")
        assert all(part.surrogate for part in small), f"{name}: scale small runs without any data, too"
        assert not simulated, f"{name}: scale tiny needs no download"


def test_nothing_is_unseen_of_which_a_video_was_trained_on() -> None:
    """Neither by its name among real data, nor as a surrogate of the same seed."""
    table = read_table("unseen")
    for scale in table.scales:
        for data in table.scale(scale).data.values():
            assert data.tests
            for test in data.tests.values():
                assert test.unseen
                assert test.root is None or test.root != data.root
                assert test.surrogate is None or test.surrogate != data.surrogate


def test_simulated_data_stand_in_for_real_ones_by_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_CELLS_DATA", str(tmp_path / "data"))
    real = {"root": "Z", "set": {"data.scale": 0.5}, "surrogate": SURROGATE, "surrogate_set": {"data.scale": 1.0}}
    tree = {**SMALL, "small": {"data": {"z": real}}}
    table = read_table(str(written(tmp_path, tree)))
    (job, _) = jobs_of(table, "small", {})
    assert table.columns("small") == list(job.tests) == ["z (simulated)"]
    assert "--data.scale=1.0" in job.fit
    assert f"--data.root={table.small.data['z'].path}" in job.fit
    (tmp_path / "data/Z").mkdir(parents=True)
    table = read_table(str(written(tmp_path, tree)))
    (job, _) = jobs_of(table, "small", {})
    assert table.columns("small") == list(job.tests) == ["z"]
    assert {"--data.scale=0.5", "--data.root=Z"} <= set(job.fit)


def test_a_scale_that_a_table_lacks(tmp_path: Path) -> None:
    table = read_table(str(written(tmp_path, SMALL)))
    assert table.scales == ["tiny", "paper"]
    with pytest.raises(InputError, match="'a' has no scale small: give --scale tiny or paper"):
        table.scale("small")


def test_a_surrogate_of_volumes_has_a_folder_of_its_own(tmp_path: Path) -> None:
    flat = {"kind": "nuclei", "sequences": 1, "frames": 2, "size": [48, 40], "seed": 1}
    deep = Simulation(**flat, depth=4, voxel=(3.0, 1.0, 1.0))
    assert Simulation(**flat).name == "nuclei-1x2-48x40-seed1"
    assert deep.name == "nuclei-1x2-4x48x40-voxel3x1x1-seed1"
    out = simulate(tmp_path / deep.name, **dict(deep))
    assert tifffile.imread(out / "01/t000.tif").shape == (4, 48, 40)
