"""Which files of a folder are the frames of one video, and in which order: their names tell."""

import itertools
import math
import re
import warnings
from collections import defaultdict
from fractions import Fraction
from pathlib import Path

from lightning_cells.data.image_files import is_frame
from lightning_cells.errors import Doubt, InputError

_NUMBER = r"(?<![a-z0-9])-?\d+(?:\.\d+)?|\d+(?:\.\d+)?"
"""A number as people write it in names; the sign only where it cannot be a hyphen."""
_SPARSE = 100
"""Numbers so far apart on average are times, which need not be in even steps."""


def frames_in_order(folder: Path, pattern: str | None = None) -> list[Path]:
    """Finds the frames of a folder, in the order of the number that tells them apart.

    Without a pattern all TIFFs are taken for frames. Then their names must differ in one whole number alone, without
    gaps: anything else may be masks, projections or channels beside the frames.

    Args:
        folder: folder to look in.
        pattern: names of the frames, with ``{t}`` for their number or time, which may have a sign and decimals, and
            ``*`` for anything, such as ``img_{t}_c0.tif``.

    Raises:
        InputError: if there is no frame, or names do not tell which files are frames, or in which order.
    """
    files = sorted(filter(is_frame, folder.iterdir()))
    if not files:
        raise InputError(f"{folder}: holds no TIFF: give the folder of the frames, saved as .tif files")
    numbers = _of_pattern(folder, files, pattern) if pattern is not None else _of_names(folder, files)
    ordered = sorted(files, key=lambda path: numbers.get(path, Fraction(0)))
    ordered = [path for path in ordered if path in numbers]
    for before, after in itertools.pairwise(ordered):
        if numbers[before] == numbers[after]:
            raise InputError(
                f"{folder}: {before.name} and {after.name} have the same number: remove one, or choose the frames by "
                f"--pattern {pattern or _suggested(files)!r}"
            )
    gap = _gap(ordered, numbers)
    if gap and pattern is None:
        raise InputError(
            f"{folder}: {gap}: add it, renumber the frames, or take them as they are by --pattern {_suggested(files)!r}"
        )
    if gap:
        warnings.warn(f"{folder}: {gap}: frames are taken to follow one another", Doubt, stacklevel=2)
    return ordered


def _of_pattern(folder: Path, files: list[Path], pattern: str) -> dict[Path, Fraction]:
    """The numbers of the files that match a pattern."""
    if pattern.count("{t}") != 1:
        raise InputError(f"--pattern {pattern!r}: has not one {{t}}: write it for the number, as in 'img_{{t}}_c0.tif'")
    parts = [".*?".join(map(re.escape, part.split("*"))) for part in pattern.split("{t}")]
    expression = re.compile(r"([+-]?\d+(?:\.\d+)?)".join(parts), re.IGNORECASE)
    found = {path: expression.fullmatch(path.name) or expression.fullmatch(path.stem) for path in files}
    numbers = {path: Fraction(match[1]) for path, match in found.items() if match}
    if not numbers:
        raise InputError(f"--pattern {pattern!r}: no file of {folder} has such a name, as {files[0].name} has not")
    return numbers


def _of_names(folder: Path, files: list[Path]) -> dict[Path, Fraction]:
    """The one number in which all names differ."""
    if len(files) == 1:
        return {files[0]: Fraction(0)}
    texts = {path: re.sub(r"\d+", "#", path.stem.lower()) for path in files}
    rows = {path: [int(n) for n in re.findall(r"\d+", path.stem)] for path in files}
    others = [path for path in files if texts[path] != texts[files[0]]]
    columns = [len(set(column)) for column in zip(*rows.values(), strict=False)]
    differing = [place for place, n in enumerate(columns) if n > 1]
    if others or len(differing) > 1 or not columns:
        other = others[0] if others else files[-1]
        remedy = _suggested(files) or "NAME{t}.tif"
        raise InputError(
            f"{folder}: {files[0].name} and {other.name} differ in more than one number, and may not both be frames: "
            f"choose the frames by --pattern, such as {remedy!r}"
        )
    place = differing[0] if differing else 0
    _refuse_signs(folder, files, place)
    return {path: Fraction(row[place]) for path, row in rows.items()}


def _refuse_signs(folder: Path, files: list[Path], place: int) -> None:
    """Raises InputError where the digits that differ may be decimals, or have a sign."""
    spans = {path: list(re.finditer(r"\d+", path.stem))[place] for path in files}
    before = {path: path.stem[: span.start()] for path, span in spans.items()}
    first = before[files[0]]
    decimal = re.search(r"\d\.$", first) and len({len(span[0]) for span in spans.values()}) > 1
    if not decimal and not re.search(r"(^|[^a-z0-9])-$", first, re.IGNORECASE):
        return
    rest = files[0].name[spans[files[0]].end() :]
    whole = re.sub(r"(\d+\.|-)$", "", first)
    raise InputError(
        f"{folder}: {files[0].name} may have {'decimals' if decimal else 'a sign'}: say so by --pattern "
        f"'{whole}{{t}}{rest}', or '{first}{{t}}{rest}' for whole numbers"
    )


def _gap(ordered: list[Path], numbers: dict[Path, Fraction]) -> str | None:
    """Says which number is missing that the others let one expect; None where they are in even steps, or are times."""
    steps = [numbers[after] - numbers[before] for before, after in itertools.pairwise(ordered)]
    if len(set(steps)) < 2:
        return None
    least = min(steps)
    whole = all(step.denominator == 1 for step in steps)
    unit = Fraction(math.gcd(*(step.numerator for step in steps))) if whole else least
    counted = unit == least or sum(steps) < _SPARSE * unit * len(steps)
    if not counted or any(step % unit for step in steps):
        return None
    place = next(index for index, step in enumerate(steps) if step > unit)
    missing = numbers[ordered[place]] + unit
    shown = missing if missing.denominator == 1 else f"{float(missing):g}"
    return f"frame {shown} is missing after {ordered[place].name}"


def _suggested(files: list[Path]) -> str | None:
    """A pattern for those that are most, with ``{t}`` in place of the number that differs most."""
    alike: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        alike[re.sub(_NUMBER, "#", path.name.lower())].append(path)
    most = alike[max(alike, key=lambda text: (len(alike[text]), -len(text)))]
    columns = list(zip(*(re.findall(_NUMBER, path.name.lower()) for path in most), strict=True))
    if not columns:
        return None
    place = max(range(len(columns)), key=lambda index: len(set(columns[index])))
    span = list(re.finditer(_NUMBER, most[0].name, re.IGNORECASE))[place]
    return most[0].name[: span.start()] + "{t}" + most[0].name[span.end() :]
