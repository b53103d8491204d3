"""What `make fuzz` has found, and what is of its kind: each is refused in one line."""

import os
import zipfile
from pathlib import Path

import pytest

from lightning_cells.data.archive import extract
from lightning_cells.data.image_files import read_frame
from lightning_cells.data.tracks import read_tracks
from lightning_cells.errors import InputError
from lightning_cells.yaml_file import read_yaml

TREES = {
    "deep": "[" * 3_000,
    "deep blocks": "- " * 3_000,
    "names itself": "a: &a [*a]",
    "names itself by its key": "&a {a: *a}",
    "grows": "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    + "\n".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]" for i in range(8)),
    "a key that is a list": "? [x]: y",
    "a number of 5,000 digits": "a: " + "9" * 5_000,
    "a date that is none": "a: 2026-13-45",
    "no text": "\0",
}


@pytest.mark.parametrize("kind", TREES)
def test_yaml(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(TREES[kind])
    with pytest.raises(InputError, match=r"x\.yaml[^\n]*$"):
        read_yaml(path, "a sweep")


@pytest.mark.parametrize("row", ["9" * 5_000, str(2**63), "99999999999", "-1", "1.0", "1e3", "٣"])
def test_numbers_of_a_table(row: str, tmp_path: Path) -> None:
    path = tmp_path / "res_track.txt"
    path.write_text(f"1 0 {row} 0\n")
    with pytest.raises(InputError, match=r"res_track\.txt, line 1: [^\n]{1,200}$"):
        read_tracks(path)


@pytest.mark.parametrize("read", [read_frame, read_tracks, lambda path: read_yaml(path, "a sweep")])
def test_pipes_and_devices_are_not_waited_for(read: object, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tif")
    (tmp_path / "device.tif").symlink_to("/dev/zero")
    for path in tmp_path.iterdir():
        with pytest.raises(InputError, match=path.name):
            read(path)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["x" * 256, "é" * 128, "a/" * 1_500 + "b", f"01/{'x' * 300}.tif"])
def test_names_that_are_too_long_for_files(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("01/t000.tif", b"")
        archive.writestr(name, b"")
    with pytest.raises(InputError, match=r"^set: member '[^\n]{1,110}' has a name that is too long for a file"):
        extract(tmp_path / "set.zip", tmp_path / "out", "set")
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]
