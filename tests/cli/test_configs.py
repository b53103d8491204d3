"""Every configuration that ships goes through fit, test and predict; none can escape."""

import itertools
import math
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from cli_cases import METHOD, NO_RUN, PLACE, QUIET, SHORT, SPLIT, complaint, fit, printed, say

import lightning_cells
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.data.image_files import write_image
from lightning_cells.data.simulate import simulate

CONF = Path(lightning_cells.__file__).parents[1] / "conf"
METHODS = sorted(CONF.glob("method/*/*.yaml"))
DATA = sorted(CONF.glob("data/*.yaml"))
OVERLAYS = sorted(CONF.glob("method/*/data/*.yaml"))  # what a method needs on a data set
TRAINERS = sorted(CONF.glob("trainer/*.yaml"))
TABLES = sorted(CONF.glob("reproduce/*.yaml"))  # resolved by test_reproduce.py
VERBS = ("fit", "test", "predict")
FAST = ["--trainer.fast_dev_run", "true"]


def name(path: Path) -> str:
    return str(path.relative_to(CONF).with_suffix(""))


def test_no_configuration_is_of_an_unknown_kind() -> None:
    assert METHODS
    assert DATA
    assert TRAINERS
    assert OVERLAYS
    assert {path for path in CONF.rglob("*") if path.is_file()} == {*METHODS, *DATA, *TRAINERS, *OVERLAYS, *TABLES}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos so small that networks of the papers' sizes are quick enough: their widths are not changed.

    They have truth of all kinds: instances, tracks and classes.
    """
    folder = tmp_path_factory.mktemp("small") / "small"
    return simulate(folder, "brightfield", sequences=3, frames=4, size=(32, 32), cells=2)


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


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos that are wider than twice the margins that the challenge leaves out."""
    return simulate(tmp_path_factory.mktemp("wide") / "wide", sequences=3, frames=4, size=(108, 112), cells=4)


def overlaid(config: Path, preset: str) -> list[str | Path]:
    """Options of a method on a data set: three files, the overlay last."""
    data = CONF / "data" / config.name
    assert data in DATA, "an overlay has the name of its data set"
    return ["-c", config.parents[1] / f"{preset}.yaml", "-c", data, "-c", config]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("config", OVERLAYS, ids=name)
def test_overlay(config: Path, verb: str, wide: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = [verb, *overlaid(config, "tiny"), *QUIET, *SPLIT, *FAST, "--data.root", wide, "--data.predict", "['01']"]
    said = say(capfd, *words, "--data.test", "['03']", "--data.augmentation.crop", "32", "--data.batch_size", "1")
    assert (said.status, said.err) == (0, "")


# Payer et al. 2019, table 1, and the authors' public code: size on disk, of the resampled frames, least size, radius;
# border, dilation, frames back, smoothing
RSHN = {
    "dic-c2dh-hela": ((512, 512), (256, 256), 500, 50, 50, 0, 8, 2),
    "fluo-c2dl-msc": ((1200, 782), (384, 256), 100, 150, 50, 0, 8, 0),
    "fluo-n2dh-gowt1": ((1024, 1024), (512, 512), 100, 50, 50, 5, 2, 0),
    "fluo-n2dl-hela": ((1100, 700), (1100, 700), 50, 10, 25, 3, 2, 0),
    "phc-c2dh-u373": ((696, 520), (512, 384), 500, 50, 50, 0, 8, 0),
    "fluo-n2dh-sim+": ((690, 628), (512, 512), 100, 50, 0, 5, 2, 0),
}


@pytest.mark.parametrize("preset", ["paper", "code"])
def test_rshn_on_the_data_sets_of_its_paper(preset: str, capfd: pytest.CaptureFixture[str]) -> None:
    overlays = {path.stem: path for path in OVERLAYS if path.parents[1].name == "rshn"}
    assert overlays.keys() == RSHN.keys()
    for stem, (size, resampled, least, radius, border, dilation, back, smoothing) in RSHN.items():
        config = printed(capfd, "fit", *overlaid(overlays[stem], preset))
        model, data = config["model"]["init_args"], config["data"]
        linking = model["linking"]
        assert (model["decoder"]["min_size"], model["neighbour_radius"]) == (least, radius)
        assert (linking["border"], linking["parent_dilation"], linking["parent_frames"]) == (border, dilation, back)
        assert (data["augmentation"]["label_smoothing"], data["normalisation"]) == (smoothing, "percentile")
        exact = math.sqrt(math.prod(resampled) / math.prod(size))
        assert data["scale"] == pytest.approx(exact, rel=0.07), "but frames keep their shape"
        # and what the overlay says nothing of is the preset's
        assert model["decoder"]["clustering"]["init_args"]["algorithm"] == "exact"
        assert (linking["survivor_area"], linking["t_merge"], data["clip_length"]) == (None, 10, 8)
        assert data["augmentation"]["intensity_scale"] == [0.35, 1.65]
        assert data["root"].lower() == stem


def stand_in(data: dict[str, Any], folder: Path) -> Path:
    """Makes a data set with the name, the videos and the frames, or the images, that a configuration asks for."""
    selectors = [*itertools.chain.from_iterable(data.get(part) or [] for part in ("train", "val", "test", "predict"))]
    if data.get("layout", "ctc") == "images":
        return stills(folder / data["root"], selectors)
    videos, frames = 1, 8
    for selector in selectors:
        pattern, _, limits = selector.removesuffix("]").partition("[") if ":" in selector else (selector, "", "")
        videos = max(n for n in range(videos, 21) if n == videos or fnmatchcase(f"{n:02d}", pattern))
        frames = max(frames, *(int(limit) + 4 for limit in limits.split(":") if limit), 0)
    deep = {"depth": 4, "voxel": data["voxel"]} if "voxel" in data else {}
    return simulate(
        folder / data["root"], sequences=videos, frames=frames, size=(32, 32), cells=None if deep else 2, **deep
    )


def stills(root: Path, selectors: list[str]) -> Path:
    """Images with names of three digits that the selectors find, and three that they do not; labels 0, 1 and 2."""
    names = [f"{number:03d}" for number in range(1000)]
    found = [name for name in names if any(fnmatchcase(name, selector) for selector in selectors)]
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for name in [*found, *(name for name in names if name not in found)][: len(found) + 3]:
        labels = np.zeros((32, 32), np.uint8)
        labels[4:20, 6:22], labels[8:13, 10:15] = 2, 1
        write_image(root / f"images/{name}.tif", rng.integers(0, 50, labels.shape).astype(np.uint8) + 50 * labels)
        write_image(root / f"labels/{name}.tif", labels)
    return root


def learner(data: dict[str, Any]) -> list[str]:
    """Options of a method that can learn from such data."""
    if data.get("label_kind") == "classes":
        return ["-c", "conf/method/brightfield/tiny.yaml"]
    return [*METHOD, "--data.clip_length", "1"] if data.get("layout") == "images" else METHOD


@pytest.mark.parametrize("config", DATA, ids=name)
def test_data(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    data = yaml.safe_load(config.read_text())["data"]
    assert not Path(data["root"]).is_absolute()
    stand_in(data, tmp_path)
    monkeypatch.setenv("LIGHTNING_CELLS_DATA", str(tmp_path))
    for verb in VERBS:
        said = say(capfd, verb, *learner(data), "-c", config, *QUIET, *FAST, "--data.batch_size", "1")
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
    for path in (*METHODS, *DATA, *TRAINERS, *OVERLAYS):
        assert path.read_text().startswith("# "), path


def test_configuration_that_does_not_fit_is_noticed(
    tmp_path: Path, simulated: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The tests above would see a misspelt key: here is one."""
    config = tmp_path / "wrong.yaml"
    config.write_text(METHODS[0].read_text().replace("clip_length:", "clip_lenth:"))
    line = complaint(capfd, "fit", "-c", config, *QUIET, *SPLIT, *FAST, "--data.root", simulated)
    assert line == "there is no option 'data.clip_lenth': did you mean 'data.clip_length'?"
