import errno
import os
import random
import shutil
import stat
import struct
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_cells.data import archive
from lightning_cells.data.archive import extract
from lightning_cells.errors import InputError

Members = list[tuple[str | zipfile.ZipInfo, bytes]]
GOOD: Members = [("01/t000.tif", b"frame"), ("01_GT/TRA/man_track.txt", b"1 0 0 0\n")]


def write_zip(path: Path, members: Members, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def special(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("top", ["", "Fluo-N2DH-SIM+/", "training/", "./", "./Fluo-N2DH-SIM+/"])
def test_files_land_below_the_target_without_the_top_folder(tmp_path: Path, top: str, method: int) -> None:
    members: Members = [(top + str(name), content) for name, content in GOOD]
    if top.strip("./"):
        members.insert(0, (top, b""))  # an entry for the folder itself
    extract(write_zip(tmp_path / "a.zip", members, method), tmp_path / "set", "a.zip")
    assert tree(tmp_path / "set") == {str(name): content for name, content in GOOD}
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "set"]


@pytest.mark.parametrize("name", ["01/t000.tif", "02_GT/SEG/man_seg000.tif"])
def test_single_sequence_folder_stays(tmp_path: Path, name: str) -> None:
    extract(write_zip(tmp_path / "a.zip", [(name, b"x")]), tmp_path / "set", "a.zip")
    assert tree(tmp_path / "set") == {name: b"x"}


def test_what_is_no_data_is_skipped(tmp_path: Path) -> None:
    members: Members = [
        ("SET/01/t000.tif", b"x"),
        ("__MACOSX/SET/._01", b"junk"),
        ("SET/.DS_Store", b"junk"),
        ("SET/empty/", b""),
    ]
    extract(write_zip(tmp_path / "a.zip", members), tmp_path / "set", "a.zip")
    assert tree(tmp_path / "set") == {"01/t000.tif": b"x"}
    assert (tmp_path / "set" / "empty").is_dir()


def test_permission_bits_are_not_taken_over(tmp_path: Path) -> None:
    members: Members = [(special("01/t000.tif", stat.S_IFREG | 0o6777), b"x")]
    extract(write_zip(tmp_path / "a.zip", members), tmp_path / "set", "a.zip")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "set/01/t000.tif").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ("../escaped.tif", "outside"),
        ("01/../../escaped.tif", "outside"),
        ("/escaped.tif", "outside"),
        ("//host/escaped.tif", "outside"),
        ("C:/escaped.tif", "outside"),
        ("C:escaped.tif", "outside"),
        ("..\\escaped.tif", "outside"),
        ("01\\t001.tif", "outside"),
        (special("01/link.tif", stat.S_IFLNK | 0o777), "is a link or a device"),
        (special("01/pipe", stat.S_IFIFO | 0o666), "is a link or a device"),
        (special("01/disk", stat.S_IFBLK | 0o666), "is a link or a device"),
        ("01/T000.TIF", "two members have one name"),
        ("01", "two members have one name"),
        ("01/t000.tif/", "two members have one name"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_hostile_archive_is_refused_whole(tmp_path: Path, bad: str | zipfile.ZipInfo, match: str, first: bool) -> None:
    folder = tmp_path / "deep" / "deeper"
    folder.mkdir(parents=True)
    hostile: Members = [(bad, b"" if isinstance(bad, str) and bad.endswith("/") else b"/etc/passwd")]
    members = hostile + GOOD if first else GOOD + hostile
    write_zip(folder / "a.zip", members)
    with pytest.raises(InputError, match=f"a.zip: .*{match}.*nothing was extracted") as caught:
        extract(folder / "a.zip", folder / "set", "a.zip")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "deep", "deeper"]


def test_name_cut_by_a_nul_byte_is_refused(tmp_path: Path) -> None:
    content = write_zip(tmp_path / "a.zip", [("01/t000.tif_x", b"x")]).read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace(b"t000.tif_x", b"t000.tif\0x"))
    with pytest.raises(InputError, match="nothing was extracted"):
        extract(tmp_path / "a.zip", tmp_path / "set", "a.zip")


def test_encrypted_archive_is_refused(tmp_path: Path) -> None:
    content = bytearray(write_zip(tmp_path / "a.zip", GOOD, zipfile.ZIP_STORED).read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # general purpose bit 0 of the first central header
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match="is encrypted"):
        extract(tmp_path / "a.zip", tmp_path / "set", "a.zip")


@pytest.mark.parametrize("limit", ["MAX_BYTES", "MAX_FILES"])
def test_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    members: Members = [(f"01/t{number:03}.tif", bytes(1000)) for number in range(10)]
    write_zip(tmp_path / "a.zip", members)
    monkeypatch.setattr(archive, limit, {"MAX_BYTES": 9_999, "MAX_FILES": 9}[limit])
    with pytest.raises(InputError, match="unpacks to 10000 bytes in 10 files, more than"):
        extract(tmp_path / "a.zip", tmp_path / "set", "a.zip")
    monkeypatch.setattr(archive, limit, {"MAX_BYTES": 10_000, "MAX_FILES": 10}[limit])
    extract(tmp_path / "a.zip", tmp_path / "set", "a.zip")
    assert len(tree(tmp_path / "set")) == 10


def test_member_that_lies_about_its_size_is_not_unpacked_beyond_it(tmp_path: Path) -> None:
    content = write_zip(tmp_path / "a.zip", [("01/t000.tif", bytes(1_000_000))]).read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace(struct.pack("<I", 1_000_000), struct.pack("<I", 10)))
    with pytest.raises(InputError, match="not a sound zip archive"):
        extract(tmp_path / "a.zip", tmp_path / "set", "a.zip")
    assert os.listdir(tmp_path) == ["a.zip"]


def test_too_little_room_is_said_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=12))
    write_zip(tmp_path / "a.zip", GOOD)
    with pytest.raises(OSError, match="13 bytes to extract, 12 free") as caught:
        extract(tmp_path / "a.zip", tmp_path / "set", "a.zip")
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_zip(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.zip: not a sound zip archive"):
        extract(tmp_path / "a.zip", tmp_path / "set", "a.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_archive_leaves_nothing(tmp_path: Path, method: int) -> None:
    members: Members = [(f"01/t{number:03}.tif", bytes([number]) * 500) for number in range(4)]
    content = write_zip(tmp_path / "a.zip", members, method).read_bytes()
    generator = random.Random(0)
    messages = []
    for _ in range(200):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        (tmp_path / "a.zip").write_bytes(damaged[: generator.choice([len(damaged), len(damaged) - 40])])
        try:
            extract(tmp_path / "a.zip", tmp_path / "set", "a.zip")
        except InputError as error:
            messages.append(str(error))
            assert os.listdir(tmp_path) == ["a.zip"]
        else:
            shutil.rmtree(tmp_path / "set")
    assert len(messages) > 100
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_bound_are_refused(tmp_path: Path, method: int) -> None:
    write_zip(tmp_path / "a.zip", GOOD, method)
    with pytest.raises(InputError, match="neither stored nor deflated"):
        extract(tmp_path / "a.zip", tmp_path / "set", "a.zip")


def test_existing_target_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").write_bytes(b"")
    write_zip(tmp_path / "a.zip", GOOD)
    with pytest.raises(FileExistsError):
        extract(tmp_path / "a.zip", tmp_path / "set", "a.zip")
    assert os.listdir(tmp_path / "set") == ["mine"]
