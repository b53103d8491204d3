import hashlib
import io
import json
import os
import random
import re
import stat
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import FileServer, serving

from lightning_cells import paths
from lightning_cells.data import public_sets, transfer
from lightning_cells.data.download import download
from lightning_cells.data.public_sets import TERMS, DataSet
from lightning_cells.errors import InputError

NAME = "Fluo-N2DH-SIM+"
RANDOM = random.Random(0)
FILES = {
    f"{sequence}{folder}{number:03}.tif": 2 * RANDOM.randbytes(10_000)  # halved by compression
    for sequence in ("01", "02")
    for folder in ("/t", "_GT/SEG/man_seg", "_GT/TRA/man_track")
    for number in range(3)
} | {"01_GT/TRA/man_track.txt": b"1 0 2 0\n"}


def zipped(files: dict[str, bytes], top: str = f"{NAME}/") -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(top + name, content)
    return memory.getvalue()


ARCHIVE = zipped(FILES)
# two frames exchanged: of the same size
OTHER = zipped(FILES | {"01/t000.tif": FILES["01/t001.tif"], "01/t001.tif": FILES["01/t000.tif"]})
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()
OTHER_SHA256 = hashlib.sha256(OTHER).hexdigest()
RECORD = f"{NAME}.source.json"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Has the archive; the table says so too."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(transfer, "LONGEST_WAIT_S", 0.0)
    with serving(ARCHIVE) as state:
        publish(monkeypatch, state, len(ARCHIVE), SHA256)
        yield state


def publish(patch: pytest.MonkeyPatch, server: FileServer, size: int | None, sha256: str | None) -> None:
    patch.setitem(public_sets.DATASETS, NAME, DataSet(NAME, "a test", server.url, size, sha256))  # type: ignore[arg-type]


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(root: Path, match: str, **options: object) -> str:
    with pytest.raises(InputError, match=match) as caught:
        download(NAME, root, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_set_is_fetched_extracted_and_recorded(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "new" / "data"
    assert download(NAME, root) == root / NAME
    assert tree(root / NAME) == FILES
    assert sorted(os.listdir(root)) == [NAME, RECORD]
    record = json.loads((root / RECORD).read_text())
    assert (record["url"], record["size"], record["sha256"]) == (server.url, len(ARCHIVE), SHA256)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["date"])
    assert record["folders"]["01_GT"] == [7, 120_008]
    assert TERMS in capsys.readouterr().err
    (tmp_path / "plain").mkdir()  # others may read it as they may read any folder
    assert stat.S_IMODE((root / NAME).stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_default_folder_is_that_of_the_data(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(paths.DATA_VARIABLE, str(tmp_path / "real"))
    assert download(NAME) == tmp_path / "real" / NAME


def test_complete_set_is_not_touched(server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    download(NAME, tmp_path)
    (tmp_path / NAME / "01_RES").mkdir()  # results beside the data do no harm
    (tmp_path / NAME / "01_RES" / "mask000.tif").write_bytes(b"x")
    server.requests.clear()
    server.content = OTHER
    capsys.readouterr()
    assert download(NAME, tmp_path) == tmp_path / NAME
    assert server.requests == []
    assert "already there" in capsys.readouterr().err
    assert (tmp_path / NAME / "01_RES" / "mask000.tif").exists()


def test_folder_made_by_hand_is_taken_without_a_write(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / NAME / "01").mkdir(parents=True)
    (tmp_path / NAME / "01" / "t000.tif").write_bytes(b"x")
    tmp_path.chmod(0o555)
    try:
        download(NAME, tmp_path)
    finally:
        tmp_path.chmod(0o755)
    assert server.requests == []
    assert os.listdir(tmp_path) == [NAME]


@pytest.mark.parametrize("damage", ["missing", "cut", "folder"])
def test_incomplete_set_is_said_and_left(server: FileServer, tmp_path: Path, damage: str) -> None:
    folder = download(NAME, tmp_path)
    if damage == "missing":
        (folder / "01_GT/SEG/man_seg001.tif").unlink()
    elif damage == "cut":
        (folder / "01_GT/SEG/man_seg001.tif").write_bytes(b"")
    else:
        (folder / "01_GT").rename(tmp_path / "elsewhere")
    match = {"missing": "6 files of 100008", "cut": "7 files of 100008", "folder": "0 files of 0"}[damage]
    refused(tmp_path, f"01_GT: {match} bytes, but 7 of 120008 were extracted: move it away")
    assert folder.exists()
    folder.rename(tmp_path / "away")
    assert tree(download(NAME, tmp_path)) == FILES


def test_something_else_of_that_name_is_left(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "notes.txt").write_text("mine")
    refused(tmp_path, "is there, but holds no folder like 01")
    assert tree(tmp_path) == {f"{NAME}/notes.txt": b"mine"}
    (tmp_path / NAME / "notes.txt").unlink()
    assert tree(download(NAME, tmp_path)) == FILES  # an empty folder is as good as none


def test_archive_that_is_there_is_extracted_and_kept(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.zip").write_bytes(ARCHIVE)
    assert tree(download(NAME, tmp_path)) == FILES
    assert server.requests == []
    assert (tmp_path / f"{NAME}.zip").read_bytes() == ARCHIVE


@pytest.mark.parametrize("content", [OTHER, ARCHIVE[:1000], b""], ids=["other", "cut", "empty"])
def test_wrong_archive_that_is_there_is_said_and_left(server: FileServer, tmp_path: Path, content: bytes) -> None:
    (tmp_path / f"{NAME}.zip").write_bytes(content)
    message = refused(tmp_path, r"zip: .*delete it and run again, or take it by accept=True \(--accept\)")
    assert SHA256 in message
    assert hashlib.sha256(content).hexdigest() in message
    assert tree(tmp_path) == {f"{NAME}.zip": content}
    assert server.requests == []


def test_broken_download_goes_on_in_the_next_call(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "RETRIES", 2)
        server.breaks = [50_000, 20_000, 10_000]
        refused(tmp_path, "80000 bytes are kept, run again")
    assert tree(download(NAME, tmp_path)) == FILES
    assert sum(server.served) == len(ARCHIVE)
    assert sorted(os.listdir(tmp_path)) == [NAME, RECORD]


@pytest.mark.parametrize("known", [True, False])
def test_parts_of_two_files_are_fetched_again(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    # the file was changed on the server, without changing its size
    assert len(OTHER) == len(ARCHIVE)
    if not known:  # a checksum of every member is in the archive
        publish(monkeypatch, server, None, None)
    (tmp_path / f"{NAME}.zip.part").write_bytes(OTHER[:50_000])
    assert tree(download(NAME, tmp_path)) == FILES
    assert server.served == [len(ARCHIVE) - 50_000, len(ARCHIVE)]


def test_file_that_changes_between_two_break_offs_of_one_call(server: FileServer, tmp_path: Path) -> None:
    class Changing(list[int | None]):
        def pop(self, index: int = -1) -> int | None:  # type: ignore[override]
            server.content = ARCHIVE
            return super().pop(index)

    server.content, server.breaks = OTHER, Changing([50_000])
    assert tree(download(NAME, tmp_path)) == FILES


def test_joined_archive_without_a_known_checksum_is_taken_if_it_is_sound(server: FileServer, tmp_path: Path) -> None:
    server.breaks = [50_000, 20_000]
    assert tree(download(NAME, tmp_path, accept=True)) == FILES
    assert sum(server.served) == len(ARCHIVE)


@pytest.mark.parametrize("part", [OTHER[:1000], b"x" * len(ARCHIVE), b"x" * 2 * len(ARCHIVE)])
def test_part_of_unknown_origin_does_no_harm(server: FileServer, tmp_path: Path, part: bytes) -> None:
    (tmp_path / f"{NAME}.zip.part").write_bytes(part)
    assert tree(download(NAME, tmp_path)) == FILES
    assert sorted(os.listdir(tmp_path)) == [NAME, RECORD]


def test_wrong_checksum_and_its_acceptance(server: FileServer, tmp_path: Path) -> None:
    server.content = OTHER
    message = refused(tmp_path, "but the published archive has")
    assert OTHER_SHA256 in message
    assert SHA256 in message
    assert not (tmp_path / NAME).exists()
    fetched = len(server.requests)
    download(NAME, tmp_path, accept=True)
    assert len(server.requests) == fetched  # what came is not fetched again
    assert json.loads((tmp_path / RECORD).read_text())["sha256"] == OTHER_SHA256


def test_wrong_size_is_refused_before_it_is_fetched(server: FileServer, tmp_path: Path) -> None:
    server.content = ARCHIVE + b"x"
    refused(tmp_path, rf"has {len(ARCHIVE) + 1} bytes, not the expected {len(ARCHIVE)}: .*--accept")
    assert tree(tmp_path) == {}
    download(NAME, tmp_path, accept=True)
    assert json.loads((tmp_path / RECORD).read_text())["size"] == len(ARCHIVE) + 1


def test_first_download_is_recorded_and_later_ones_must_be_the_same(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, server, None, None)
    folder = download(NAME, tmp_path)
    folder.rename(tmp_path / "away")
    server.content = OTHER
    message = refused(tmp_path, rf"{re.escape(RECORD)} recorded on \d{{4}}-\d\d-\d\d")
    assert SHA256 in message
    assert OTHER_SHA256 in message
    assert not folder.exists()
    (tmp_path / f"{NAME}.zip").unlink()
    server.content = ARCHIVE
    assert tree(download(NAME, tmp_path)) == FILES


def test_mirror_must_have_the_same_archive(server: FileServer, tmp_path: Path) -> None:
    with serving(OTHER) as mirror:
        refused(tmp_path, "published archive", url=mirror.url)
        (tmp_path / f"{NAME}.zip").unlink()
        mirror.content = ARCHIVE
        assert tree(download(NAME, tmp_path, url=mirror.url)) == FILES
        assert json.loads((tmp_path / RECORD).read_text())["url"] == mirror.url
    assert server.requests == []


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"<html>please log in</html>" * 100, "sends no zip archive"),
        (zipped(FILES | {"../../escaped.tif": b"x"}), "may lie outside"),
        (zipped(FILES | {"/tmp/escaped.tif": b"x"}, top=""), "may lie outside"),
        (zipped(FILES | {"01\\t004.tif": b"x"}), "may lie outside"),
        (zipped({"readme.txt": b"x"}), "holds no folder like 01"),
        (zipped({"train/images/t000.tif": b"x"}), "holds no folder like 01"),
        (zipped({}), "holds no folder like 01"),
    ],
    ids=["page", "parent", "absolute", "backslash", "file", "images", "empty"],
)
def test_nothing_is_left_of_what_is_no_data_set(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, match: str
) -> None:
    publish(monkeypatch, server, None, None)
    server.content = content
    root = tmp_path / "root"
    refused(root, f"{server.url}: .*{match}")
    assert tree(tmp_path) == {}
    assert os.listdir(root) == []
    server.content = ARCHIVE
    assert tree(download(NAME, root)) == FILES


def test_link_in_the_archive(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, server, None, None)
    memory = io.BytesIO(ARCHIVE)
    with zipfile.ZipFile(memory, "a") as file:
        link = zipfile.ZipInfo(f"{NAME}/02/t003.tif")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    server.content = memory.getvalue()
    refused(tmp_path, "is a link or a device")
    assert os.listdir(tmp_path) == []


def test_not_found(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [404]
    refused(tmp_path, "404 .*--url")
    assert os.listdir(tmp_path) == []


def test_mistakes_before_anything_is_done(server: FileServer, tmp_path: Path) -> None:
    refused(tmp_path, "give an http:// or https:// address", url="ftp://example.org/a.zip")
    with pytest.raises(InputError, match=r"no data set 'fluo-n2dh-sim\+': did you mean Fluo-N2DH-SIM\+"):
        download("fluo-n2dh-sim+", tmp_path)
    (tmp_path / "file").write_bytes(b"")
    refused(tmp_path / "file", "file: .*--root")
    refused(tmp_path / "file" / "below", "--root")
    assert server.requests == []


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"url": "", "size": "x"}'])
def test_record_that_is_none(server: FileServer, tmp_path: Path, record: str) -> None:
    (tmp_path / RECORD).write_text(record)
    refused(tmp_path, f"{re.escape(RECORD)}: is no record of a download .*delete it")


def test_full_disk(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("usage", (), {"free": len(ARCHIVE)})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    refused(tmp_path, r"360008 bytes to extract, \d+ free: the disk is full, make room and run again")
    assert os.listdir(tmp_path) == [f"{NAME}.zip"]  # what was fetched is kept
    usage.free = 10**9  # type: ignore[attr-defined]
    download(NAME, tmp_path)
    assert sum(server.served) == len(ARCHIVE)


def test_what_a_killed_extraction_left_is_cleared_away(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / f".{NAME}.extracting" / "01").mkdir(parents=True)
    (tmp_path / f".{NAME}.extracting" / "01" / "t999.tif").write_bytes(b"x")
    assert tree(download(NAME, tmp_path)) == FILES
    assert sorted(os.listdir(tmp_path)) == [NAME, RECORD]


def test_two_processes_fetch_one_set_once(server: FileServer, tmp_path: Path) -> None:
    server.gate = threading.Event()
    script = (
        "import sys; from pathlib import Path; from lightning_cells.data.download import download\n"
        "print('go', flush=True); print(download(sys.argv[1], Path(sys.argv[2]), sys.argv[3], accept=True))"
    )
    command = [sys.executable, "-c", script, NAME, str(tmp_path), server.url]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"go\n"
        server.gate.set()
        for process in processes:
            output, errors = process.communicate(timeout=300)
            assert (process.returncode, output.decode().strip()) == (0, str(tmp_path / NAME)), errors.decode()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert server.served == [len(ARCHIVE)]
    assert tree(tmp_path / NAME) == FILES
    assert sorted(os.listdir(tmp_path)) == [NAME, RECORD]
