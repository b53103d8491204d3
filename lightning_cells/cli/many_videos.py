"""Any number of videos, tracked one after the other: what is done is skipped, also after a kill, and a table sums up.

``OUT`` gets for each video a result folder ``NAME_RES`` and a record ``NAME.json`` of what was found and by which model
and options; ``videos.csv`` is the table of all records. Each is whole at any time, so that several processes may work
on shares of the videos at once.
"""

import csv
import hashlib
import json
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from lightning_cells.data.atomic import writing
from lightning_cells.data.cache import stamp
from lightning_cells.data.tracks import read_tracks
from lightning_cells.errors import Doubt, InputError

TABLE = "videos.csv"
_COLUMNS = ("video", "frames", "cells", "tracks", "divisions", "warnings", "seconds")


class Row(NamedTuple):
    """What was found in a video.

    Attributes:
        video: its name.
        frames: how many it has.
        cells: outlines in all frames.
        tracks: cells over time.
        divisions: mothers with two daughters or more.
        warnings: reasons to doubt the result, a line each.
        seconds: that it took.
    """

    video: str
    frames: int
    cells: int
    tracks: int
    divisions: int
    warnings: list[str]
    seconds: float


def track_many(
    sources: Sequence[Path],
    out: Path,
    options: Mapping[str, Any],
    track: Callable[[Path, Path], tuple[int, int]],
    share: tuple[int, int] = (0, 1),
) -> int:
    """Tracks all videos that are not done, and prints a line for each, then the table.

    Args:
        sources: folders or files of frames.
        out: folder of the results.
        options: all that results depend on beside the frames, such as the digest of the model.
        track: tracks a video into a result folder, and returns how many frames and tracks it has.
        share: ``(2, 8)`` takes the third of every eight videos.

    Returns:
        The exit status: 1 if a video could not be tracked, else 0.

    Raises:
        InputError: if a video is given twice.
    """
    named = names([source for source in sources if source.resolve() != out.resolve()])
    failed = 0
    for name, source in list(named.items())[share[0] :: share[1]]:
        try:
            key = _key(source, options)
            row = _done(out, name, key)
            if row is not None:
                _say(f"{name}: there already, {_told(row)}")
                continue
            _say(f"{name}: {_told(_tracked(name, source, out, key, track))}")
        except InputError as error:
            failed += 1
            _say(f"{name}: error: {error}")
    rows = [row for name in named if (row := _read(out / f"{name}.json")) is not None]
    _write_table(out / TABLE, rows)
    _say(f"\n{_printed(rows)}\n")
    for row in rows:
        for warning in row.warnings:
            _say(f"{row.video}: warning: {warning}")
    _say(f"{len(rows)} of {len(named)} videos are tracked: {out}/NAME_RES, and the table in {out / TABLE}")
    return 1 if failed else 0


def names(sources: Iterable[Path]) -> dict[str, Path]:
    """Names videos by their folders or files, with the folder above in front as far as that is needed.

    Raises:
        InputError: if one is given twice.
    """
    paths = [source.resolve() for source in sources]
    for path, count in Counter(paths).items():
        if count > 1:
            raise InputError(f"{path}: is given twice: give each video once")
    parts = [(*path.parent.parts, _stem(path)) for path in paths]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        found = {"_".join(part[-depth:]).strip("/"): path for part, path in zip(parts, paths, strict=True)}
        if len(found) == len(paths):
            return found
    raise InputError("two videos have the same name: give their folders other names")


def _stem(path: Path) -> str:
    return path.name if path.is_dir() else re.sub(r"(\.ome)?\.[^.]+$", "", path.name)


def _key(source: Path, options: Mapping[str, Any]) -> str:
    """Digest of the files and of how they are tracked.

    Raises:
        InputError: if there are none.
    """
    if not source.exists():
        raise InputError(f"{source}: there is no such folder or file: check the path")
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    content = json.dumps([stamp(files), options], sort_keys=True, default=str)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _tracked(name: str, source: Path, out: Path, key: str, track: Callable[[Path, Path], tuple[int, int]]) -> Row:
    began, doubts = time.monotonic(), list[str]()
    result = out / f"{name}_RES"
    with _gathering(doubts):
        frames, _ = track(source, result)
    lineage = read_tracks(result / "res_track.txt").values()
    daughters = Counter(row.parent for row in lineage if row.parent)
    row = Row(
        name,
        frames,
        sum(row.end - row.begin + 1 for row in lineage),
        len(lineage),
        sum(count > 1 for count in daughters.values()),
        doubts,
        round(time.monotonic() - began, 1),
    )
    with writing(out / f"{name}.json") as temporary:
        temporary.write_text(json.dumps({**row._asdict(), "key": key}, indent=1))
    return row


def _done(out: Path, name: str, key: str) -> Row | None:
    """The row of a video whose result is there, and of the same frames, model and options."""
    record = out / f"{name}.json"
    there = (out / f"{name}_RES" / "res_track.txt").is_file()
    return _read(record) if there and _record(record).get("key") == key else None


def _read(record: Path) -> Row | None:
    known = _record(record)
    try:
        return Row(**{name: known[name] for name in Row._fields})
    except KeyError:
        return None


def _record(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


@contextmanager
def _gathering(doubts: list[str]) -> Iterator[None]:
    """Keeps what is doubted of a result, which is told with its video."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def keep(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, Doubt):
                doubts.append(str(message))
            else:
                others(message, category, *where, **more)

        warnings.showwarning = keep
        yield


def _told(row: Row) -> str:
    doubts = f", {len(row.warnings)} warning{'s' * (len(row.warnings) > 1)}" if row.warnings else ""
    found = f"{row.frames} frames, {row.cells} cells, {row.tracks} tracks, {row.divisions} divisions"
    return f"{found}, {row.seconds:.0f} s{doubts}"


def _write_table(path: Path, rows: Iterable[Row]) -> None:
    with writing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(_COLUMNS)
        table.writerows([row.video, *row[1:5], " | ".join(row.warnings), row.seconds] for row in rows)


def _printed(rows: list[Row]) -> str:
    """The table for people; cells, tracks and divisions summed up."""
    found = {row.video: [*map(int, row[1:5]), len(row.warnings)] for row in rows}
    total = [sum(column) for column in zip(*found.values(), strict=True)] or [0] * 5
    width = max(map(len, ("video", *found)))
    lines: dict[str, Sequence[object]] = {"video": _COLUMNS[1:6], **found, "all": total}
    return "\n".join(f"{name:<{width}}" + "".join(f"{value:>11}" for value in line) for name, line in lines.items())


def _say(line: str) -> None:
    tqdm.write(line)
    sys.stdout.flush()
