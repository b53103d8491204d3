"""What a test found, gathered as the results come: cells and their errors, lineages, and frames worth a look."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lightning_cells.callbacks.images import Rank, Shortlist, ShownFrame, fixed_ranks
from lightning_cells.data.sequence import Sequence
from lightning_cells.data.tracks import Lineage, clip_lineage
from lightning_cells.metrics.cells import CellError, frame_errors
from lightning_cells.metrics.divisions import compare_divisions
from lightning_cells.metrics.matching import Regions, match
from lightning_cells.visualization.drawing import save_png
from lightning_cells.visualization.lineage import Partners, lineage_picture
from lightning_cells.visualization.page import file_name, webp
from lightning_cells.visualization.video import Preview

CELLS = "test/cells.json"
"""The table of cells, an artifact of a test; its columns are those of `CellRow`."""
FRAMES = "test/frames"
"""Folder of the artifacts ``<video>/<number>.png``: a frame's panels in a row."""
PICTURED = 4
"""Videos that get a looping picture and lineage trees, at most."""
FIXED, WORST = 12, 6
"""Frames that are the same in each test of these videos, and frames with most errors, at most."""
MOST_CELLS = 50_000
"""Rows of the table of cells, at most."""
_LONGEST = 320  # pixels of a looping picture
_MOST_BYTES = 4_000_000  # of it


class CellRow(NamedTuple):
    """A true cell, or a cell of the result that covers none.

    Attributes:
        video: `findings.VideoFindings.key`.
        frame: number of the frame.
        truth_label: the true cell, or 0.
        label: the cell of the result that covers more than half of it, or 0; without a true cell, the cell itself.
        area: pixels of the true cell; without one, of the cell of the result.
        iou: Jaccard index of the two, 0 if one is missing.
        kind: what became of it, see `metrics.cells.frame_errors`.
    """

    video: str
    frame: int
    truth_label: int
    label: int
    area: int
    iou: float
    kind: str


@dataclass
class VideoFindings:
    """What is told of one video.

    Attributes:
        key: name of the video, made safe for a file, and unlike that of any other.
        frames: how many were tested.
        true_cells: in the frames with segmentation truth.
        iou: sum of their Jaccard indices.
        kinds: how many true cells, and spurious ones, are of which kind.
        tracks: of the result.
        divisions: in the frames with markers: found, missed and false; None without such frames.
        animation: the looping picture, if there is one, and
        pictures: its frames, WebP.
        sheet: some of its frames, uint8 (H, W, 3), if there is one.
        lineage: picture of the lineages, uint8 (H, W, 3), if there is one.
    """

    key: str
    frames: int = 0
    true_cells: int = 0
    iou: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    tracks: int = 0
    divisions: tuple[int, int, int] | None = None
    animation: Path | None = None
    pictures: list[bytes] = field(default_factory=list)
    sheet: np.ndarray | None = None
    lineage: np.ndarray | None = None


class Findings:
    """Gathers what a test finds. Memory holds the chosen frames and one video's links, but not the videos.

    Args:
        folder: where pictures of whole videos are written, under ``tracks`` and ``lineage``.

    Attributes:
        videos: those that are complete, in the order in which they came.
        cells: the table.
        cells_left_out: rows that found no place in the table.
        fixed: frames chosen by their place in the video alone.
        worst: frames with most errors, the worst first.
    """

    def __init__(self, folder: Path) -> None:
        self.videos: list[VideoFindings] = []
        self.cells: list[CellRow] = []
        self.cells_left_out = 0
        self.fixed = Shortlist[tuple[str, ShownFrame]](FIXED)
        self.worst = Shortlist[tuple[str, ShownFrame]](WORST)
        self._folder = folder
        self._open: _Video | None = None

    def add(self, sequence: Sequence, start: int, results: list[np.ndarray], lineage: Lineage) -> None:
        """Takes the next frames of a video; the first frame of another one closes that under way.

        Args:
            sequence: the video.
            start: position of the first of the frames in it.
            results: (H, W) track ids of each.
            lineage: of the result so far.
        """
        if results and start == 0:
            self.close()
            pictured = len(self.videos) < PICTURED and len(sequence) > 1
            self._open = _Video(sequence, self._key(sequence.name), pictured)
        for position, labels in enumerate(results, start):
            assert self._open is not None
            self._choose(self._open, position, labels, self._open.add(position, labels, lineage))

    def close(self) -> None:
        """Ends the video under way."""
        if self._open is not None:
            self.videos.append(self._open.finish(self._folder))
        self._open = None

    def _choose(self, video: "_Video", position: int, labels: np.ndarray, errors: list[CellError] | None) -> None:
        key, candidate = video.found.key, ShownFrame(video.sequence, position, labels)
        wanted = [(self.fixed, video.ranks[position])]
        if errors is not None:
            rows = [_cell_row(key, candidate.number, error) for error in errors if _is_told(error)]
            room = len(self.cells) + len(rows) <= MOST_CELLS and not self.cells_left_out
            self.cells += rows if room else []
            self.cells_left_out += 0 if room else len(rows)
            wrong = sum(row.kind not in ("matched", "unknown") for row in rows)
            overlap = sum(row.iou for row in rows) / max(1, sum(row.truth_label > 0 for row in rows))
            wanted.append((self.worst, (-wrong, overlap, len(self.videos), position)))
        wanted = [(shortlist, rank) for shortlist, rank in wanted if shortlist.wants(rank)]
        if wanted:
            candidate.labels = labels.copy()  # a method may use its arrays again
        for shortlist, rank in wanted:
            shortlist.add(rank, (key, candidate))

    def _key(self, name: str) -> str:
        taken = {video.key for video in self.videos}
        key, number = file_name(name), 1
        while key in taken:
            number += 1
            key = f"{file_name(name)}_{number}"
        return key


class _Video:
    """The video under way."""

    def __init__(self, sequence: Sequence, key: str, pictured: bool) -> None:
        self.sequence = sequence
        self.found = VideoFindings(key)
        self.ranks: list[Rank] = fixed_ranks(sequence)
        self._partners: Partners = {}
        self._lineage: Lineage = {}
        self._preview = Preview(len(sequence), _LONGEST) if pictured else None

    def add(self, position: int, labels: np.ndarray, lineage: Lineage) -> list[CellError] | None:
        """Takes a frame, and returns what became of its cells, if that is known."""
        self._lineage = lineage
        self.found.frames += 1
        number = self.sequence.numbers[position]
        if self._preview is not None and position in self._preview.chosen:
            self._preview.add(self.sequence.frames[position], labels, number, lineage)
        seg, tra = self.sequence.truth(position)
        if tra is not None:
            matched = match(Regions(tra), Regions(labels))
            self._partners[number] = dict(zip(matched.truth.tolist(), matched.partner.tolist(), strict=True))
        if seg is None:
            return None
        truth = self.sequence.merged_truth(position)
        assert truth is not None
        errors = frame_errors(labels, truth)
        true = [error for error in errors if error.side == "truth"]
        self.found.true_cells += len(true)
        self.found.iou += sum(error.iou for error in true)
        self.found.kinds.update(error.kind for error in true)
        self.found.kinds["spurious"] += sum(error.kind == "spurious" for error in errors)
        return errors

    def finish(self, folder: Path) -> VideoFindings:
        """Compares the lineages and draws what shows the whole video."""
        found, first = self.found, self.sequence.numbers[0]
        truth = clip_lineage(self.sequence.lineage, first, self.sequence.numbers[found.frames - 1] + 1)
        found.tracks = len(self._lineage)
        if truth and self._partners:
            compared = compare_divisions(self._lineage, truth, self._partners)
            found.divisions = (len(compared.found), len(compared.missed), len(compared.false))
        if self._preview is not None:
            found.animation = folder / "tracks" / f"{found.key}.gif"
            self._preview.save(found.animation, _MOST_BYTES)
            found.pictures = [webp(picture) for picture in self._preview.frames()]
            found.sheet = self._preview.sheet()
            found.lineage = lineage_picture(truth, self._lineage, self._partners)
            save_png(folder / "lineage" / f"{found.key}.png", found.lineage)
        return found


def _is_told(error: CellError) -> bool:
    """Each true cell once, and each cell of the result that covers none."""
    return error.side == "truth" or not error.partner


def _cell_row(video: str, frame: int, error: CellError) -> CellRow:
    true, label = (error.label, error.partner) if error.side == "truth" else (0, error.label)
    return CellRow(video, frame, true, label, error.area, round(error.iou, 6), error.kind)
