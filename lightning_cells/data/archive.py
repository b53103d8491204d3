"""Zip archives from the network -> a folder, all or nothing, and nothing outside of that folder."""

import errno
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from lightning_cells.errors import InputError
from lightning_cells.progress import Progress

MAX_BYTES = 2**40
"""Archives that unpack to more than this are refused: above any of the challenge, whose largest has 320 GB."""
MAX_FILES = 200_000
"""Archives of more files than this are refused: far above any set of the challenge."""

_SEQUENCE_FOLDER = re.compile(r"\d{2,}(_\w+)?")  # 01, 01_GT, 01_ST, ...
_UNSOUND = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError)
_BLOCK = 1 << 20
_LONGEST_NAME = 255  # bytes, of a file on any usual disk
_LONGEST_PATH = 2000
_Member = tuple[zipfile.ZipInfo, tuple[str, ...]]  # and the parts of its path below the target


def extract(archive: Path, target: Path, source: str) -> None:
    """Unpacks a zip archive into a new folder.

    The whole list of members is checked before the first byte is written. Only plain files and folders are
    made, without the archive's permission bits. A single top folder, such as ``Fluo-N2DH-SIM+/`` around
    ``01/``, is left out. macOS's ``__MACOSX`` and ``.DS_Store`` are skipped.

    Args:
        archive: the zip file.
        target: folder to make; must not exist. It is removed again on any error.
        source: what the messages call the archive (where it came from).

    Raises:
        InputError: for a file that is no zip archive, or is damaged; for a member outside the target (absolute
            path, drive letter, ``..``, backslash), a link or a device, one whose name is too long for a file, one that
            is encrypted or neither stored nor deflated, two members of one name; for more than `MAX_BYTES` or
            `MAX_FILES`.
        OSError: if the files cannot be written, or there is no room for them (ENOSPC, before any is written).
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = _without_top([_checked(info, source) for info in file.infolist()])
            total = _checked_total(members, source, target.parent)
            target.mkdir()
            try:
                with Progress("extracting", total, "B", unit_scale=True, unit_divisor=1024) as bar:
                    for info, parts in members:
                        _write(file, info, target.joinpath(*parts), bar)
            except BaseException:
                shutil.rmtree(target, ignore_errors=True)
                raise
    except InputError:
        raise
    except _UNSOUND as error:
        raise InputError(f"{source}: not a sound zip archive ({error}): replace it, or give another --url") from error


def is_sound(archive: Path) -> bool:
    """Whether a file is a zip archive whose members have their checksums, and do not unpack to `MAX_BYTES`."""
    try:
        with zipfile.ZipFile(archive) as file:
            return sum(info.file_size for info in file.infolist()) <= MAX_BYTES and file.testzip() is None
    except _UNSOUND:
        return False


def _checked(info: zipfile.ZipInfo, source: str) -> _Member:
    """Returns the member with the parts of its path, which lies below the target."""
    name = info.orig_filename  # `filename` hides backslashes on Windows and what follows a NUL byte
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    wrong = None
    if name.startswith("/") or ".." in parts or "\\" in name or ":" in name or "\0" in name:
        wrong = "may lie outside the target folder"
    elif any(len(os.fsencode(part)) > _LONGEST_NAME for part in parts) or len(name) > _LONGEST_PATH:
        wrong = "has a name that is too long for a file"
    elif stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        wrong = "is a link or a device"
    elif info.flag_bits & 0x1:
        wrong = "is encrypted"
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # the standard library unpacks the others without a bound on memory
        wrong = "is neither stored nor deflated"
    if wrong:
        raise InputError(f"{source}: member {name[:100]!r} {wrong}: nothing was extracted, give another --url")
    return info, parts


def _without_top(members: list[_Member]) -> list[_Member]:
    """Drops what is no data, and the one top folder that all members share."""
    members = [
        (info, parts) for info, parts in members if parts and parts[0] != "__MACOSX" and parts[-1] != ".DS_Store"
    ]
    files = [parts for info, parts in members if not info.is_dir()]
    tops = {parts[0] for parts in files}
    top = tops.pop() if len(tops) == 1 else ""
    if not top or any(len(parts) == 1 for parts in files) or _SEQUENCE_FOLDER.fullmatch(top):
        return members
    return [(info, parts[1:]) for info, parts in members if parts[0] == top and len(parts) > 1]


def _checked_total(members: list[_Member], source: str, folder: Path) -> int:
    """Returns the bytes that the files take on the disk of `folder`."""
    files = [(info, parts) for info, parts in members if not info.is_dir()]
    names = {"/".join(parts).casefold() for _, parts in files}
    parents = {
        "/".join(parts[:depth]).casefold() for info, parts in members for depth in range(1, len(parts) + info.is_dir())
    }
    if len(names) != len(files) or names & parents:
        raise InputError(f"{source}: two members have one name: nothing was extracted, give another --url")
    total = sum(info.file_size for info, _ in files)  # zipfile reads no member beyond this size
    if total > MAX_BYTES or len(files) > MAX_FILES:
        raise InputError(
            f"{source}: unpacks to {total} bytes in {len(files)} files, more than the {MAX_BYTES} bytes and "
            f"{MAX_FILES} files that are let through: nothing was extracted, check --url"
        )
    free = shutil.disk_usage(folder).free
    if total > free:
        raise OSError(errno.ENOSPC, f"{total} bytes to extract, {free} free", str(folder))
    return total


def _write(file: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, bar: Progress) -> None:
    if info.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as target:
        for block in _blocks(file, info):
            target.write(block)
            bar.update(len(block))


def _blocks(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    try:
        with file.open(info) as source:
            while block := source.read(_BLOCK):
                yield block
    except OSError as error:  # of reading: what goes wrong in writing is not seen here
        raise zipfile.BadZipFile(str(error)) from error
