"""A named public data set -> its folder of videos: fetched, checked, extracted, as far as still to do."""

import datetime
import errno
import hashlib
import json
import shutil
import sys
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter
from tqdm import tqdm

from lightning_cells import paths
from lightning_cells.data.archive import extract, is_sound
from lightning_cells.data.atomic import writing
from lightning_cells.data.ctc import sequence_names
from lightning_cells.data.locking import exclusive
from lightning_cells.data.public_sets import TERMS, DataSet, find_set
from lightning_cells.data.transfer import check_url, fetch
from lightning_cells.errors import InputError, first_line


def download(name: str, root: Path | None = None, url: str | None = None, accept: bool = False) -> Path:
    """Gets a named public data set as ``ROOT/NAME/01``, ``ROOT/NAME/01_GT``, ...

    Does only what is still to do: nothing if the folder is there and whole; else extracts ``ROOT/NAME.zip``
    if that is there (and keeps it); else fetches the archive, going on where an earlier transfer stopped, and
    removes it after extraction. What the archive was (address, size, sha256, date) is recorded in
    ``ROOT/NAME.source.json``; any later download must be the same, just as a first one must be what
    `public_sets.DATASETS` says. Several processes may ask for one set at once: one works, the others wait.

    Args:
        name: one of `public_sets.DATASETS`.
        root: folder of the data sets; None for `paths.data_dir`.
        url: another address of the archive; the same checks hold.
        accept: takes an archive that is not the known one, and records it as the known one.

    Returns:
        The folder ``ROOT/NAME``.

    Raises:
        InputError: for an unknown name, an address that cannot be fetched, an archive that is not the known
            one, is not safe or holds no videos, a full disk, a folder of that name with something else in it.
    """
    dataset = find_set(name)
    if url is not None:
        check_url(url)
    root = Path(root or paths.data_dir()).absolute()
    folder = root / name
    try:
        # looked at before the lock is taken, so that a folder of data may be read-only
        if _is_complete(folder):
            _say(f"{folder}: already there")
            return folder
        root.mkdir(parents=True, exist_ok=True)
        with exclusive(root / f"{name}.lock"):
            if not _is_complete(folder):
                _install(dataset, folder, url or dataset.url, accept)
    except OSError as error:
        what = f"{error.filename or root}: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
            raise InputError(
                f"{what}: the disk is full, make room and run again (what was fetched is kept), or give another --root"
            ) from error
        raise InputError(f"{what}: give a folder that can be written by --root") from error
    return folder


@dataclass(frozen=True)
class _Source:
    """What a data set was made of, as recorded beside its folder.

    Attributes:
        url: where the archive came from.
        size: its bytes.
        sha256: its checksum.
        date: day of the download.
        folders: files and bytes in each folder of the data set.
    """

    url: str
    size: int
    sha256: str
    date: str
    folders: dict[str, tuple[int, int]]


def _install(dataset: DataSet, folder: Path, url: str, accept: bool) -> None:
    """Makes `folder` from the archive that is there, or else from `url`."""
    archive = folder.with_name(f"{folder.name}.zip")
    expected, origin = _expected(dataset, folder)
    if accept:
        expected = (None, None)
    fetched = not archive.exists()
    if fetched:
        size, sha256 = _fetch(url, archive, expected)
    else:
        _say(f"{archive}: already there, not downloaded")
        size, sha256 = _fingerprint(archive)
    if _differs((size, sha256), expected):
        raise InputError(
            f"{archive}: {size} bytes with sha256 {sha256}, but {origin} {expected[0] or '(size unknown)'} "
            f"bytes with sha256 {expected[1]}: delete it and run again, or take it by accept=True (--accept)"
        )
    temporary = folder.with_name(f".{folder.name}.extracting")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process: we hold the lock
    label = url if fetched else str(archive)
    try:
        extract(archive, temporary, label)
        if not sequence_names(temporary):
            raise InputError(f"{label}: holds no folder like 01 with frames like t000.tif: check --url")
        source = _Source(
            url if fetched else str(archive), size, sha256, datetime.date.today().isoformat(), _count(temporary)
        )
        with writing(_record_path(folder)) as path:
            path.write_text(json.dumps(asdict(source), indent=1))
        if folder.exists():
            folder.rmdir()  # it is empty, or _is_complete had spoken
        temporary.rename(folder)
    except InputError:
        if fetched:
            archive.unlink()
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if fetched:
        archive.unlink()
    _say(f"{folder}: sha256 {sha256}, recorded in {_record_path(folder).name}\n{TERMS}")


def _fetch(url: str, archive: Path, expected: tuple[int | None, str | None]) -> tuple[int, str]:
    """Downloads the archive; again from the start if it was joined from parts that belong to different files."""
    joined = fetch(url, archive, expected[0])
    found = _fingerprint(archive)
    if joined and (_differs(found, expected) if expected[1] else not is_sound(archive)):
        _say(f"{archive.name}: its parts do not make the expected file, fetched again from the start")
        archive.unlink()
        fetch(url, archive, expected[0])
        found = _fingerprint(archive)
    if not zipfile.is_zipfile(archive):
        archive.unlink()
        raise InputError(f"{url}: sends no zip archive (a login or error page?): check it in a browser, or --url")
    return found


def _expected(dataset: DataSet, folder: Path) -> tuple[tuple[int | None, str | None], str]:
    """Returns size and sha256 that the archive must have, and who says so: the record, else the table."""
    source = _read_record(folder)
    if source:
        return (source.size, source.sha256), f"{_record_path(folder).name} recorded on {source.date}"
    return (dataset.size, dataset.sha256), "the published archive has"


def _differs(found: tuple[int, str], expected: tuple[int | None, str | None]) -> bool:
    return any(known is not None and known != value for value, known in zip(found, expected, strict=True))


def _fingerprint(archive: Path) -> tuple[int, str]:
    with archive.open("rb") as file:
        return archive.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _is_complete(folder: Path) -> bool:
    """Whether the data set is there.

    Raises:
        InputError: if something else is, or only a part of it.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    away = "move it away and run again"
    if not folder.is_dir() or not sequence_names(folder):
        raise InputError(f"{folder}: is there, but holds no folder like 01 with frames like t000.tif: {away}")
    source = _read_record(folder)
    if source:
        there = _count(folder)
        for name, (files, size) in source.folders.items():
            found = there.get(name, (0, 0))
            if found[0] < files or found[1] < size:
                raise InputError(
                    f"{folder / name}: {found[0]} files of {found[1]} bytes, but {files} of {size} were "
                    f"extracted: {away}"
                )
    return True


def _count(folder: Path) -> dict[str, tuple[int, int]]:
    """Returns files and bytes below each folder in `folder`."""
    sizes = {
        child.name: [path.stat().st_size for path in child.rglob("*") if path.is_file()]
        for child in sorted(folder.iterdir())
        if child.is_dir()
    }
    return {name: (len(files), sum(files)) for name, files in sizes.items()}


def _record_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.source.json")


def _read_record(folder: Path) -> _Source | None:
    path = _record_path(folder)
    if not path.exists():
        return None
    try:
        return TypeAdapter(_Source).validate_json(path.read_text())
    except ValueError as error:
        raise InputError(
            f"{path}: is no record of a download ({first_line(error)}): delete it and run again"
        ) from error


def _say(message: str) -> None:
    tqdm.write(message, file=sys.stderr)
