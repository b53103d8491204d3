"""Broken data: each mistake is told in one line that names the file, and nothing is left half-written."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from cli_cases import METHOD, NO_RUN, QUIET, complaint, fit, say

from lightning_cells.data.ctc import frame_paths
from lightning_cells.data.image_files import read_mask
from lightning_cells.errors import InputError
from lightning_cells.instances.linking import OverlapLinker

Capture = pytest.CaptureFixture[str]
TRUTH, TRACKS = "01_GT/SEG/man_seg003.tif", "01_GT/TRA/man_track.txt"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def shrink(path: Path) -> None:
    tifffile.imwrite(path, tifffile.imread(path)[:, :-8])


def to_float(path: Path) -> None:
    tifffile.imwrite(path, tifffile.imread(path).astype(np.float32))


def to_colour(path: Path) -> None:
    tifffile.imwrite(path, np.repeat(tifffile.imread(path)[..., None], 3, -1), photometric="rgb")


def to_stack(path: Path) -> None:
    tifffile.imwrite(path, np.repeat(tifffile.imread(path)[None], 4, 0), photometric="minisblack")


def too_large_labels(path: Path) -> None:
    mask = tifffile.imread(path).astype(np.uint32)
    tifffile.imwrite(path, np.where(mask > 0, mask + 70_000, 0).astype(np.uint32))


def remove(path: Path) -> None:
    path.unlink()


def rows(text: str) -> Callable[[Path], None]:
    """Adds rows to a track file."""

    def change(path: Path) -> None:
        path.write_text(path.read_text() + text)

    change.__name__ = text.replace("\n", ", ").strip(", ")
    return change


# what is broken, how, what the message says; {file} is its path
BROKEN: list[tuple[str, Callable[[Path], None], str]] = [
    ("01/t003.tif", truncate, "{file}: is truncated"),
    ("01/t003.tif", empty, "{file}: is truncated or not a readable image"),
    ("01/t003.tif", to_float, "{file}: has float32 pixels: save frames as 8- or 16-bit"),
    ("01/t003.tif", to_colour, "{file}: has 3 colours"),
    ("01/t003.tif", to_stack, "{file}: is 4x"),
    ("01/t003.tif", shrink, "{file}"),
    ("01/t003.tif", remove, "{folder}: frame 3 is missing"),
    (TRUTH, truncate, "{file}: is truncated"),
    (TRUTH, shrink, "{file}: is 64x56 pixels, others of the video are 64x64"),
    (TRUTH, to_float, "{file}: has float32 pixels: save masks as 16-bit"),
    (TRUTH, too_large_labels, "{file}: holds label 700"),
    ("01_GT/TRA/man_track003.tif", shrink, "{file}: is 64x56 pixels, others of the video are 64x64"),
    (TRACKS, rows("98 2 4 99\n99 5 6 98\n"), "{file}, line"),
    (TRACKS, rows("98 2 4 98\n"), "{file}, line"),
    (TRACKS, rows("98 2 4\n"), "{file}, line"),
    (TRACKS, rows("98 2 4 x\n"), "{file}, line"),
    (TRACKS, rows("98 4 2 0\n"), "{file}, line"),
    (TRACKS, rows("98 2 4 97\n"), "{file}, line"),
    (TRACKS, remove, "{file}: there is no such file"),
]


def name(value: object) -> str:
    return str(getattr(value, "__name__", value)).replace("/", "-")


@pytest.fixture
def data(simulated: Path, tmp_path: Path) -> Path:
    """A data set of one video that may be broken."""
    for folder in ("01", "01_GT"):
        shutil.copytree(simulated / folder, tmp_path / "data" / folder)
    return tmp_path / "data"


def nothing_is_left(home: Path) -> None:
    """Not even of the cache: no temporary names, no entries, no runs."""
    assert [path.relative_to(home) for path in home.rglob("*") if ".tmp" in path.name] == []
    assert [path.name for path in home.glob("cache/*") if path.name != "digests"] == []
    assert [path.name for path in home.iterdir() if path.name != "cache"] == []


@pytest.mark.parametrize(("file", "breaking", "expected"), BROKEN, ids=name)
def test_fit(
    file: str, breaking: Callable[[Path], None], expected: str, data: Path, home: Path, capfd: Capture
) -> None:
    breaking(data / file)
    line = complaint(capfd, "fit", *METHOD, *QUIET, *NO_RUN, "--data.root", data)
    assert line.startswith(expected.format(file=data / file, folder=(data / file).parent))
    nothing_is_left(home)


def test_fit_without_a_folder(tmp_path: Path, home: Path, capfd: Capture) -> None:
    line = complaint(capfd, "fit", *METHOD, *QUIET, *NO_RUN, "--data.root", tmp_path / "nowhere")
    assert line.startswith(f"no data folder '{tmp_path / 'nowhere'}'")
    for remedy in ("LIGHTNING_CELLS_DATA", "lightning-cells simulate", "lightning-cells download"):
        assert remedy in line
    nothing_is_left(home)


def test_fit_without_any_video(tmp_path: Path, home: Path, capfd: Capture) -> None:
    (tmp_path / "data/01").mkdir(parents=True)
    line = complaint(capfd, "fit", *METHOD, *QUIET, *NO_RUN, "--data.root", tmp_path / "data")
    assert line.startswith(f"{tmp_path / 'data'} holds no video in Cell Tracking Challenge layout")
    nothing_is_left(home)


def test_fit_in_another_layout(data: Path, home: Path, capfd: Capture) -> None:
    line = complaint(capfd, "fit", *METHOD, *QUIET, *NO_RUN, "--data.root", data, "--data.layout", "images")
    assert line.startswith(f"{data / 'images'}: there is no such folder")
    nothing_is_left(home)


@pytest.fixture
def result(data: Path) -> Path:
    """A result folder that is right in every cell."""
    folder = data / "01_RES"
    folder.mkdir()
    for number, path in frame_paths(data / "01_GT/TRA", "man_track").items():
        shutil.copy(path, folder / f"mask{number:03d}.tif")
    shutil.copy(data / TRACKS, folder / "res_track.txt")
    return folder


MASK = "01_RES/mask003.tif"
RESULT_TRACKS = "01_RES/res_track.txt"


@pytest.mark.parametrize(
    ("file", "breaking", "expected"),
    [
        (MASK, truncate, "{file}: is truncated"),
        (MASK, to_float, "{file}: has float32 pixels: save masks as 16-bit"),
        (MASK, too_large_labels, "{file}: holds label 700"),
        (MASK, shrink, "{file}: is 64 x 56 pixels but"),
        (MASK, remove, "{folder}: has 11 masks but none of frame 3"),
        (RESULT_TRACKS, rows("98 2 4 99\n99 5 6 98\n"), "{file}, line"),
        (RESULT_TRACKS, rows("98 2 4\n"), "{file}, line"),
        (RESULT_TRACKS, rows("98 2 4 0\n"), "{folder}"),  # a track that is in no mask
        (TRUTH, truncate, "{file}: is truncated"),
        (TRUTH, too_large_labels, "{file}: holds label 700"),
        (TRACKS, rows("98 2 4 99\n99 5 6 98\n"), "{file}, line"),
    ],
    ids=name,
)
def test_evaluate(
    file: str, breaking: Callable[[Path], None], expected: str, data: Path, result: Path, capfd: Capture
) -> None:
    breaking(data / file)
    line = complaint(capfd, "evaluate", result, data / "01_GT", "--json")
    assert line.startswith(expected.format(file=data / file, folder=(data / file).parent))


def test_evaluate_without_folders(result: Path, data: Path, tmp_path: Path, capfd: Capture) -> None:
    assert str(tmp_path / "none") in complaint(capfd, "evaluate", tmp_path / "none", data / "01_GT")
    assert str(tmp_path / "none") in complaint(capfd, "evaluate", result, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in complaint(capfd, "evaluate", tmp_path / "empty", data / "01_GT")
    assert str(tmp_path / "empty") in complaint(capfd, "evaluate", result, tmp_path / "empty")


@pytest.fixture(scope="module")
def trained(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(simulated, tmp_path_factory.mktemp("trained"), *NO_RUN)


def test_predict_that_breaks_off_leaves_no_half_result(
    simulated: Path, trained: Path, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first video is whole and stays; of the second there is nothing, not even a hidden folder."""
    push, pushed = OverlapLinker.push, []

    def breaking(self: OverlapLinker, labels: np.ndarray) -> list[np.ndarray]:
        pushed.append(labels)
        if len(pushed) == 12 + 7:
            raise InputError("the lamp went out")
        return push(self, labels)

    monkeypatch.setattr(OverlapLinker, "push", breaking)
    results = tmp_path / "results"
    words = ["--ckpt_path", trained, *QUIET, "--data.root", simulated, "--results.folder", results]
    assert complaint(capfd, "predict", *words, "--data.chunk", "6") == "the lamp went out"
    assert [path.name for path in results.iterdir()] == ["01_RES"]
    assert len(frame_paths(results / "01_RES", "mask")) == 12


def test_predict_replaces_an_earlier_result_whole(
    simulated: Path, trained: Path, tmp_path: Path, capfd: Capture
) -> None:
    results = tmp_path / "results"
    words = ["predict", "--ckpt_path", trained, *QUIET, "--data.root", simulated, "--results.folder", results]
    assert say(capfd, *words, "--data.predict", "['01']").status == 0
    assert say(capfd, *words, "--data.predict", "['01[2:5]']").status == 0
    assert list(frame_paths(results / "01_RES", "mask")) == [2, 3, 4]
    begins = [int(row.split()[1]) for row in (results / "01_RES/res_track.txt").read_text().splitlines()]
    assert all(begin in (2, 3, 4) for begin in begins)
    (results / "01_RES/notes.txt").write_text("mine")
    line = complaint(capfd, *words, "--data.predict", "['01']")
    assert re.search(r"01_RES: holds 'notes.txt', not only a result", line)
    assert list(frame_paths(results / "01_RES", "mask")) == [2, 3, 4]
    assert read_mask(results / "01_RES/mask002.tif").shape == (64, 64)
