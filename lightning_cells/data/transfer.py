"""A file from the web, continued where an earlier transfer stopped."""

import contextlib
import errno
import re
import shutil
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3
from tqdm import tqdm

from lightning_cells.errors import InputError, one_line
from lightning_cells.progress import Progress

RETRIES = 8
"""Retries in a row, without `PROGRESS_BYTES` more on disk, before a transfer is given up."""
PROGRESS_BYTES = 1 << 20
FIRST_WAIT_S = 1.0
"""Seconds before the first retry; doubled for each further one, up to `LONGEST_WAIT_S`."""
LONGEST_WAIT_S = 30.0
TIMEOUT_S = 30.0
"""Seconds without a byte after which a connection counts as broken off."""

_BLOCK = 1 << 18
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


def fetch(url: str, target: Path, size: int | None = None) -> bool:
    """Downloads a file; what came of it lies in ``TARGET.part`` and is continued from, now and in later calls.

    The rest is asked for by Range (RFC 9110, section 14.2). A server that ignores this is read from the start.
    Whether a file that was joined is the right one is for the caller to check: it may have changed on the server
    between two requests.

    Args:
        url: http or https address.
        target: file to write; appears when all of it is there.
        size: bytes that the file must have; None for any.

    Returns:
        Whether the file was joined from the answers to several requests.

    Raises:
        InputError: for an address that is none, a host that cannot be reached, a refusal (HTTP 4xx), another
            size than `size`, and after `RETRIES` retries in a row.
        OSError: if the file cannot be written, or there is no room for it (ENOSPC, before it is fetched).
    """
    check_url(url)
    part = target.with_name(target.name + ".part")
    best = _bytes(part)
    if best:
        tqdm.write(f"{target.name}: going on after the {best} bytes that are there", file=sys.stderr)
    failures, reached = 0, False
    with Progress(target.stem, unit="B", unit_scale=True, unit_divisor=1024) as bar:
        while True:
            try:
                joined = _attempt(url, part, size, bar)
                break
            except BrokenOff as error:
                reached = reached or not error.unreachable
                if not reached:
                    raise InputError(f"{url}: cannot be reached ({error}): check the network and --url") from error
                # counted anew only if more came than ever before: a server that never gets on cannot hold us
                have = _bytes(part)
                failures = 1 if have >= best + PROGRESS_BYTES else failures + 1
                best = max(best, have)
                if failures > RETRIES:
                    raise InputError(
                        f"{url}: broken off {failures} times in a row ({error}): {have} bytes are kept, run again "
                        "to go on"
                    ) from error
                time.sleep(min(LONGEST_WAIT_S, max(error.wait, FIRST_WAIT_S * 2 ** (failures - 1))))
    part.replace(target)
    return joined


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


def open_url(url: str, start: int = 0) -> requests.Response:
    """Asks for the bytes of `url` from `start` on, follows redirections to http and https.

    Returns:
        An answer of status 200, 206 or 416, not yet read.

    Raises:
        InputError: if asking again will not help.
        BrokenOff: if it may.
    """
    headers = {"User-Agent": "lightning-cells", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S)
    except requests.exceptions.SSLError as error:
        raise InputError(
            f"{url}: the server's certificate is not trusted ({_cause(error)}): install the system's certificates, or "
            "give its http:// address by --url (a known sha256 is checked all the same)"
        ) from error
    except requests.exceptions.Timeout as error:
        raise BrokenOff(_cause(error), unreachable=isinstance(error, requests.exceptions.ConnectTimeout)) from error
    except requests.exceptions.ConnectionError as error:
        refused = isinstance(getattr(error.args[0], "reason", None), urllib3.exceptions.NewConnectionError)
        raise BrokenOff(_cause(error), unreachable=refused) from error
    except (requests.exceptions.RequestException, ValueError) as error:  # no web address, or one too many
        raise InputError(f"--url {url!r}: {_cause(error)}: give a plain http:// or https:// address") from error
    status = response.status_code
    if status in (200, 206, 416):
        return response
    response.close()
    reason = one_line(f"{status} {response.reason}")
    if status in _TRANSIENT:
        seconds = response.headers.get("Retry-After", "")
        raise BrokenOff(f"HTTP {reason}", wait=float(seconds) if seconds.isdigit() else 0.0)
    raise InputError(f"{url}: the server answers {reason}: {_HINTS.get(status, 'check --url, it sends no file')}")


def content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """Returns the first byte of an answer, and the size of the whole file; None if not told."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    first, size = match.groups() if match else (None, None)
    return None if first is None else int(first), None if size in (None, "*") else int(size)


def _attempt(url: str, part: Path, size: int | None, bar: Progress) -> bool:
    """Fetches what is missing, over one connection.

    Returns:
        Whether it was added to what an earlier connection brought.

    Raises:
        BrokenOff: if not all of it came.
    """
    have = _bytes(part)
    if have and have == size:
        return True
    with contextlib.closing(open_url(url, have)) as response:
        start, total = content_range(response)
        _check_size(url, part, size, total)
        if have and response.status_code == 416 and total == have:
            return True
        if start is None or start not in (0, have):
            part.unlink(missing_ok=True)
            raise BrokenOff(f"HTTP {response.status_code}: not the part that was asked for")
        if start < have:
            tqdm.write(f"{url}: sent from the start again", file=sys.stderr)
        have = start
        total = size if total is None else total
        missing, free = (total or 0) - have, shutil.disk_usage(part.parent).free
        if missing > free:
            raise OSError(errno.ENOSPC, f"{missing} bytes to download, {free} free", str(part.parent))
        bar.total, bar.n = total, have
        bar.refresh()
        with part.open("ab" if have else "wb") as file:
            while block := _read(response):
                have += len(block)
                if size is not None and have > size:
                    _check_size(url, part, size, have)
                file.write(block)
                bar.update(len(block))
    if total is not None and have < total:
        raise BrokenOff(f"the connection ended after {have} of {total} bytes")
    return start > 0


def _read(response: requests.Response) -> bytes:
    try:
        return response.raw.read1(_BLOCK)  # what has come, without waiting for a full block
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise BrokenOff(_cause(error)) from error


def _check_size(url: str, part: Path, size: int | None, found: int | None) -> None:
    if size is not None and found is not None and found != size:
        part.unlink(missing_ok=True)
        raise InputError(
            f"{url}: the file there has {found} bytes, not the expected {size}: check --url, or take what is there by "
            "accept=True (--accept)"
        )


def _bytes(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _cause(error: BaseException) -> str:
    """The innermost reason of an error, in one line, without the addresses of objects."""
    while isinstance(inner := getattr(error, "reason", None) or next(iter(error.args), None), BaseException):
        error = inner
    said = getattr(error, "verify_message", None) or re.sub(r"<[^<>]*>:? ?", "", str(error))
    return one_line(said) or type(error).__name__
