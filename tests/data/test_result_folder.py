"""Writing result folders."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from ctc_metrics import validate_sequence
from data_cases import complaint, mask, touch

from lightning_cells.data.ctc import sequence_names
from lightning_cells.data.result_folder import ResultWriter
from lightning_cells.data.tracks import Track, read_tracks

MASKS = {0: mask("11..", "...."), 1: mask("22..", "..33")}
TRACKS = {1: Track(1, 0, 0, 0), 2: Track(2, 1, 1, 1), 3: Track(3, 1, 1, 1)}


def write_result(folder: Path, digits: int = 3) -> None:
    with ResultWriter(folder, digits) as writer:
        for frame, labels in MASKS.items():
            writer.write(frame, labels.astype(np.int32))
        writer.finish(TRACKS)


def test_result_is_valid_for_the_challenge(tmp_path: Path) -> None:
    write_result(tmp_path / "deep" / "01_RES")
    folder = tmp_path / "deep" / "01_RES"
    assert sorted(os.listdir(folder)) == ["mask000.tif", "mask001.tif", "res_track.txt"]
    assert os.listdir(folder.parent) == ["01_RES"]
    for frame, labels in MASKS.items():
        written = tifffile.imread(folder / f"mask{frame:03d}.tif")
        assert written.dtype == np.uint16
        np.testing.assert_array_equal(written, labels)
    assert read_tracks(folder / "res_track.txt") == TRACKS
    assert validate_sequence(str(folder), threads=1)["Valid"] == 1


def test_four_digits(tmp_path: Path) -> None:
    write_result(tmp_path / "01_RES", digits=4)
    assert (tmp_path / "01_RES" / "mask0001.tif").exists()


def test_empty_result(tmp_path: Path) -> None:
    with ResultWriter(tmp_path / "01_RES") as writer:
        writer.write(0, mask("..."))
        writer.finish({})
    assert read_tracks(tmp_path / "01_RES" / "res_track.txt") == {}


def test_an_earlier_result_is_replaced_whole(tmp_path: Path) -> None:
    touch(tmp_path / "01_RES", "mask007.tif", "res_track.txt")
    write_result(tmp_path / "01_RES")
    assert sorted(os.listdir(tmp_path / "01_RES")) == ["mask000.tif", "mask001.tif", "res_track.txt"]
    assert os.listdir(tmp_path) == ["01_RES"]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    touch(tmp_path / "01_RES", "mask007.tif")

    def fail() -> None:
        with ResultWriter(tmp_path / "01_RES") as writer:
            writer.write(0, MASKS[0])
            raise KeyError("tracker")

    with pytest.raises(KeyError, match="tracker"):
        fail()
    assert os.listdir(tmp_path / "01_RES") == ["mask007.tif"]
    assert os.listdir(tmp_path) == ["01_RES"]


def test_without_finish_there_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="finish"), ResultWriter(tmp_path / "01_RES") as writer:
        writer.write(0, MASKS[0])
    assert os.listdir(tmp_path) == []


def test_foreign_files_are_never_deleted(tmp_path: Path) -> None:
    folder = touch(tmp_path / "home", "thesis.txt", "mask000.tif")
    complaint(lambda: ResultWriter(folder), folder, "thesis.txt")
    complaint(lambda: ResultWriter(folder / "thesis.txt"), "thesis.txt")


@pytest.mark.parametrize(
    "lineage",
    [
        {1: TRACKS[1], 2: TRACKS[2]},  # cell 3 has no row
        TRACKS | {4: Track(4, 0, 1, 0)},  # row without a cell
        TRACKS | {1: Track(1, 0, 1, 0)},  # not in frame 1
    ],
)
def test_masks_and_tracks_must_agree(tmp_path: Path, lineage: dict[int, Track]) -> None:
    def run() -> None:
        with ResultWriter(tmp_path / "01_RES") as writer:
            for frame, labels in MASKS.items():
                writer.write(frame, labels)
            writer.finish(lineage)

    with pytest.raises(ValueError, match="only in"):
        run()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "labels",
    [np.full((2, 4), -1), np.full((2, 4), 70000), np.zeros((2, 4)), mask("..."), np.zeros((1, 2, 4), int)],
)
def test_bad_result_masks(tmp_path: Path, labels: np.ndarray) -> None:
    def run() -> None:
        with ResultWriter(tmp_path / "01_RES") as writer:
            writer.write(0, MASKS[0])
            writer.write(1, labels)

    with pytest.raises(ValueError, match="frame 1"):
        run()


def test_frames_come_once(tmp_path: Path) -> None:
    def run() -> None:
        with ResultWriter(tmp_path / "01_RES") as writer:
            writer.write(0, MASKS[0])
            writer.write(0, MASKS[0])

    with pytest.raises(ValueError, match="already"):
        run()


def test_killed_writer_leaves_no_result(tmp_path: Path) -> None:
    code = (
        "import os, sys, numpy as np\nfrom pathlib import Path\n"
        "from lightning_cells.data.result_folder import ResultWriter\n"
        "with ResultWriter(Path(sys.argv[1])) as writer:\n"
        "    writer.write(0, np.ones((2, 2), int))\n    os._exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "01_RES")], timeout=300)
    assert done.returncode == 9
    assert not (tmp_path / "01_RES").exists()
    assert sequence_names(tmp_path) == []
