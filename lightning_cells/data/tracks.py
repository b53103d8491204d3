"""Track files of the Cell Tracking Challenge: rows ``L B E P``."""

from pathlib import Path
from typing import NamedTuple

from lightning_cells.data.atomic import writing
from lightning_cells.data.image_files import MAX_LABEL
from lightning_cells.data.tiff import regular
from lightning_cells.errors import InputError, one_line

MAX_DIGITS = 9
"""Most digits of a frame number: then those of cells in frames fit into 64 bits."""


class Track(NamedTuple):
    """One row of ``man_track.txt`` or ``res_track.txt``.

    Attributes:
        label: id of the cell in the masks, 1..65535.
        begin: number of its first frame.
        end: number of its last frame.
        parent: id of its mother, or 0.
    """

    label: int
    begin: int
    end: int
    parent: int


Lineage = dict[int, Track]
"""The tracks of a video by their label."""


def read_tracks(path: Path) -> Lineage:
    """Reads a track file; blank lines, tabs and any line end are tolerated, no rows are an empty lineage.

    Raises:
        InputError: naming file and line, if a row is not four whole numbers, a label is outside 1..65535 or
            given twice, a track ends before it begins, or a parent is unknown or does not end before its
            child begins (which a cycle cannot).
    """
    try:
        text = regular(Path(path)).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file: add it with one row 'L B E P' per track") from None
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path}: is not a readable text file: write one row 'L B E P' per track") from None
    lineage: Lineage = {}
    lines: dict[int, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        place = f"{path}, line {number}"
        if len(fields) != 4 or not all(field.isascii() and field.isdigit() for field in fields):
            raise InputError(f"{place}: '{one_line(line)[:60]}' is not a row of four whole numbers 'L B E P'")
        if any(len(field.lstrip("0")) > MAX_DIGITS for field in fields):
            raise InputError(f"{place}: holds a number of more than {MAX_DIGITS} digits: correct the row")
        track = Track(*(int(field.lstrip("0") or 0) for field in fields))
        if not 1 <= track.label <= MAX_LABEL:
            raise InputError(f"{place}: label {track.label} is not in 1..{MAX_LABEL}: renumber the tracks")
        if track.label in lineage:
            first = lines[track.label]
            raise InputError(f"{place}: label {track.label} was given in line {first} already: keep one row")
        if track.begin > track.end:
            raise InputError(
                f"{place}: track {track.label} begins in frame {track.begin}, after its end in {track.end}"
            )
        lineage[track.label] = track
        lines[track.label] = number
    for track in lineage.values():
        place = f"{path}, line {lines[track.label]}"
        if track.parent and track.parent not in lineage:
            raise InputError(f"{place}: parent {track.parent} has no row: add it or write 0")
        if track.parent and lineage[track.parent].end >= track.begin:
            raise InputError(
                f"{place}: parent {track.parent} ends in frame {lineage[track.parent].end}, not before track "
                f"{track.label} begins in frame {track.begin}: correct the rows"
            )
    return lineage


def write_tracks(path: Path, lineage: Lineage) -> None:
    """Writes a track file sorted by label, whole or not at all."""
    rows = (" ".join(map(str, lineage[label])) + "\n" for label in sorted(lineage))
    with writing(Path(path)) as temporary:
        temporary.write_text("".join(rows), encoding="ascii", newline="\n")


def clip_lineage(lineage: Lineage, start: int, stop: int) -> Lineage:
    """Returns the tracks within frames ``start <= number < stop``.

    Begin and end are clipped to that range; a parent that lies wholly outside becomes 0.
    """
    inside = {track.label for track in lineage.values() if track.end >= start and track.begin < stop}
    return {
        track.label: Track(
            track.label,
            max(track.begin, start),
            min(track.end, stop - 1),
            track.parent if track.parent in inside else 0,
        )
        for track in lineage.values()
        if track.label in inside
    }
