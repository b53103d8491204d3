"""Streaming comparison of one video's result with its truth: acyclic oriented graph matching."""

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_cells.data.tracks import Lineage
from lightning_cells.errors import Doubt, InputError
from lightning_cells.metrics.counts import CTCCounts
from lightning_cells.metrics.detection import DetectionCounts, count_detections
from lightning_cells.metrics.divisions import count_divisions
from lightning_cells.metrics.matching import Match, Regions, match, plane_of
from lightning_cells.metrics.validity import VERTEX, check_masks, check_parents, outside_rows


class _Edges(NamedTuple):
    """Edges of a graph by the indices of their vertices, each array (E,)."""

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    parental: NDArray[np.bool_]  # a parent link, not a track link


class CTCMatcher:
    """Compares the masks of one video frame by frame, then the two lineages.

    What is kept of a frame is its labels and which of them match, so memory does not depend on the size of
    the frames.

    The counts equal those of the challenge's programs and of py-ctcmetrics: a result cell detects a truth
    marker if it covers more than half of it; track links join a label in consecutive frames, in the masks;
    parent links join the last frame of a parent's row and the first of its child's, gap or no gap; result
    cells that detect several markers take no part in the matching of edges (Matula et al., PLoS ONE 10(12),
    2015). Unlike py-ctcmetrics 1.3 it is also right for masks without any background, for labels up to 65535
    and for results without any cell. Volumes are compared voxel by voxel, and where the truth of SEG is that of single
    planes, plane by plane.

    Args:
        result: what to call the result in messages, such as its folder.
        truth: what to call the truth in messages.

    Attributes:
        detections: which of the cells of SEG were found, in the frames so far. A frame with fewer cells in SEG than
            markers in TRA was segmented in part.
    """

    def __init__(self, result: str = "result", truth: str = "truth") -> None:
        self.result_name, self.truth_name = result, truth
        self._result: dict[int, NDArray[np.int64]] = {}  # frame -> labels
        self._tra: dict[int, Match] = {}
        self._seg_sum = 0.0
        self._seg_cells = 0
        self.detections = DetectionCounts()

    def update(
        self,
        frame: int,
        result: NDArray[np.integer],
        seg: NDArray[np.integer] | Mapping[int, NDArray[np.integer]] | None,
        tra: NDArray[np.integer] | None,
    ) -> None:
        """Adds one frame; every frame of the video once, in any order.

        Args:
            frame: its number, as in the track tables.
            result: (H, W) or (Z, H, W) integers, result labels, 0 background.
            seg: integers of the same shape, truth cells of SEG; or the (H, W) of some planes of a volume by their
                numbers, in each of which a cell counts by itself; None if this frame has none.
            tra: integers of the same shape, truth markers of TRA; None if this frame has none.

        Raises:
            InputError: on masks of differing size, labels above 65535, a plane that the result does not have, or a
                frame given twice.
        """
        if frame in self._result:
            raise InputError(f"{self.result_name}: frame {frame} is given twice; give every frame once")
        try:
            cells = Regions(result)
            if tra is not None:
                self._tra[frame] = match(Regions(tra), cells)
            if isinstance(seg, Mapping):
                for plane, mask in seg.items():
                    markers = None if tra is None else len(Regions(plane_of(tra, plane)).labels)
                    self._segmented(Regions(mask), Regions(plane_of(result, plane)), markers)
            elif seg is not None:
                self._segmented(Regions(seg), cells, None if tra is None else len(self._tra[frame].truth))
        except InputError as error:
            raise InputError(f"{self.result_name}, frame {frame}: {error}") from None
        self._result[frame] = cells.labels

    def _segmented(self, truth: Regions, cells: Regions, markers: int | None) -> None:
        """Compares cells with those of SEG, where so many markers are, or nobody knows how many."""
        found = match(truth, cells)
        self._seg_sum += float(found.iou.sum())
        self._seg_cells += len(found.iou)
        self.detections += count_detections(truth, cells, found, markers is None or len(truth.labels) >= markers)

    def compute(self, result_lineage: Lineage | None, truth_lineage: Lineage | None) -> CTCCounts:
        """Counts the operations that turn the result into the truth.

        Args:
            result_lineage: the result's track table; None if it has none.
            truth_lineage: the truth's; None if it has none. Without both, edges are not counted.

        Raises:
            InputError: if the result's masks and track table contradict each other, a parent does not end
                before its child begins, or a parent link of the truth starts or ends where there is no
                marker.
        """
        if result_lineage is not None:
            check_parents(result_lineage, self.result_name)
            check_masks(result_lineage, self._result.keys(), _vertices(self._result), self.result_name)
        if truth_lineage is not None:
            check_parents(truth_lineage, self.truth_name)
        frames = len(self._tra)
        seg = CTCCounts(seg_sum=self._seg_sum, seg_cells=self._seg_cells)
        if not frames:
            return seg

        truth = _vertices({frame: found.truth for frame, found in self._tra.items()})
        if truth_lineage is not None:
            self._tell_rowless(truth, truth_lineage)
        result = _vertices({frame: self._result[frame] for frame in self._tra})
        partner = np.concatenate([f * VERTEX + self._tra[f].partner for f in sorted(self._tra)])
        matched = partner % VERTEX > 0
        hits = np.bincount(np.searchsorted(result, partner[matched]), minlength=len(result))
        nodes = CTCCounts(
            ns=int(np.maximum(hits - 1, 0).sum()),
            fn=int((~matched).sum()),
            fp=int((hits == 0).sum()),
            vertices=len(truth),
            tra_frames=frames,
        )
        if result_lineage is None or truth_lineage is None:
            return seg + nodes

        truth_edges = self._edges(truth, truth_lineage, self.truth_name)
        result_edges = self._edges(result, result_lineage, self.result_name)
        counterpart = np.full(len(result), -1)
        counterpart[np.searchsorted(result, partner[matched])] = np.flatnonzero(matched)
        counterpart[hits != 1] = -1
        edges = _compare(truth_edges, result_edges, counterpart, len(truth), frames)
        return seg + nodes + edges + self._divisions(result_lineage, truth_lineage)

    def _tell_rowless(self, truth: NDArray[np.int64], lineage: Lineage) -> None:
        """Warns of markers of the truth that no row of its table covers; they count all the same."""
        rowless = outside_rows(lineage, truth)
        if rowless.size:
            frame, label = divmod(int(rowless[0]), VERTEX)
            others = f", nor have {rowless.size - 1} others" if rowless.size > 1 else ""
            warnings.warn(
                f"{self.truth_name}: the marker {label} of frame {frame} has no row that covers it{others}: correct "
                "the rows or the masks",
                Doubt,
                stacklevel=3,
            )

    def _divisions(self, result: Lineage, truth: Lineage) -> CTCCounts:
        partners = {f: dict(zip(m.truth.tolist(), m.partner.tolist(), strict=True)) for f, m in self._tra.items()}
        number, found, false = count_divisions(result, truth, partners)
        return CTCCounts(divisions=number, divisions_found=found, divisions_false=false)

    def _edges(self, vertices: NDArray[np.int64], lineage: Lineage, name: str) -> _Edges:
        """Returns the track links and parent links of a graph, within the frames that have markers."""
        links = np.flatnonzero(np.isin(vertices + VERTEX, vertices, assume_unique=True))
        pairs = [
            (lineage[t.parent].end * VERTEX + t.parent, t.begin * VERTEX + t.label)
            for t in lineage.values()
            if t.parent and t.begin in self._tra and lineage[t.parent].end in self._tra
        ]
        ends = np.array(pairs, np.int64).reshape(-1, 2)
        absent = ends[~np.isin(ends, vertices)]
        if absent.size:
            frame, label = divmod(int(absent[0]), VERTEX)
            raise InputError(
                f"{name}: track {label} is not in the mask of frame {frame}, where a parent link starts or "
                "ends; correct its row"
            )
        source = np.concatenate([links, np.searchsorted(vertices, ends[:, 0])])
        target = np.concatenate(
            [np.searchsorted(vertices, vertices[links] + VERTEX), np.searchsorted(vertices, ends[:, 1])]
        )
        return _Edges(source, target, np.arange(len(source)) >= len(links))


def _vertices(labels: dict[int, NDArray[np.int64]]) -> NDArray[np.int64]:
    """Returns the ascending ``frame * VERTEX + label`` of all cells."""
    return np.concatenate([np.empty(0, np.int64), *(frame * VERTEX + labels[frame] for frame in sorted(labels))])


def _compare(truth: _Edges, result: _Edges, counterpart: NDArray[np.int64], vertices: int, frames: int) -> CTCCounts:
    """Counts the edges to delete, to add and to correct.

    Args:
        truth: edges between truth vertices.
        result: edges between result vertices.
        counterpart: truth vertex that a result vertex detects, -1 unless it is exactly one.
        vertices: number of truth vertices.
        frames: number of frames, for `CTCCounts.linked_frames`.
    """
    source, target = counterpart[result.source], counterpart[result.target]
    kept = (source >= 0) & (target >= 0)
    found = source[kept] * vertices + target[kept]
    wanted = truth.source * vertices + truth.target
    _, at_found, at_wanted = np.intersect1d(found, wanted, assume_unique=True, return_indices=True)
    return CTCCounts(
        ed=len(found) - len(at_found),
        ea=len(wanted) - len(at_wanted),
        ec=int((result.parental[kept][at_found] != truth.parental[at_wanted]).sum()),
        edges=len(wanted),
        linked_frames=frames,
    )
