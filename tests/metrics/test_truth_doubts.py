"""Truth that can hardly be meant is scored, and told; capital letters in its names do not matter."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from lightning_cells.data.ctc import find_sequence
from lightning_cells.data.image_files import write_image
from lightning_cells.errors import Doubt, InputError
from lightning_cells.metrics.evaluate import evaluate

FRAMES = 4
LABELS = np.zeros((FRAMES, 64, 64), np.uint16)
LABELS[:, 4:16, 4:16], LABELS[:, 30:44, 4:16], LABELS[:, 30:44, 40:52] = 1, 2, 3
ROWS = "1 0 3 0\n2 0 3 0\n3 0 3 0\n"


def write(root: Path, seg: np.ndarray = LABELS, tra: np.ndarray = LABELS, rows: str = ROWS) -> Path:
    """A video with truth, and a result that has all cells."""
    for number in range(FRAMES):
        write_image(root / f"01/t{number:03d}.tif", LABELS[number])
        write_image(root / f"01_GT/SEG/man_seg{number:03d}.tif", seg[number])
        write_image(root / f"01_GT/TRA/man_track{number:03d}.tif", tra[number])
        write_image(root / f"01_RES/mask{number:03d}.tif", LABELS[number])
    (root / "01_GT/TRA/man_track.txt").write_text(rows)
    (root / "01_RES/res_track.txt").write_text(ROWS)
    return root


def scored(root: Path) -> tuple[dict, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        measures = evaluate(root / "01_RES", root / "01_GT").as_dict()
    assert all(issubclass(one.category, Doubt) for one in caught)
    said = [str(one.message) for one in caught]
    assert not any("\n" in line for line in said)
    return measures, said


def test_truth_as_it_should_be(tmp_path: Path) -> None:
    measures, said = scored(write(tmp_path))
    assert (measures["SEG"], measures["TRA"], said) == (1, 1, [])


@pytest.mark.parametrize("value", [255, 1])
def test_one_label_for_all_cells(value: int, tmp_path: Path) -> None:
    binary = np.where(LABELS > 0, value, 0).astype(np.uint16)
    measures, said = scored(write(tmp_path, seg=binary))
    assert measures["seg_cells"] == FRAMES
    assert measures["SEG"] == 0  # no cell of the result covers half of all cells together
    [line] = said
    assert line.startswith(f"{tmp_path / '01_GT/SEG'}: all cells have the one label {value}")
    _, said = scored(write(tmp_path, seg=binary, tra=binary, rows=f"{value} 0 3 0\n"))
    assert [Path(line.split(":")[0]).name for line in said] == ["SEG", "TRA"]


def test_one_cell_is_no_doubt(tmp_path: Path) -> None:
    one = np.where(LABELS == 1, 7, 0).astype(np.uint16)
    assert scored(write(tmp_path, seg=one))[1] == []
    one[0, 60, 60] = 7  # in one frame of four it was drawn carelessly
    assert scored(write(tmp_path, seg=one))[1] == []


def test_hundreds_of_specks(tmp_path: Path) -> None:
    seg = LABELS.copy()
    seg[:, 50:62:2, 2:62:2] = np.arange(10, 190).reshape(6, 30)
    measures, said = scored(write(tmp_path, seg=seg))
    assert measures["seg_cells"] == FRAMES * 183
    assert 0 < measures["SEG"] < 0.02
    [line] = said
    assert f"{FRAMES * 180} of {FRAMES * 183} cells are specks" in line
    assert scored(write(tmp_path, tra=seg, rows=ROWS + "".join(f"{n} 0 3 0\n" for n in range(10, 190))))[1]


def test_markers_without_rows(tmp_path: Path) -> None:
    measures, said = scored(write(tmp_path, rows="1 0 3 0\n2 0 3 0\n"))
    assert measures["TRA"] == 1
    [line] = said
    assert "man_track.txt: the marker 3 of frame 0 has no row that covers it, nor have 3 others" in line
    _, [line] = scored(write(tmp_path, rows="1 0 3 0\n2 0 3 0\n3 0 2 0\n"))
    assert "the marker 3 of frame 3 has no row that covers it: correct" in line


@pytest.mark.parametrize("change", [str.upper, str.title, lambda name: name.replace(".tif", ".TIF")])
def test_capital_letters(change, tmp_path: Path) -> None:
    """One way of reading for `evaluate` and `fit`."""
    write(tmp_path)
    for path in [*tmp_path.glob("01_GT/*/*"), *tmp_path.glob("01_RES/*")]:
        path.rename(path.with_name(change(path.name)))
    files = find_sequence(tmp_path, "01")
    assert (list(files.seg), list(files.tra)) == ([0, 1, 2, 3], [0, 1, 2, 3])
    measures, said = scored(tmp_path)
    assert (measures["SEG"], measures["TRA"], measures["seg_cells"], said) == (1, 1, 12, [])


@pytest.mark.parametrize("name", ["SEG", "TRA"])
def test_truth_under_other_names(name: str, tmp_path: Path) -> None:
    write(tmp_path)
    for path in (tmp_path / "01_GT" / name).glob("*.tif"):
        path.rename(path.with_name(f"truth{path.name[-7:]}"))
    for read in (lambda: find_sequence(tmp_path, "01"), lambda: evaluate(tmp_path / "01_RES", tmp_path / "01_GT")):
        with pytest.raises(InputError, match="has no images: name them man_"):
            read()
