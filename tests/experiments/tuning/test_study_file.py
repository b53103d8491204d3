"""The file of a sweep: what it may say, and what the command line adds."""

from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from lightning_cells.errors import InputError
from lightning_cells.experiments.tuning.study import make_pruner, make_sampler
from lightning_cells.experiments.tuning.study_file import StudyFile

TREE: dict[str, Any] = {
    "study": "mine",
    "configs": ["conf/method/ulstm/tiny.yaml"],
    "set": {"trainer.max_epochs": 2},
    "objective": {"val/SEG": "maximize"},
    "trials": 7,
    "space": {"model.lr": {"float": [1e-4, 1e-2], "log": True}},
}


def plan(folder: Path, **changes: Any) -> StudyFile:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in {**TREE, **changes}.items() if value != "left out"}))
    return StudyFile.read(path)


def test_what_it_says(tmp_path: Path) -> None:
    made = plan(tmp_path)
    assert (made.study, made.trials, made.retries, made.clustering, made.pruner) == ("mine", 7, 1, False, None)
    assert made.words({"model.lr": 0.001}) == [
        "-c",
        "conf/method/ulstm/tiny.yaml",
        "--checkpoint.monitor=val/SEG",
        "--checkpoint.mode=max",
        "--trainer.max_epochs=2",
        "--model.lr=0.001",
    ]
    assert "--checkpoint.mode=min" in plan(tmp_path, objective={"train/loss": "minimize"}).words({})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"trails": 3}, "there is no 'trails': did you mean 'trials'?"),
    "no study": ({"study": "left out"}, "has no 'study'"),
    "no objective": ({"objective": "left out"}, "has no 'objective'"),
    "no space": ({"space": "left out"}, "has no 'space'"),
    "empty space": ({"space": None}, "space: names nothing to vary"),
    "study with a path": ({"study": "../mine"}, "study: '../mine' is no name"),
    "study of nothing": ({"study": " "}, "is no name"),
    "study above": ({"study": ".."}, "is no name"),
    "study with marks": ({"study": "<b>mine</b>"}, "is no name"),
    "direction": ({"objective": {"val/SEG": "max"}}, "objective.val/SEG: 'max' is no direction"),
    "objective without direction": ({"objective": "val/SEG"}, "objective: is no measure with a direction"),
    "no trials": ({"trials": 0}, "trials 0: must be a whole number, at least 1"),
    "retries": ({"retries": -1}, "retries -1: must be"),
    "room": ({"cache_gigabytes": 0}, "cache_gigabytes 0: must be"),
    "configs": ({"configs": "a.yaml"}, "configs: is no list of files"),
    "settings": ({"set": ["a"]}, "set: is no mapping"),
    "sampler": ({"sampler": {"seed": 1}}, "sampler: has no 'class_path'"),
    "pruner of two": (
        {"objective": {"val/SEG": "maximize", "val/TRA": "maximize"}, "pruner": "optuna.pruners.MedianPruner"},
        "Optuna prunes by one objective, not 2",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    changes, expected = REFUSED[name]
    with pytest.raises(InputError) as error:
        plan(tmp_path, **changes)
    assert str(error.value).startswith(f"{tmp_path / 'sweep.yaml'}: ")
    assert expected in str(error.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    space = {"a": {"float": [2, 1]}, "b": {"int": [1, 9], "step": 20}, "c": [1, {"choices": []}]}
    with pytest.raises(InputError) as error:
        plan(tmp_path, trails=3, retries=-1, space=space)
    told = str(error.value).removeprefix(f"{tmp_path / 'sweep.yaml'}: ").split("; ")
    assert [one.partition(": ")[0] for one in told] == [
        "retries -1",
        "space.a.float",
        "space.b.step",
        "space.c.list.1.choices",
        "there is no 'trails'",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"study: [", "is no valid YAML"), (b"- a\n", "is no sweep"), (b"\xff\xfe\x00", "not a readable text file")],
)
def test_file_that_is_no_sweep(content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_bytes(content)
    with pytest.raises(InputError, match=expected):
        StudyFile.read(tmp_path / "sweep.yaml")


def test_command_line_wins(tmp_path: Path) -> None:
    made = plan(tmp_path).adjusted(3, None, ["trainer.max_epochs=9", "data.root=x"])
    assert made.trials == 3
    assert made.settings == {"trainer.max_epochs": "9", "data.root": "x"}
    assert Path(made.configs[0]).is_file(), "configurations that ship are found from anywhere"


def test_command_line_that_does_not_fit(tmp_path: Path) -> None:
    made = plan(tmp_path)
    for arguments, expected in [
        ((0, None, []), "--trials 0: must be"),
        ((None, tmp_path / "x.ckpt", []), "a checkpoint is for a sweep with the key 'checkpoint'"),
        ((None, None, ["model.lr=1"]), "'model.lr' is both set and varied"),
    ]:
        with pytest.raises(InputError) as error:
            made.adjusted(*arguments)
        assert expected in str(error.value)
    clustering = plan(tmp_path, checkpoint=None)
    assert clustering.clustering
    with pytest.raises(InputError, match="needs a trained method: give --checkpoint"):
        clustering.adjusted(None, None, [])
    with pytest.raises(InputError, match="no checkpoint"):
        clustering.adjusted(None, tmp_path / "x.ckpt", [])
    with pytest.raises(InputError, match=r"no file 'nowhere.yaml'"):
        plan(tmp_path, configs=["nowhere.yaml"]).adjusted(None, None, [])


def test_identity_is_what_may_not_change(tmp_path: Path) -> None:
    made = plan(tmp_path).adjusted(None, None, [])
    same = made.adjusted(99, None, ["data.root=elsewhere"])
    assert made.identity() == same.identity()
    assert made.adjusted(None, None, ["trainer.max_epochs=3"]).identity() != made.identity()
    assert made.model_copy(update={"objectives": {"val/TRA": "maximize"}}).identity() != made.identity()
    config = tmp_path / "mine.yaml"
    config.write_text("data: {}")
    before = made.model_copy(update={"configs": (str(config),)}).identity()
    config.write_text("data: {chunk: 4}")
    assert made.model_copy(update={"configs": (str(config),)}).identity() != before


def test_samplers_and_pruners_by_their_class(tmp_path: Path) -> None:
    chosen = {
        "sampler": {"class_path": "optuna.samplers.TPESampler", "init_args": {"seed": 4, "multivariate": True}},
        "pruner": {
            "class_path": "optuna.pruners.PatientPruner",
            "init_args": {"wrapped_pruner": {"class_path": "optuna.pruners.MedianPruner"}, "patience": 2},
        },
    }
    made = plan(tmp_path, **chosen)
    assert isinstance(make_sampler(made), optuna.samplers.TPESampler)
    assert isinstance(make_pruner(made), optuna.pruners.PatientPruner)
    assert isinstance(make_pruner(plan(tmp_path)), optuna.pruners.NopPruner)


def test_workers_with_one_seed_do_not_propose_the_same(tmp_path: Path) -> None:
    made = plan(tmp_path, sampler={"class_path": "optuna.samplers.RandomSampler", "init_args": {"seed": 4}})

    def drawn(number: int) -> float:
        study = optuna.create_study(sampler=make_sampler(made, number))
        return study.ask().suggest_float("x", 0, 1)

    assert drawn(0) == drawn(0), "the study can be repeated"
    assert len({drawn(number) for number in range(5)}) == 5


@pytest.mark.parametrize(
    ("part", "tree", "expected"),
    [
        ("sampler", "optuna.samplers.TPESampeler", "is no sampler: did you mean 'optuna.samplers.TPESampler'?"),
        ("sampler", "nowhere.Mine", "'nowhere.Mine' is no sampler"),
        ("sampler", "optuna.pruners.MedianPruner", "is no sampler"),
        ("pruner", "optuna.pruners.MedainPruner", "did you mean 'optuna.pruners.MedianPruner'?"),
        (
            "pruner",
            {"class_path": "optuna.pruners.MedianPruner", "init_args": {"n_warmup": 1}},
            "MedianPruner has no argument 'n_warmup': did you mean 'n_warmup_steps'?",
        ),
        (
            "pruner",
            {"class_path": "optuna.pruners.MedianPruner", "init_args": {"n_warmup_steps": -1}},
            "MedianPruner: Number of warmup steps cannot be negative",
        ),
    ],
)
def test_sampler_or_pruner_that_there_is_not(part: str, tree: Any, expected: str, tmp_path: Path) -> None:
    made = plan(tmp_path, **{part: tree})
    with pytest.raises(InputError) as error:
        make_sampler(made) if part == "sampler" else make_pruner(made)
    assert expected in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'sweep.yaml'}: {part}: ")
