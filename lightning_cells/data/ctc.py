"""Layout of a Cell Tracking Challenge data set: where the frames and the truth of each video are.

``ROOT/01/t000.tif`` are frames, ``ROOT/01_GT/SEG/man_seg000.tif`` segmented cells of some frames,
``ROOT/01_GT/TRA/man_track000.tif`` markers with track ids of every frame, and
``ROOT/01_GT/TRA/man_track.txt`` the tracks. ``ROOT/01_ST/SEG`` is the computed "silver" truth.
``ROOT/01_GT/SEM/man_sem000.tif`` are maps of semantic classes (an addition of this package). All may be volumes;
``ROOT/01_GT/SEG/man_seg_000_007.tif`` are the segmented cells of plane 7 of one.
"""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from lightning_cells.data.image_files import is_frame
from lightning_cells.data.tracks import MAX_DIGITS
from lightning_cells.errors import InputError

Truth = Literal["gold", "silver"]
_FOLDERS = ("SEG", "TRA", "SEM")


@dataclass(frozen=True)
class SequenceFiles:
    """Files of one video, by frame number.

    Attributes:
        name: folder of the video, such as "01".
        frames: input frames.
        seg: masks of segmented cells, of any subset of the frames.
        tra: masks of tracking markers, of any subset of the frames.
        tracks: ``man_track.txt``, or None.
        classes: maps of semantic classes, of any subset of the frames.
        digits: digits of the frame numbers in the file names.
        planes: masks of segmented cells of single planes of volumes, by their numbers from 0, in frames without `seg`.
        channel: which of several channels or colours of the frames is meant, from 0; None if there must be just one.
    """

    name: str
    frames: dict[int, Path]
    seg: dict[int, Path]
    tra: dict[int, Path]
    tracks: Path | None
    classes: dict[int, Path]
    digits: int
    planes: dict[int, dict[int, Path]] = field(default_factory=dict)
    channel: int | None = None


def frame_paths(folder: Path, prefix: str = "t") -> dict[int, Path]:
    """Finds the files ``<prefix>NNN.tif`` of a folder; NNN has three or more digits.

    Args:
        folder: folder to look in.
        prefix: "t", "mask", "man_seg", "man_track" or "man_sem".

    Returns:
        Frame number -> file, in the order of the numbers.

    Raises:
        InputError: if the folder is missing or has no such file, a number occurs twice, or, for input frames, a number
            in the middle is missing.
    """
    named = _numbered(folder, re.compile(rf"{prefix}(\d{{3,}})", re.IGNORECASE))
    if not named:
        raise InputError(f"{folder}: has no images: name them {prefix}000.tif, {prefix}001.tif, ...")
    found = {number: path for (number,), path in sorted(named.items())}
    if prefix == "t":
        numbers = list(found)
        for before, after in itertools.pairwise(numbers):
            if after != before + 1:
                raise InputError(f"{folder}: frame {before + 1} is missing: add it or renumber the frames")
    return found


def plane_paths(folder: Path, prefix: str = "man_seg") -> dict[int, dict[int, Path]]:
    """Finds the truth of single planes of volumes, ``<prefix>_TTT_ZZZ.tif``.

    Args:
        folder: folder to look in; it may be missing.
        prefix: as `frame_paths`.

    Returns:
        Frame number -> number of the plane, counted from 0 -> file of a 2-D mask, in the order of the numbers.

    Raises:
        InputError: if a plane occurs twice.
    """
    if not folder.is_dir():
        return {}
    found: dict[int, dict[int, Path]] = {}
    named = _numbered(folder, re.compile(rf"{prefix}_(\d+)_(\d+)", re.IGNORECASE))
    for (number, plane), path in sorted(named.items()):
        found.setdefault(number, {})[plane] = path
    return found


def _numbered(folder: Path, name: re.Pattern[str]) -> dict[tuple[int, ...], Path]:
    """Image files by the numbers in their names."""
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder: check the path")
    found: dict[tuple[int, ...], Path] = {}
    for path in sorted(filter(is_frame, folder.iterdir())):
        if match := name.fullmatch(path.stem):
            if any(len(digits.lstrip("0")) > MAX_DIGITS for digits in match.groups()):
                raise InputError(f"{path}: its number is too large: number frames by at most {MAX_DIGITS} digits")
            numbers = tuple(map(int, match.groups()))
            if numbers in found:
                which = f"frame {numbers[0]}" + "".join(f", plane {plane}," for plane in numbers[1:])
                raise InputError(f"{path}: is {which} as is {found[numbers].name}: remove one of them")
            found[numbers] = path
    return found


def sequence_names(root: Path) -> list[str]:
    """Names of the videos of a data set: folders of two or more digits that hold frames; may be none.

    Raises:
        InputError: if there is no such folder.
    """
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder: check the path")
    frame = re.compile(r"t\d{3,}", re.IGNORECASE)
    return sorted(
        folder.name
        for folder in root.iterdir()
        if re.fullmatch(r"\d{2,}", folder.name)
        and folder.is_dir()
        and any(is_frame(path) and frame.fullmatch(path.stem) for path in folder.iterdir())
    )


def find_sequence(root: Path, name: str, truth: Truth = "gold") -> SequenceFiles:
    """Finds the files of one video; all truth is optional.

    Args:
        root: folder of the data set.
        name: video, such as "01".
        truth: "gold" takes the segmented cells from ``NN_GT/SEG``, "silver" from ``NN_ST/SEG``; markers are
            always those of ``NN_GT/TRA``.

    Raises:
        InputError: as `frame_paths`; if the silver truth is not there, a mask has no frame, or markers come
            without ``man_track.txt`` or the reverse.
    """
    frames = frame_paths(root / name)
    gold = root / f"{name}_GT"
    segmented = (gold if truth == "gold" else root / f"{name}_ST") / "SEG"
    if truth == "silver" and not segmented.is_dir():
        raise InputError(f"{segmented}: there is no such folder: use the gold truth or add the silver one")
    seg, tra, classes = (
        truth_paths(folder, prefix)
        for folder, prefix in ((segmented, "man_seg"), (gold / "TRA", "man_track"), (gold / "SEM", "man_sem"))
    )
    planes = plane_paths(segmented)
    for number in seg.keys() & planes.keys():
        raise InputError(f"{seg[number]}: there are single planes of this frame, too: keep either it or them")
    first_planes = {number: next(iter(paths.values())) for number, paths in planes.items()}
    for number, path in itertools.chain(seg.items(), tra.items(), classes.items(), first_planes.items()):
        if number not in frames:
            raise InputError(f"{path}: the video has no frame {number}: remove the mask or add the frame")
    tracks = track_table(gold / "TRA")
    if tra and not tracks.is_file():
        raise InputError(f"{tracks}: there is no such file: add it with one row 'L B E P' per track")
    if tracks.is_file() and not tra:
        raise InputError(f"{gold / 'TRA'}: has man_track.txt but no man_track000.tif, ...: add the masks")
    digits = len(re.findall(r"\d+", next(iter(frames.values())).stem)[-1])
    return SequenceFiles(name, frames, seg, tra, tracks if tra else None, classes, digits, planes)


def truth_paths(folder: Path, prefix: str) -> dict[int, Path]:
    """`frame_paths` of a folder of truth, which may be missing or hold none; capital letters do not matter.

    Raises:
        InputError: as `frame_paths`, and if it is called as truth is and holds images that are not.
    """
    names = [path.name.lower() for path in folder.iterdir() if is_frame(path)] if folder.is_dir() else []
    others = folder.name in _FOLDERS and names and not any(name.startswith("man_") for name in names)
    planes = re.compile(rf"{prefix}_\d+_\d+\.\w+")  # see `plane_paths`
    frames = [name for name in names if name.startswith(prefix) and not planes.fullmatch(name)]
    return frame_paths(folder, prefix) if others or frames else {}


def track_table(folder: Path, name: str = "man_track.txt") -> Path:
    """The track table of a folder, whether its name is in capital letters or not; it may be missing."""
    there = folder.iterdir() if folder.is_dir() else ()
    return next((path for path in sorted(there) if path.name.lower() == name), folder / name)


def merge_identities(tra: np.ndarray | None, seg: np.ndarray | None, fresh: int = 0) -> np.ndarray:
    """Merges the tracking markers and the segmented cells of one frame (Payer et al. 2019).

    A segmented cell takes the id of the marker with which it shares most pixels. If several cells share most
    with the same marker, the one sharing most of all takes it. The others, and cells without any marker, get
    fresh ids, which belong to no track. Of two markers within one cell the larger overlap names the cell.

    The frame is complete if each marker names a cell or has most of its pixels inside cells; then the rest is
    background. Otherwise only some cells were segmented, and the rest is unknown. Marker pixels outside a
    cell that was named by this marker contradict the segmentation and are unknown, too. Without markers a
    segmentation counts as complete and keeps its ids.

    Args:
        tra: (H, W) or (Z, H, W) labels of the markers, or None.
        seg: labels of the segmented cells of the same shape, or None.
        fresh: first of the fresh ids; 0 means above all labels of both masks.

    Returns:
        int32 of that shape: > 0 id of a segmented cell, 0 background, -1 unknown, <= -2 marker of the cell
        ``-1 - value``.

    Raises:
        ValueError: if both masks are None or differ in size.
    """
    if tra is None and seg is None:
        raise ValueError("neither markers nor segmented cells")
    if tra is None:
        assert seg is not None
        return seg.astype(np.int32)
    markers = np.where(tra > 0, -1 - tra.astype(np.int32), np.int32(-1))
    if seg is None:
        return markers
    if tra.shape != seg.shape:
        raise ValueError(f"markers of shape {tra.shape} and segmented cells of shape {seg.shape}")
    top_tra, top_seg = int(tra.max()), int(seg.max())
    fresh = fresh or max(top_tra, top_seg) + 1
    inside = (tra > 0) & (seg > 0)
    pairs, shared = np.unique(seg[inside].astype(np.int64) << 32 | tra[inside], return_counts=True)
    cells, names = (pairs >> 32).astype(np.int32), (pairs & 0xFFFFFFFF).astype(np.int32)

    # ids of the cells: by falling overlap, each cell its best marker, if that is still free
    table = np.zeros(top_seg + 1, np.int32)
    decided, named = set(), set()
    for k in np.lexsort((names, cells, -shared)):
        cell, name = int(cells[k]), int(names[k])
        if cell not in decided:
            decided.add(cell)
            if name not in named:
                named.add(name)
                table[cell] = name
    nameless = (np.bincount(seg.ravel()) > 0) & (table == 0)
    nameless[0] = False
    table[nameless] = np.arange(fresh, fresh + nameless.sum())

    area = np.bincount(tra.ravel(), minlength=top_tra + 1)
    area[0] = 0
    covered = np.bincount(tra[inside].ravel(), minlength=top_tra + 1)
    open_markers = (area > 0) & (2 * covered <= area)
    open_markers[list(named)] = False
    is_named = np.zeros(top_tra + 1, bool)
    is_named[list(named)] = True
    rest = np.where(is_named[tra], np.int32(-1), markers)
    if not open_markers.any():
        rest[tra == 0] = 0
    return np.where(seg > 0, table[seg], rest)


def merge_planes(tra: np.ndarray, planes: Mapping[int, np.ndarray], fresh: int = 0) -> np.ndarray:
    """`merge_identities` of a volume of which single planes are segmented; of the others markers alone are known.

    A cell without marker in its plane has an id of its own there.

    Args:
        tra: (Z, H, W) labels of the markers, all 0 without any.
        planes: (H, W) labels of the segmented cells by the numbers of the planes.
        fresh: as `merge_identities`.

    Returns:
        (Z, H, W) int32, as `merge_identities`.
    """
    merged = merge_identities(tra, None)
    fresh = fresh or max(int(tra.max()), *(int(seg.max()) for seg in planes.values())) + 1
    for plane, seg in planes.items():
        merged[plane] = merge_identities(tra[plane], seg, fresh)
        fresh = max(fresh, int(merged[plane].max()) + 1)
    return merged
