"""Track files."""

import os
from pathlib import Path

import pytest
from data_cases import complaint

from lightning_cells.data.tracks import Track, clip_lineage, read_tracks, write_tracks

LINEAGE = {1: Track(1, 0, 4, 0), 10: Track(10, 5, 9, 1), 2: Track(2, 5, 7, 1)}


def test_tracks_round_trip(tmp_path: Path) -> None:
    write_tracks(tmp_path / "res_track.txt", LINEAGE)
    assert (tmp_path / "res_track.txt").read_bytes() == b"1 0 4 0\n2 5 7 1\n10 5 9 1\n"
    assert read_tracks(tmp_path / "res_track.txt") == LINEAGE
    assert os.listdir(tmp_path) == ["res_track.txt"]


@pytest.mark.parametrize(
    "content",
    [
        b"1 0 4 0\r\n2 5 7 1\r\n10 5 9 1\r\n\r\n",
        b"\xef\xbb\xbf10\t5\t9\t1\n\n  2 5  7 1  \n1 0 4 0\n\n\n",
        b"1 0 4 0\n2 5 7 1\n10 5 9 1",
    ],
)
def test_tolerated_track_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "man_track.txt").write_bytes(content)
    assert read_tracks(tmp_path / "man_track.txt") == LINEAGE


@pytest.mark.parametrize("content", ["", "\n\n", "  \r\n"])
def test_no_tracks(tmp_path: Path, content: str) -> None:
    (tmp_path / "res_track.txt").write_text(content)
    assert read_tracks(tmp_path / "res_track.txt") == {}


@pytest.mark.parametrize(
    ("content", "line", "word"),
    [
        ("1 0 4 0\n2 0 4\n", 2, "2 0 4"),
        ("1 0 4 0 0\n", 1, "1 0 4 0 0"),
        ("\n1 0 x 0\n", 2, "1 0 x 0"),
        ("1 0 4.5 0\n", 1, "4.5"),
        ("1 -1 4 0\n", 1, "-1"),
        ("0 0 4 0\n", 1, "label 0"),
        ("65536 0 4 0\n", 1, "65536"),
        ("1 0 4 0\n\n1 5 6 0\n", 3, "line 1"),
        ("1 4 3 0\n", 1, "frame 4"),
        ("1 0 4 7\n", 1, "parent 7"),
        ("1 0 4 0\n2 4 6 1\n", 2, "parent 1"),
        ("1 0 4 1\n", 1, "parent 1"),
        ("1 0 4 2\n2 5 9 1\n", 1, "parent 2"),
        ("1 5 6 3\n2 7 8 1\n3 9 9 2\n", 1, "parent 3"),
        (f"1 0 {2**63} 0\n", 1, "more than 9 digits"),
        (f"1 0 {5000 * '9'} 0\n", 1, "more than 9 digits"),
        (f"{5000 * '7'} 0 4 0\n", 1, "more than 9 digits"),
        (f"1 0 4 0\n2 0 {5000 * 'x'} 0\n", 2, "2 0 xxx"),
    ],
)
def test_bad_rows(tmp_path: Path, content: str, line: int, word: str) -> None:
    path = tmp_path / "man_track.txt"
    path.write_text(content)
    assert len(complaint(lambda: read_tracks(path), f"{path}, line {line}:", word)) < len(str(path)) + 200


def test_leading_zeros(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"{5000 * '0'}1 000 004 0\n")
    assert read_tracks(tmp_path / "a.txt") == {1: Track(1, 0, 4, 0)}


def test_unreadable_track_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    complaint(lambda: read_tracks(tmp_path / "pipe.txt"), "pipe")
    complaint(lambda: read_tracks(tmp_path / "gone.txt"), tmp_path / "gone.txt")
    complaint(lambda: read_tracks(tmp_path), tmp_path)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00\x81")
    complaint(lambda: read_tracks(tmp_path / "a.txt"), "a.txt")


def test_clip_lineage() -> None:
    assert clip_lineage(LINEAGE, 2, 6) == {1: Track(1, 2, 4, 0), 10: Track(10, 5, 5, 1), 2: Track(2, 5, 5, 1)}
    assert clip_lineage(LINEAGE, 5, 8) == {10: Track(10, 5, 7, 0), 2: Track(2, 5, 7, 0)}
    assert clip_lineage(LINEAGE, 8, 99) == {10: Track(10, 8, 9, 0)}
    assert clip_lineage(LINEAGE, 4, 5) == {1: Track(1, 4, 4, 0)}
    assert clip_lineage(LINEAGE, 10, 20) == {}
