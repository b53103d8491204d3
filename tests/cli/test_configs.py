"""Every configuration that ships goes through fit, test and predict; none can escape."""

import itertools
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from cli_cases import METHOD, NO_RUN, PLACE, QUIET, SHORT, SPLIT, complaint, fit, say

import lightning_cells
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.data.simulate import simulate

CONF = Path(lightning_cells.__file__).parents[1] / "conf"
METHODS = sorted(CONF.glob("method/*/*.yaml"))
DATA = sorted(CONF.glob("data/*.yaml"))
TRAINERS = sorted(CONF.glob("trainer/*.yaml"))
VERBS = ("fit", "test", "predict")
FAST = ["--trainer.fast_dev_run", "true"]


def name(path: Path) -> str:
    return str(path.relative_to(CONF).with_suffix(""))


def test_no_configuration_is_of_an_unknown_kind() -> None:
    assert METHODS
    assert DATA
    assert TRAINERS
    assert {path for path in CONF.rglob("*") if path.is_file()} == {*METHODS, *DATA, *TRAINERS}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos so small that networks of the papers' sizes are quick enough: their widths are not changed."""
    return simulate(tmp_path_factory.mktemp("small") / "small", sequences=3, frames=4, size=(32, 32), cells=2)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("config", METHODS, ids=name)
def test_method(config: Path, verb: str, small: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = [verb, "-c", config, *QUIET, *SPLIT, *FAST, "--data.root", small, "--data.predict", "['01']"]
    short = ["--data.clip_length", "2", "--data.augmentation.crop", "32", "--data.batch_size", "1"]
    said = say(capfd, *words, *short, "--data.num_workers", "0")
    assert (said.status, said.err) == (0, "")


@pytest.mark.parametrize("config", [path for path in METHODS if path.stem == "tiny"], ids=name)
def test_checkpoint_of_tiny_method_is_enough(
    config: Path, small: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint = fit(small, home, *NO_RUN, method=("-c", str(config)))
    assert say(capfd, "predict", *QUIET, "--data.root", small, "--ckpt_path", checkpoint).status == 0
    assert sorted(path.name for path in (home / "predictions/small").iterdir()) == ["01_RES", "02_RES", "03_RES"]


def stand_in(data: dict[str, Any], folder: Path) -> Path:
    """Simulates a data set with the name, the videos and the frames that a configuration asks for."""
    assert data.get("layout", "ctc") == "ctc", "teach this test to make a stand-in for this layout"
    selectors = itertools.chain.from_iterable(data.get(part) or [] for part in ("train", "val", "test", "predict"))
    videos, frames = 1, 8
    for selector in selectors:
        pattern, _, limits = selector.removesuffix("]").partition("[") if ":" in selector else (selector, "", "")
        videos = max(n for n in range(videos, 21) if n == videos or fnmatchcase(f"{n:02d}", pattern))
        frames = max(frames, *(int(limit) + 4 for limit in limits.split(":") if limit), 0)
    return simulate(folder / data["root"], sequences=videos, frames=frames, size=(32, 32), cells=2)


@pytest.mark.parametrize("config", DATA, ids=name)
def test_data(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    data = yaml.safe_load(config.read_text())["data"]
    assert not Path(data["root"]).is_absolute()
    stand_in(data, tmp_path)
    monkeypatch.setenv("LIGHTNING_CELLS_DATA", str(tmp_path))
    for verb in VERBS:
        said = say(capfd, verb, *METHOD, "-c", config, *QUIET, *FAST, "--data.batch_size", "1")
        assert (said.status, said.err) == (0, ""), verb


@pytest.mark.parametrize("config", DATA, ids=name)
def test_data_are_held_out(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = yaml.safe_load(config.read_text())["data"]
    stand_in(data, tmp_path)
    monkeypatch.setenv("LIGHTNING_CELLS_DATA", str(tmp_path))
    datamodule = SequenceDataModule(**{key: value for key, value in data.items() if key != "augmentation"})
    datamodule.setup("validate")
    parts = {
        part: {(s.name, number) for s in sequences for number in s.numbers}
        for part, sequences in datamodule.sequences.items()
    }
    assert all(parts.values())
    assert not parts["train"] & parts["val"]
    assert not parts["train"] & parts["test"]


@pytest.fixture
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leaves the process group that ddp has made of this process alone, and forgets what it was told of it."""
    for place in PLACE:
        monkeypatch.delenv(place, raising=False)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    for place in PLACE:
        os.environ.pop(place, None)


@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize("config", TRAINERS, ids=name)
def test_trainer(config: Path, simulated: Path, capfd: pytest.CaptureFixture[str]) -> None:
    here = [*QUIET, *SPLIT, *SHORT, *FAST, "--data.root", str(simulated)]
    for verb in VERBS:
        assert say(capfd, verb, *METHOD, "-c", config, *here).status == 0, verb


def test_configurations_say_what_they_are_for() -> None:
    for path in (*METHODS, *DATA, *TRAINERS):
        assert path.read_text().startswith("# "), path


def test_configuration_that_does_not_fit_is_noticed(
    tmp_path: Path, simulated: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The tests above would see a misspelt key: here is one."""
    config = tmp_path / "wrong.yaml"
    config.write_text(METHODS[0].read_text().replace("clip_length:", "clip_lenth:"))
    line = complaint(capfd, "fit", "-c", config, *QUIET, *SPLIT, *FAST, "--data.root", simulated)
    assert line == "there is no option 'data.clip_lenth': did you mean 'data.clip_length'?"
