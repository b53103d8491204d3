"""One answer of a web server, with every way to fail told apart: the user's mistake, or a passing trouble."""

import http.client
import re
import ssl
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from lightning_cells.errors import InputError

TIMEOUT_S = 30.0
"""Seconds without a byte after which a connection counts as broken off."""

_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_HINTS = {
    401: "it asks for a login: give another --url",
    403: "it refuses the file: give another --url",
    404: "the file is not there: check --url, or look for its new address",
    410: "the file is gone: look for its new address, and give it by --url",
}


class BrokenOff(Exception):
    """No answer, or not all of it, for a reason that may pass.

    Attributes:
        unreachable: there was no connection at all.
        wait: seconds that the server asks to wait; 0 if it does not.
    """

    def __init__(self, reason: object, unreachable: bool = False, wait: float = 0.0) -> None:
        super().__init__(str(reason) or type(reason).__name__)
        self.unreachable = unreachable
        self.wait = wait


class OutOfRange(BrokenOff):
    """The server has no such part of the file (HTTP 416): the file is another one by now."""


def check_url(url: str) -> None:
    """Checks that `url` is an http or https address.

    Raises:
        InputError: if not.
    """
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or not url.isascii() or not url.isprintable() or " " in url:
        raise InputError(f"--url {url!r}: give an http:// or https:// address, with special characters %-encoded")


def open_url(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    """Asks for `url`, follows redirections to http and https.

    Returns:
        An answer of status 200 or 206, not yet read.

    Raises:
        InputError: if asking again will not help.
        BrokenOff: if it may.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "lightning-cells", **headers})
    try:
        response: http.client.HTTPResponse = _opener().open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(url, error) from error
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise InputError(
                f"{url}: the server's certificate is not trusted ({reason.verify_message}): install the "
                "system's certificates, or give its http:// address by --url (a known sha256 is checked "
                "all the same)"
            ) from error
        if not isinstance(reason, OSError):
            raise InputError(f"{url}: {reason}: give another --url") from error
        raise BrokenOff(reason, unreachable=True) from error
    except http.client.InvalidURL as error:
        raise InputError(f"--url {url!r}: {error}: give a plain http:// or https:// address") from error
    except (http.client.HTTPException, OSError) as error:
        raise BrokenOff(error) from error
    if response.status not in (200, 206):
        response.close()
        raise InputError(f"{url}: the server answers {response.status} and sends no file: check --url")
    return response


def content_range(response: http.client.HTTPResponse) -> tuple[int | None, int | None]:
    """Returns the first byte of a partial answer, and the size of the whole file; None if not told."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if not match:
        return None, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def _refusal(url: str, error: urllib.error.HTTPError) -> Exception:
    reason = " ".join(f"{error.code} {error.reason}".split())
    if error.code == 416:
        return OutOfRange(f"HTTP {reason}")
    if error.code in _TRANSIENT:
        seconds = error.headers.get("Retry-After", "")
        return BrokenOff(f"HTTP {reason}", wait=float(seconds) if seconds.isdigit() else 0.0)
    return InputError(f"{url}: the server answers {reason}: {_HINTS.get(error.code, 'check --url')}")


def _opener() -> urllib.request.OpenerDirector:
    """An opener of http and https only: no redirection leads to ftp or to a local file."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
