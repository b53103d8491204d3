import errno
import random
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from file_server import FileServer, serving

from lightning_cells.data import transfer
from lightning_cells.data.transfer import fetch
from lightning_cells.errors import InputError

CONTENT = random.Random(0).randbytes(700_000)
OTHER = random.Random(1).randbytes(700_000)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(transfer, "LONGEST_WAIT_S", 0.0)
    with serving(CONTENT) as state:
        yield state


def left_over(tmp_path: Path) -> set[str]:
    return {path.name for path in tmp_path.iterdir()}


def broken_off_once(server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """A first call that is given up at once, with `after` bytes on disk."""
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "RETRIES", 0)
        server.breaks = [after]
        with pytest.raises(InputError, match=f"{after} bytes are kept, run again"):
            fetch(server.url, target)
    assert not target.exists()
    server.served.clear()
    server.requests.clear()


def test_whole_file_leaves_nothing_else(server: FileServer, tmp_path: Path) -> None:
    assert fetch(server.url, tmp_path / "a.zip", len(CONTENT)) is False
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert left_over(tmp_path) == {"a.zip"}
    assert "range" not in server.requests[0]


@pytest.mark.parametrize("resets", [False, True])
def test_break_offs_are_continued_without_fetching_a_byte_twice(
    server: FileServer, tmp_path: Path, resets: bool
) -> None:
    server.breaks, server.resets = [100_000, 50_000, 1, 0, 200_000], resets
    assert fetch(server.url, tmp_path / "a.zip") is True
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert len(server.served) == 6
    if not resets:  # a reset may destroy bytes on their way
        assert sum(server.served) == len(CONTENT)
        assert server.requests[1]["range"] == "bytes=100000-"


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_chunked_answers_are_continued(server: FileServer, tmp_path: Path, size: int | None) -> None:
    server.chunked, server.breaks = True, [300_000]
    server.content = CONTENT
    fetch(server.url, tmp_path / "a.zip", size)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_later_call_fetches_the_rest_only(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken_off_once(server, tmp_path / "a.zip", monkeypatch, 123_456)
    assert left_over(tmp_path) == {"a.zip.part"}
    assert fetch(server.url, tmp_path / "a.zip") is True
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.served == [len(CONTENT) - 123_456]
    assert left_over(tmp_path) == {"a.zip"}
    assert "going on after the 123456 bytes" in capsys.readouterr().err


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_complete_part_is_not_sent_again(server: FileServer, tmp_path: Path, size: int | None) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    assert fetch(server.url, tmp_path / "a.zip", size) is True
    assert sum(server.served) == 0
    assert len(server.requests) == (0 if size else 1)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_server_that_ignores_range_is_read_from_the_start(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_off_once(server, tmp_path / "a.zip", monkeypatch, 300_000)
    server.ignores_range = True
    assert fetch(server.url, tmp_path / "a.zip") is False
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.served == [len(CONTENT)]


def test_server_that_sends_another_range_is_read_from_the_start(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_off_once(server, tmp_path / "a.zip", monkeypatch, 300_000)
    server.sends_other_range = True
    assert fetch(server.url, tmp_path / "a.zip") is False
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_file_that_became_shorter_than_the_part(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_off_once(server, tmp_path / "a.zip", monkeypatch, 300_000)
    server.content = OTHER[:1000]  # 416: no such range
    fetch(server.url, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == OTHER[:1000]


def test_passing_server_errors_are_retried(server: FileServer, tmp_path: Path) -> None:
    server.statuses, server.headers = [503, 500, 429], {"Retry-After": "1000000"}
    fetch(server.url, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert len(server.requests) == 4


def test_lasting_server_error_is_given_up_after_the_retries(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "RETRIES", 3)
    server.statuses = [500] * 50
    with pytest.raises(InputError, match=r"broken off 4 times in a row \(HTTP 500 .*run again"):
        fetch(server.url, tmp_path / "a.zip")
    assert len(server.requests) == 4


@pytest.mark.parametrize(("progress", "ends"), [(40_000, True), (60_000, False)])
def test_break_offs_are_counted_anew_after_progress(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, progress: int, ends: bool
) -> None:
    monkeypatch.setattr(transfer, "RETRIES", 3)
    monkeypatch.setattr(transfer, "PROGRESS_BYTES", progress)
    server.breaks = [50_000] * 10
    if ends:
        fetch(server.url, tmp_path / "a.zip")
        assert sum(server.served) == len(CONTENT)
    else:
        with pytest.raises(InputError, match="200000 bytes are kept"):
            fetch(server.url, tmp_path / "a.zip")


def test_server_that_never_gets_on_is_given_up(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "RETRIES", 3)
    monkeypatch.setattr(transfer, "PROGRESS_BYTES", 1000)
    server.ignores_range, server.breaks = True, [300_000] * 100
    with pytest.raises(InputError, match="in a row"):
        fetch(server.url, tmp_path / "a.zip")
    assert len(server.requests) <= 5


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 204])
def test_refusal_is_not_retried(server: FileServer, tmp_path: Path, status: int) -> None:
    server.statuses = [status]
    with pytest.raises(InputError, match=rf"{server.url}: the server answers {status}.*--url") as caught:
        fetch(server.url, tmp_path / "a.zip")
    assert "\n" not in str(caught.value)
    assert len(server.requests) == 1
    assert left_over(tmp_path) == set()


@pytest.mark.parametrize("tells_length", [True, False])
@pytest.mark.parametrize("difference", [-1, 1])
def test_other_size_than_expected(
    server: FileServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tells_length: bool,
    difference: int,
) -> None:
    monkeypatch.setattr(transfer, "RETRIES", 1)
    server.tells_length = tells_length
    match = f"not the expected {len(CONTENT) + difference}: check --url"
    with pytest.raises(InputError, match=match):
        fetch(server.url, tmp_path / "a.zip", len(CONTENT) + difference)
    assert not (tmp_path / "a.zip").exists()


def test_no_connection_is_said_at_once(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match=r"cannot be reached .*check the network") as caught:
        fetch(f"http://127.0.0.1:{port}/a.zip", tmp_path / "a.zip")
    assert "\n" not in str(caught.value)


def test_redirection_is_followed_with_the_range(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_off_once(server, tmp_path / "a.zip", monkeypatch, 300_000)
    server.statuses, server.headers = [302], {"Location": server.url + "?moved"}
    fetch(server.url, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.served == [0, len(CONTENT) - 300_000]


def test_no_room_is_said_before_the_file_is_fetched(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=len(CONTENT) - 1))
    with pytest.raises(OSError, match=f"{len(CONTENT)} bytes to download, {len(CONTENT) - 1} free") as caught:
        fetch(server.url, tmp_path / "a.zip")
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_full_disk_is_no_break_off(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        fetch(server.url, tmp_path / "a.zip")
    assert caught.value.errno == errno.ENOSPC
    assert len(server.requests) == 1
