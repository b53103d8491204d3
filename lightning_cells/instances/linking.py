"""Labelled cells of consecutive frames -> tracks, by their common pixels."""

import numpy as np
from scipy.sparse import coo_array

from lightning_cells.data.image_files import MAX_LABEL
from lightning_cells.data.tracks import Lineage, Track
from lightning_cells.errors import InputError


def overlaps(
    first: np.ndarray, second: np.ndarray, numbers: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts the common pixels of all pairs of labels that have any.

    Args:
        first: (...) integer labels 0..K, 0 background.
        second: integer labels 0..L of the same shape, 0 background.
        numbers: K + 1, L + 1.

    Returns:
        Labels of the first, labels of the second, pixels: 1-D integer arrays, sorted by the labels.
    """
    both = (first > 0) & (second > 0)
    pairs = first[both], second[both]
    counts = coo_array((np.ones(len(pairs[0]), np.int32), pairs), numbers).tocsr()  # linear, unlike a sort
    counts.sort_indices()
    rows, columns = counts.nonzero()
    return rows, columns, counts.data


class OverlapLinker:
    """Link the cells of a video by their overlap with the frame before, one frame at a time.

    A cell inherits the track that covers most of it, if that is more than `min_overlap`. Of the heirs of one
    track

    * one continues it;
    * two are its daughters: it ends in the frame before, and each begins a track with it as parent;
    * of three or more, the one with the largest overlap continues it, and the others begin tracks without
      parent.

    Heirs much smaller than the largest are fragments, not daughters: they begin tracks without parent and do
    not count. A cell without predecessor begins a track. Gaps are not bridged, so every track is contiguous and
    the result is valid in the Cell Tracking Challenge after every frame.

    This is the tracker of Arbelle and Riklin Raviv's public evaluation code (Microscopy Cell Segmentation via
    Convolutional LSTM Networks, 2019), which has `min_overlap=0.5`, knows no fragments (`min_division_ratio=0`), and
    leaves the same label to three heirs.

    Args:
        min_overlap: fraction of a cell's area that its predecessor must cover and exceed. Daughters leave their
            mother's place fast: at 0.5 many divisions are lost.
        min_division_ratio: smallest area of a daughter as a fraction of the largest heir's; 0 makes any two
            heirs a division.
        first_frame: number of the first frame pushed.

    Raises:
        InputError: A fraction outside 0..1.
    """

    def __init__(self, min_overlap: float = 0.3, min_division_ratio: float = 0.5, first_frame: int = 0) -> None:
        for name, value in (("min_overlap", min_overlap), ("min_division_ratio", min_division_ratio)):
            if not 0 <= value <= 1:
                raise InputError(f"{name}: {value} is no fraction; choose a value from 0 to 1")
        self.min_overlap = min_overlap
        self.min_division_ratio = min_division_ratio
        self._frame = first_frame  # of the next push
        self._previous: np.ndarray | None = None  # int32, the last frame's cells as 1..P
        self._tracks = np.zeros(1, np.int32)  # (P + 1,) the track of each of them
        self._begin, self._end, self._parent = [0], [0], [0]  # by track; number 0 is the background

    @property
    def lineage(self) -> Lineage:
        """The tracks so far, numbered 1..N in the order in which they begin."""
        rows = zip(self._begin, self._end, self._parent, strict=True)
        return {label: Track(label, *row) for label, row in enumerate(rows) if label > 0}

    def push(self, labels: np.ndarray) -> list[np.ndarray]:
        """Link the next frame to the one before.

        Args:
            labels: (H, W) or (Z, H, W) int32, 0 background, cells positive; a label means nothing beyond its frame.

        Returns:
            That frame, int32 of that shape: the same cells labelled by their tracks.

        Raises:
            InputError: A frame of another size than the ones before, or more tracks than a result can hold.
        """
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        present = sizes > 0
        current = np.where(present, np.cumsum(present), 0).astype(np.int32)[labels]  # cells as 1..K
        tracks, parents = self._inherit(current, np.concatenate([[0], sizes[present]]))

        born = np.flatnonzero(tracks[1:] == 0) + 1
        first = len(self._begin)
        if first + len(born) - 1 > MAX_LABEL:
            raise InputError(
                f"frame {self._frame}: more than {MAX_LABEL} tracks, which a 16-bit result cannot hold; "
                "drop small cells by the decoder's min_size, or track fewer frames"
            )
        tracks[born] = np.arange(first, first + len(born))
        self._begin += [self._frame] * len(born)
        self._end += [self._frame] * len(born)
        self._parent += parents[born].tolist()
        for track in tracks[1:].tolist():
            self._end[track] = self._frame
        self._previous, self._tracks = current, tracks
        self._frame += 1
        return [tracks[current]]

    def finish(self) -> list[np.ndarray]:
        """End the video: nothing is left, as each frame is done when it comes."""
        return []

    def _inherit(self, current: np.ndarray, areas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Decide which cells continue a track, and which are daughters of one.

        Args:
            current: int32, cells of this frame as 1..K.
            areas: (K + 1,) their areas in pixels, 0 for the background.

        Returns:
            The track each cell continues, and the parent of each daughter: (K + 1,) int32 both, 0 for none.
        """
        tracks, parents = np.zeros((2, len(areas)), np.int32)
        if self._previous is None:
            return tracks, parents
        if self._previous.shape != current.shape:
            before, now = ("x".join(map(str, shape)) for shape in (self._previous.shape, current.shape))
            raise InputError(f"frame {self._frame}: {now} pixels after frames of {before}; give frames of one size")

        # Of repeated assignments to one place the last stays: the largest overlap, the lowest label among equals.
        cells, olds, pixels = overlaps(current, self._previous, (len(areas), len(self._tracks)))
        order = np.argsort(-pixels, kind="stable")[::-1]
        old = np.zeros(len(areas), np.int64)  # the last frame's cell that covers most of each
        overlap = np.zeros(len(areas), np.int64)
        old[cells[order]] = olds[order]
        overlap[cells[order]] = pixels[order]

        heirs = np.flatnonzero(overlap > self.min_overlap * areas)
        largest = np.zeros(len(self._tracks), np.int64)
        np.maximum.at(largest, old[heirs], areas[heirs])
        heirs = heirs[areas[heirs] >= self.min_division_ratio * largest[old[heirs]]]
        twin = np.bincount(old[heirs], minlength=len(self._tracks))[old[heirs]] == 2
        twins, others = heirs[twin], heirs[~twin]
        parents[twins] = self._tracks[old[twins]]

        others = others[np.argsort(-overlap[others], kind="stable")[::-1]]
        heir = np.zeros(len(self._tracks), np.int64)
        heir[old[others]] = others
        heir = heir[heir > 0]
        tracks[heir] = self._tracks[old[heir]]
        return tracks, parents
