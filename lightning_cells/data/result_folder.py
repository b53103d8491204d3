"""Writes the result of tracking in the layout of the Cell Tracking Challenge."""

import os
import re
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from lightning_cells.data.atomic import beside
from lightning_cells.data.image_files import MAX_LABEL, write_image
from lightning_cells.data.tracks import Lineage, write_tracks
from lightning_cells.errors import InputError

_RESULT_FILE = re.compile(r"mask\d+\.tif|res_track\.txt")


class ResultWriter:
    """Writes ``maskNNN.tif`` and ``res_track.txt`` so that the folder is whole or not there.

    Use as a context manager: masks go to a hidden folder beside the target, `finish` adds the tracks and
    renames it. Without `finish`, by an error or not, nothing is left, and what was there before stays.

    Args:
        folder: result folder, by custom ``01_RES``; missing parents are made.
        digits: digits of the frame numbers, those of the input frames.
        temporary: the hidden folder, beside the target or on the same disk; None takes an unused name.

    Raises:
        InputError: if the folder holds anything but a result; an earlier result is replaced.
    """

    def __init__(self, folder: Path, digits: int = 3, temporary: Path | None = None) -> None:
        self.folder = Path(folder).resolve()
        self.digits = digits
        if self.folder.exists():
            if not self.folder.is_dir():
                raise InputError(f"{folder}: is a file: give another result folder")
            # never delete what this class did not write
            other = [name for name in sorted(os.listdir(self.folder)) if not _RESULT_FILE.fullmatch(name)]
            if other:
                raise InputError(f"{folder}: holds '{other[0]}', not only a result: give another folder")
        self._temporary = temporary or beside(self.folder)
        self._present: dict[int, np.ndarray] = {}
        self._size: tuple[int, ...] | None = None

    def __enter__(self) -> Self:
        self._temporary.mkdir(parents=True)
        return self

    def write(self, frame: int, labels: np.ndarray) -> None:
        """Writes the mask of one frame.

        Args:
            frame: its number, as in the name of the input frame.
            labels: (H, W) or (Z, H, W) integers, 0 background, else track ids up to 65535.

        Raises:
            ValueError: if the mask is no image or volume, of another size than the others, out of range, or given
                twice.
        """
        if labels.ndim not in (2, 3) or (self._size is not None and labels.shape != self._size):
            expected = self._size or "(H, W) or (Z, H, W)"
            raise ValueError(f"frame {frame}: mask of shape {labels.shape}, expected {expected}")
        if frame in self._present:
            raise ValueError(f"frame {frame} was written already")
        if labels.dtype.kind not in "ui" or labels.min() < 0 or labels.max() > MAX_LABEL:
            raise ValueError(f"frame {frame}: labels are not whole numbers in 0..{MAX_LABEL}")
        self._size = labels.shape
        mask = labels.astype(np.uint16)
        write_image(self._temporary / f"mask{frame:0{self.digits}d}.tif", mask)
        self._present[frame] = np.flatnonzero(np.bincount(mask.ravel()))

    def finish(self, lineage: Lineage) -> None:
        """Writes ``res_track.txt`` and puts the folder in place.

        Raises:
            ValueError: if masks and tracks differ: each label must be in every frame of its track and in no
                other.
        """
        seen = {(frame, int(label)) for frame, labels in self._present.items() for label in labels if label}
        told = {(frame, t.label) for t in lineage.values() for frame in range(t.begin, t.end + 1)}
        if seen != told:
            frame, label = min(seen ^ told)
            where = "only in its mask" if (frame, label) in seen else "only in the tracks"
            raise ValueError(f"label {label} of frame {frame} is {where}")
        write_tracks(self._temporary / "res_track.txt", lineage)
        if self.folder.exists():
            old = beside(self.folder)
            os.rename(self.folder, old)
            os.rename(self._temporary, self.folder)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(self._temporary, self.folder)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._temporary.exists():
            return
        shutil.rmtree(self._temporary, ignore_errors=True)
        if kind is None:
            raise RuntimeError("ResultWriter.finish was not called: no result was written")
