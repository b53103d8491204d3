"""Evaluates a result folder of the Cell Tracking Challenge's layout against a truth folder."""

import itertools
import warnings
from collections.abc import Set
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lightning_cells.data.ctc import frame_paths, plane_paths, track_table, truth_paths
from lightning_cells.data.image_files import read_mask
from lightning_cells.data.tracks import Lineage, clip_lineage, read_tracks
from lightning_cells.errors import Doubt, InputError
from lightning_cells.metrics.counts import CTCCounts
from lightning_cells.metrics.matcher import CTCMatcher
from lightning_cells.metrics.matching import size_of
from lightning_cells.metrics.truth_doubts import TruthDoubts
from lightning_cells.progress import Progress

T = TypeVar("T")
_SAME_SIZE = "write masks of the original frame size"
_ALL_PLANES = "write all planes of each frame"


def evaluate(
    result: Path,
    truth: Path,
    frames: tuple[int, int] | None = None,
    progress: bool = False,
    each_plane: bool = False,
) -> CTCCounts:
    """Compares a result with the truth, one frame in memory at a time, and counts what can be counted.

    - SEG needs ``man_segNNN.tif``, of any of the frames; of volumes single planes will do, ``man_seg_NNN_ZZZ.tif``, in
      each of which a cell counts by itself.
    - DET needs ``man_trackNNN.tif`` of exactly the frames of the result.
    - TRA and LNK need ``man_track.txt`` and ``res_track.txt`` besides. If the result has a ``res_track.txt``,
      it must agree with the masks even where only SEG is measured.

    Args:
        result: folder of ``maskNNN.tif`` and ``res_track.txt``, such as ``01_RES``.
        truth: folder such as ``01_GT`` or ``01_ST``, with subfolders ``SEG`` and ``TRA`` or one of them, or
            with those files in the folder itself.
        frames: (start, stop) limits both to frames start to stop - 1. The result may hold just these or more;
            tracks are cut at the limits, and parents that end before start are forgotten.
        progress: show a progress bar.
        each_plane: of volumes SEG alone, each plane of result and truth by itself, for results whose labels mean
            nothing from plane to plane.

    Raises:
        InputError: if a folder or file is missing or unreadable, frames or sizes of result and truth differ,
            or the result is not valid (see `CTCMatcher.compute`).
    """
    result, truth = Path(result), Path(truth)
    if frames is not None and frames[0] >= frames[1]:
        raise InputError(f"frames {frames[0]} to {frames[1]}: the range is empty; give start < stop")
    if not truth.is_dir():
        raise InputError(f"{truth}: there is no such folder: give the folder that holds SEG and TRA")
    seg_folder, tra_folder = (truth / name if (truth / name).is_dir() else truth for name in ("SEG", "TRA"))
    masks = _within(frame_paths(result, "mask"), frames)
    seg = _within(truth_paths(seg_folder, "man_seg"), frames)
    planes = _within(plane_paths(seg_folder, "man_seg"), frames)
    tra = {} if each_plane else _within(truth_paths(tra_folder, "man_track"), frames)
    if not seg and not planes and not tra:
        where = "" if frames is None else f" in frames {frames[0]} to {frames[1] - 1}"
        raise InputError(f"{truth}: holds no man_segNNN.tif and no man_trackNNN.tif{where}; give the truth folder")
    result_table, truth_table = track_table(result, "res_track.txt"), track_table(tra_folder)
    twice = sorted(seg.keys() & planes.keys())
    if twice:
        raise InputError(f"{seg[twice[0]]}: there are single planes of this frame, too: keep either it or them")
    _check_numbers(masks, seg.keys() | planes.keys(), seg_folder, result, exact=False)
    if tra:
        _check_numbers(masks, tra.keys(), tra_folder, result, exact=True)

    result_lineage = None if each_plane else _tracks(result_table, frames)
    truth_lineage = _tracks(truth_table, frames) if tra else None
    matcher = CTCMatcher(result=str(result), truth=str(truth_table))
    seg_doubts, tra_doubts = TruthDoubts(seg_folder), TruthDoubts(tra_folder)
    # Without track table and markers, frames without truth cells have no say.
    numbers = sorted(masks if tra or result_lineage is not None else seg.keys() | planes.keys())
    for number in Progress("evaluating", shown=progress, over=numbers):
        mask = read_mask(masks[number])
        truth_seg = _read_truth(seg.get(number), masks[number], mask)
        truth_tra = _read_truth(tra.get(number), masks[number], mask)
        truth_planes = _read_planes(planes.get(number, {}), masks[number], mask)
        in_planes = truth_planes
        if each_plane and truth_seg is not None:
            if mask.ndim == 2:
                raise InputError(f"{masks[number]}: is {_called(mask)}: --planes is for volumes: leave it out")
            in_planes = dict(enumerate(truth_seg))
        matcher.update(number, mask, in_planes or truth_seg, truth_tra)
        for doubts, seen in ((seg_doubts, [truth_seg, *truth_planes.values()]), (tra_doubts, [truth_tra])):
            for one in seen:
                if one is not None:
                    doubts.see(one)
    for doubt in itertools.chain(seg_doubts.said(), tra_doubts.said()):
        warnings.warn(doubt, Doubt, stacklevel=2)
    return matcher.compute(result_lineage, truth_lineage)


def _within(paths: dict[int, T], frames: tuple[int, int] | None) -> dict[int, T]:
    if frames is None:
        return paths
    return {number: path for number, path in paths.items() if frames[0] <= number < frames[1]}


def _tracks(path: Path, frames: tuple[int, int] | None) -> Lineage | None:
    if not path.is_file():
        return None
    lineage = read_tracks(path)
    return lineage if frames is None else clip_lineage(lineage, *frames)


def _check_numbers(masks: dict[int, Path], truth: Set[int], folder: Path, result: Path, exact: bool) -> None:
    """Raises InputError unless the result has the truth's frames, and no others if exact."""
    missing = sorted(truth - masks.keys())
    if missing:
        raise InputError(
            f"{result}: has {len(masks)} masks but none of frame {missing[0]}, which {folder} has; "
            "write one mask per frame, numbered as the frames are"
        )
    surplus = sorted(masks.keys() - truth)
    if exact and surplus:
        raise InputError(
            f"{masks[surplus[0]]}: {folder} has {len(truth)} frames and no frame {surplus[0]}; "
            "number the masks as the frames are, or choose a range of frames"
        )


def _read_truth(path: Path | None, mask_path: Path, mask: NDArray[np.integer]) -> NDArray[np.integer] | None:
    """Reads a truth mask, which must have the size of the result's mask."""
    if path is None:
        return None
    truth = read_mask(path)
    if truth.shape != mask.shape:
        remedy = _ALL_PLANES if mask.ndim < truth.ndim else _SAME_SIZE
        if mask.ndim > truth.ndim:
            remedy = "give a truth of volumes, or of single planes as man_seg_NNN_ZZZ.tif"
        raise InputError(f"{mask_path}: is {_called(mask)} but {path} is {_called(truth)}; {remedy}")
    return truth


def _read_planes(paths: dict[int, Path], mask_path: Path, mask: NDArray[np.integer]) -> dict[int, NDArray[np.integer]]:
    """Reads the truth of some planes of the result's mask, which must be a volume that has them."""
    truth = {}
    for plane, path in paths.items():
        truth[plane] = read_mask(path)
        if truth[plane].ndim != 2:
            raise InputError(f"{path}: is {_called(truth[plane])}: give one plane, or call it man_segNNN.tif")
        if mask.ndim != 3:
            raise InputError(f"{mask_path}: is {_called(mask)} but {path} is a plane of a volume; {_ALL_PLANES}")
        if truth[plane].shape != mask.shape[1:]:
            raise InputError(f"{mask_path}: is {_called(mask)} but {path} is {_called(truth[plane])}; {_SAME_SIZE}")
        if plane >= len(mask):
            raise InputError(
                f"{mask_path}: has {len(mask)} planes but {path} is plane {plane}, from 0 on; {_ALL_PLANES}"
            )
    return truth


def _called(mask: NDArray[np.integer]) -> str:
    return f"{size_of(mask.shape)} pixels" if mask.ndim == 2 else f"a volume of {size_of(mask.shape)} voxels"
