"""A file from the web, continued where an earlier transfer stopped."""

import contextlib
import errno
import json
import re
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3
from tqdm import tqdm

from lightning_cells.data.atomic import writing
from lightning_cells.errors import InputError

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


class OutOfRange(BrokenOff):
    """The server has no such part of the file (HTTP 416): the file is another one by now."""


def fetch(url: str, target: Path, size: int | None = None) -> bool:
    """Downloads a file; what came of it is kept beside the target and continued from, now and in later calls.

    The part lies in ``TARGET.part``, and in ``TARGET.part.json`` which version of the file it belongs to
    (ETag, date, size). The rest is asked for by Range and If-Range (RFC 9110, sections 13.1.5 and 14.2) and
    joined only if the version is still the same. A server that ignores this, or has another version by now,
    is read from the start.

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
    transfer = _Transfer(url, target, size)
    best = transfer.have
    if best:
        tqdm.write(f"{target.name}: going on after the {best} bytes that are there", file=sys.stderr)
    failures, reached = 0, False
    with transfer.bar:
        while True:
            try:
                transfer.attempt()
                break
            except BrokenOff as error:
                reached = reached or not error.unreachable
                if not reached:
                    raise InputError(f"{url}: cannot be reached ({error}): check the network and --url") from error
                # counted anew only if more came than ever before: a server that never gets on cannot hold us
                failures = 1 if transfer.have >= best + PROGRESS_BYTES else failures + 1
                best = max(best, transfer.have)
                if failures > RETRIES:
                    raise InputError(
                        f"{url}: broken off {failures} times in a row ({error}): {transfer.have} bytes are "
                        "kept, run again to go on"
                    ) from error
                time.sleep(min(LONGEST_WAIT_S, max(error.wait, FIRST_WAIT_S * 2 ** (failures - 1))))
    transfer.part.replace(target)
    transfer.note.unlink(missing_ok=True)
    return transfer.joined


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


def open_url(url: str, headers: dict[str, str]) -> requests.Response:
    """Asks for `url`, follows redirections to http and https.

    Returns:
        An answer of status 200 or 206, not yet read.

    Raises:
        InputError: if asking again will not help.
        BrokenOff: if it may.
    """
    try:
        response = requests.get(
            url, headers={"User-Agent": "lightning-cells", **headers}, stream=True, timeout=TIMEOUT_S
        )
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
    if response.status_code not in (200, 206):
        with response:
            raise _refusal(url, response)
    return response


def content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """Returns the first byte of a partial answer, and the size of the whole file; None if not told."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if not match:
        return None, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def _refusal(url: str, response: requests.Response) -> Exception:
    reason = " ".join(f"{response.status_code} {response.reason}".split())
    if response.status_code == 416:
        return OutOfRange(f"HTTP {reason}")
    if response.status_code in _TRANSIENT:
        seconds = response.headers.get("Retry-After", "")
        return BrokenOff(f"HTTP {reason}", wait=float(seconds) if seconds.isdigit() else 0.0)
    hint = _HINTS.get(response.status_code, "check --url, it sends no file")
    return InputError(f"{url}: the server answers {reason}: {hint}")


def _cause(error: BaseException) -> str:
    """The innermost reason of an error, in one line, without the addresses of objects."""
    while isinstance(inner := getattr(error, "reason", None) or next(iter(error.args), None), BaseException):
        error = inner
    said = getattr(error, "verify_message", None) or re.sub(r"<[^<>]*>:? ?", "", str(error))
    return " ".join(said.split()) or type(error).__name__


@dataclass(frozen=True)
class _Version:
    """Which version of which file some bytes belong to; None where the server does not tell."""

    url: str
    etag: str | None
    modified: str | None
    size: int | None

    @classmethod
    def of(cls, url: str, response: requests.Response) -> "_Version":
        length = response.headers.get("Content-Length", "")
        full = int(length) if length.isdigit() else None
        size = content_range(response)[1] if response.status_code == 206 else full
        return cls(url, response.headers.get("ETag"), response.headers.get("Last-Modified"), size)

    @property
    def validator(self) -> str | None:
        """What If-Range takes: a strong ETag, else the date."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    @property
    def recognisable(self) -> bool:
        """Whether another version can be told from this one."""
        return self.validator is not None or self.size is not None

    def same(self, other: "_Version") -> bool:
        """Whether bytes of both may be joined: nothing that both tell differs."""
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return all(mine == theirs for mine, theirs in pairs if mine is not None and theirs is not None)


class _Transfer:
    """One file on its way: the part on disk, and one connection after the other."""

    def __init__(self, url: str, target: Path, size: int | None) -> None:
        self.url = url
        self.part = target.with_name(target.name + ".part")
        self.note = target.with_name(target.name + ".part.json")
        self.size = size
        self.version = self._read_note()
        if self.version is None:
            self.discard()
        self.joined = self.have > 0
        self.bar = tqdm(
            total=size,
            initial=self.have,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            desc=target.stem,
            disable=None,
        )

    @property
    def have(self) -> int:
        """Bytes on disk."""
        return self.part.stat().st_size if self.part.exists() else 0

    def discard(self) -> None:
        """Forgets the part."""
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        self.version = None

    def attempt(self) -> None:
        """Fetches what is missing.

        Raises:
            BrokenOff: if not all of it came.
        """
        have = self.have
        headers = {"Accept-Encoding": "identity"}
        if have and self.version is not None and self.version.recognisable:
            self._check_size(self.version.size)
            if have == self.version.size:
                return
            headers["Range"] = f"bytes={have}-"
            if self.version.validator:
                headers["If-Range"] = self.version.validator
        try:
            response = open_url(self.url, headers)
        except OutOfRange:
            self.discard()
            raise
        with contextlib.closing(response):
            now = _Version.of(self.url, response)
            if response.status_code == 200:
                if have:
                    tqdm.write(f"{self.url}: sent from the start again", file=sys.stderr)
                have, self.joined = 0, False
            elif self.version is not None and self.version.same(now) and content_range(response)[0] == have:
                now, self.joined = self.version, True
            else:
                self.discard()
                raise BrokenOff("the file changed on the server")
            self._check_size(now.size)
            total = now.size if now.size is not None else self.size
            self._check_room((total or 0) - have)
            self.bar.total, self.bar.n = total, have
            self.bar.refresh()
            self._read(response, now, have)
        if total is not None and self.have < total:
            raise BrokenOff(f"the connection ended after {self.have} of {total} bytes")

    def _read(self, response: requests.Response, version: _Version, have: int) -> None:
        with self.part.open("ab" if have else "wb") as file:
            if not have:  # the part is empty by now: an old part never lies beside a new note
                self.version = version
                with writing(self.note) as path:
                    path.write_text(json.dumps(asdict(version)))
            while True:
                try:
                    block = response.raw.read1(_BLOCK)  # what has come, without waiting for a full block
                except (urllib3.exceptions.HTTPError, OSError) as error:
                    raise BrokenOff(_cause(error)) from error
                if not block:
                    return
                have += len(block)
                if self.size is not None and have > self.size:
                    self._check_size(have)
                file.write(block)
                self.bar.update(len(block))

    def _read_note(self) -> _Version | None:
        """Returns the version that the part belongs to, or None if the part is of no use."""
        try:
            version = _Version(**json.loads(self.note.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        fits = version.size is None or self.have <= version.size
        return version if version.url == self.url and version.recognisable and fits else None

    def _check_size(self, size: int | None) -> None:
        if self.size is not None and size is not None and size != self.size:
            self.discard()
            raise InputError(
                f"{self.url}: the file there has {size} bytes, not the expected {self.size}: check --url, or "
                "take what is there by accept=True (--accept)"
            )

    def _check_room(self, missing: int) -> None:
        free = shutil.disk_usage(self.part.parent).free
        if missing > free:
            raise OSError(errno.ENOSPC, f"{missing} bytes to download, {free} free", str(self.part.parent))
