import socket
import ssl
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import requests
import urllib3
from file_server import FileServer, serving

from lightning_cells.data.transfer import BrokenOff, check_url, content_range, open_url
from lightning_cells.errors import InputError


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(b"0123456789") as state:
        yield state


def fails(patch: pytest.MonkeyPatch, error: Exception) -> None:
    """Lets every connection fail."""

    def fail(*args: object, **kwargs: object) -> None:
        raise error

    patch.setattr(requests, "get", fail)


def unreachable(reason: Exception) -> Exception:
    """What requests raises where there is no connection."""
    return requests.exceptions.ConnectionError(urllib3.exceptions.MaxRetryError(None, "/", reason))  # type: ignore[arg-type]


def test_answer_and_its_range(server: FileServer) -> None:
    with open_url(server.url, 4) as response:
        assert response.status_code == 206
        assert content_range(response) == (4, 10)
        assert response.content == b"456789"
    with open_url(server.url) as response:
        assert response.status_code == 200
        assert content_range(response) == (0, 10)
    assert server.requests[0]["user-agent"] == "lightning-cells"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes 5-9/10", (5, 10)),
        ("bytes 0-9/*", (0, None)),
        ("bytes */10", (None, 10)),
        ("items 0-9/10", (None, None)),
        ("", (None, None)),
    ],
)
def test_content_range(header: str, expected: tuple[int | None, int | None]) -> None:
    assert content_range(SimpleNamespace(status_code=206, headers={"Content-Range": header})) == expected  # type: ignore[arg-type]


def test_range_beyond_the_end(server: FileServer) -> None:
    with open_url(server.url, 10) as response:
        assert response.status_code == 416
        assert content_range(response) == (None, 10)


@pytest.mark.parametrize(("after", "wait"), [("7", 7.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0), (None, 0.0)])
def test_passing_trouble_and_its_wait(server: FileServer, after: str | None, wait: float) -> None:
    server.statuses, server.headers = [503], {"Retry-After": after} if after else {}
    with pytest.raises(BrokenOff, match="HTTP 503 Service Unavailable") as caught:
        open_url(server.url)
    assert (caught.value.wait, caught.value.unreachable) == (wait, False)


def test_name_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    fails(monkeypatch, unreachable(urllib3.exceptions.NameResolutionError("example.org", None, unknown)))  # type: ignore[arg-type]
    with pytest.raises(BrokenOff, match="not known") as caught:
        open_url("https://example.org/a.zip")
    assert caught.value.unreachable


def test_certificate_that_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = ssl.SSLCertVerificationError(1, "certificate verify failed")
    reason.verify_message = "unable to get local issuer certificate"
    refused = urllib3.exceptions.MaxRetryError(None, "/", urllib3.exceptions.SSLError(reason))  # type: ignore[arg-type]
    fails(monkeypatch, requests.exceptions.SSLError(refused))
    with pytest.raises(InputError, match=r"not trusted \(unable to get .*http:// address by --url"):
        open_url("https://example.org/a.zip")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/a.zip",
        "file:///etc/passwd",
        "data:text/plain,x",
        "example.org/a.zip",
        "http:///a.zip",
        "http://example.org:port/a.zip",
        "http://[::1/a.zip",
        "http://example.org/a b.zip",
        "http://example.org/a\r\nHost: b",
        "http://example.org/ä.zip",
        "",
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(InputError, match=r"^--url .*give an http:// or https:// address") as caught:
        check_url(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("location", ["file:///etc/hostname", "ftp://127.0.0.1/a.zip"])
def test_redirection_does_not_leave_the_web(server: FileServer, location: str) -> None:
    server.statuses, server.headers = [302], {"Location": location}
    with pytest.raises(InputError, match="--url"):
        open_url(server.url)
