"""Folders of memory-mapped arrays, made once and found again by the contents of their source files."""

import hashlib
import json
import os
import shutil
import stat
import weakref
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from lightning_cells.data.atomic import writing
from lightning_cells.data.locking import exclusive
from lightning_cells.errors import InputError

_maps: weakref.WeakValueDictionary[tuple[Path, int], np.memmap] = weakref.WeakValueDictionary()


def stamp(paths: Iterable[Path]) -> str:
    """Digest of names, sizes and times of files: while it stays, so do their contents, which are not read.

    Raises:
        InputError: if a file is gone, or is none.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        try:
            state = path.stat()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}): check the file") from None
        if not stat.S_ISREG(state.st_mode):  # reading from a pipe may wait for ever
            raise InputError(f"{path}: is no regular file, but a folder, pipe or device: remove it")
        # inode and change time see a replacement within one tick of the modification time
        place = (os.path.abspath(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
        digest.update(repr(place).encode())
    return digest.hexdigest()


def content_digests(groups: list[list[tuple[str, Path]]], folder: Path) -> list[str]:
    """Digests of groups of files by their roles and contents, remembered as long as `stamp` stays.

    Args:
        groups: for each group its files, as pairs of role (such as "frame 7") and path.
        folder: where digests are remembered.

    Returns:
        One digest of 32 hexadecimal digits for each group.

    Raises:
        InputError: if a file cannot be read.
    """
    names = [[role for role, _ in group] for group in groups]
    state = stamp(path for group in groups for _, path in group) + json.dumps(names)
    memo = folder / f"{hashlib.blake2b(state.encode(), digest_size=16).hexdigest()}.json"
    try:
        known = json.loads(memo.read_text())
        if len(known) == len(groups):
            return known
    except (OSError, ValueError):
        pass  # not there, or damaged: made anew
    digests = []
    for group in groups:
        total = hashlib.blake2b(digest_size=16)
        for role, path in group:
            try:
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "blake2b").hexdigest()
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({error.strerror}): check the file") from None
            total.update(f"{role} {content}\n".encode())
        digests.append(total.hexdigest())
    with writing(memo) as temporary:
        temporary.write_text(json.dumps(digests))
    return digests


def entry(folder: Path, build: Callable[[Path], Any]) -> Any:
    """Returns the description of a cache entry, which is built first if it is missing, partial or broken.

    Of processes that want the same entry at once, one builds it and the others wait.

    Args:
        folder: the entry.
        build: fills a temporary folder with arrays and returns the description, which JSON must be able to
            hold.
    """
    description = _describe(folder)
    if description is not None:
        return description
    with exclusive(folder.with_name(f".{folder.name}.lock")):
        description = _describe(folder)  # another process may have built it meanwhile
        if description is not None:
            return description
        temporary = folder.with_name(f".{folder.name}.tmp")
        for left in (temporary, folder):  # by a killed process, and a broken entry
            shutil.rmtree(left, ignore_errors=True)
        temporary.mkdir()
        try:
            description = build(temporary)
            files = {path.name: path.stat().st_size for path in temporary.iterdir()}
            (temporary / "entry.json").write_text(json.dumps({"files": files, "description": description}))
            os.rename(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return _describe(folder)  # in the JSON form that a later call will see


def _describe(folder: Path) -> Any:
    """Description of a whole entry, else None."""
    try:
        record = json.loads((folder / "entry.json").read_text())
        if all((folder / name).stat().st_size == size for name, size in record["files"].items()):
            return record["description"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def make_room(folder: Path, limit: int, keep: Collection[Path]) -> int:
    """Removes the entries of a folder that were not used for longest, as far as all take more than `limit` bytes.

    Who has an entry open can read on. An entry is in use when it is touched, by `touch`.

    Args:
        folder: the cache.
        limit: in bytes.
        keep: entries that stay.

    Returns:
        The bytes that are left.
    """
    known = {path: _state(path) for path in folder.glob("[!.]*") if path.is_dir()}
    total = sum(size for _, size in known.values())
    for path, (_, size) in sorted(known.items(), key=lambda item: item[1]):
        if total > limit and path not in keep:
            shutil.rmtree(path, ignore_errors=True)
            total -= size
    return total


def touch(folder: Path) -> None:
    """Notes that an entry is in use, where it can be written to."""
    with suppress(OSError):
        os.utime(folder)


def opened() -> set[Path]:
    """The entries whose arrays this process has open."""
    return {path.parent for path, _ in list(_maps)}


def _state(folder: Path) -> tuple[float, int]:
    """When an entry was last used, and its bytes."""
    try:
        return folder.stat().st_mtime, sum(path.stat().st_size for path in folder.iterdir())
    except FileNotFoundError:
        return 0.0, 0  # another process removed it


def open_array(path: Path, dtype: np.dtype) -> np.ndarray:
    """Memory-maps a flat file of numbers, read-only; one map per file and process, however many views it has.

    Raises:
        InputError: if the file is gone.
    """
    try:
        key = (path, path.stat().st_ino)
        mapped = _maps.get(key)
        if mapped is None:
            mapped = _maps[key] = np.memmap(path, dtype, mode="r")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): open the data again") from None
    return mapped.view(np.ndarray)
