"""What the Cell Tracking Challenge counts on a video, as sums that add up over videos and processes."""

import math
from dataclasses import dataclass, fields

MEASURES = ("SEG", "DET", "TRA", "LNK", "OP_CSB", "OP_CTB")
OPERATIONS = ("NS", "FN", "FP", "ED", "EA", "EC")
DIVISIONS = ("divisions", "divisions_found", "divisions_false")


@dataclass(frozen=True)
class CTCCounts:
    """Sums behind the Cell Tracking Challenge's measures; ``CTCCounts()`` is the zero of the addition.

    SEG follows Maška et al., Bioinformatics 30(11), 2014; DET, TRA, LNK and their weights follow Matula et
    al., PLoS ONE 10(12), 2015 (acyclic oriented graph matching, AOGM). Adding the counts of two videos pools
    their cells; the challenge itself averages the measures of its two videos instead.

    A measure with nothing to measure is nan: SEG without a truth cell, DET without a truth marker, TRA and
    LNK without track tables. (py-ctcmetrics gives SEG = 0 there, and divides by zero for the others.)

    Attributes:
        seg_sum: sum of the Jaccard indices of the truth cells of SEG, 0 for a cell that no result cell covers
            by half.
        seg_cells: number of truth cells of SEG.
        ns: splits needed: how many truth markers too many share a result cell.
        fn: truth markers that no result cell covers by more than half.
        fp: result cells that cover no truth marker.
        ed: result edges to delete: between cells of one marker each, where the truth has no edge.
        ea: truth edges to add.
        ec: edges to correct: track link in one graph, parent link in the other.
        vertices: truth markers of TRA.
        edges: truth edges, track links and parent links.
        tra_frames: frames that were compared with the markers of TRA.
        linked_frames: those of them in videos where both result and truth have a track table.
        divisions: divisions in the truth, see `count_divisions`.
        divisions_found: those of them that the result has.
        divisions_false: other divisions of the result.
    """

    seg_sum: float = 0.0
    seg_cells: int = 0
    ns: int = 0
    fn: int = 0
    fp: int = 0
    ed: int = 0
    ea: int = 0
    ec: int = 0
    vertices: int = 0
    edges: int = 0
    tra_frames: int = 0
    linked_frames: int = 0
    divisions: int = 0
    divisions_found: int = 0
    divisions_false: int = 0

    def __add__(self, other: "CTCCounts") -> "CTCCounts":
        if not isinstance(other, CTCCounts):
            return NotImplemented
        return CTCCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def linked(self) -> bool:
        """Whether edges were counted on every frame that has markers."""
        return 0 < self.linked_frames == self.tra_frames

    @property
    def SEG(self) -> float:
        """Mean Jaccard index over the truth cells, 0 to 1."""
        return self.seg_sum / self.seg_cells if self.seg_cells else math.nan

    @property
    def DET(self) -> float:
        """Detection: 1 - min(AOGM-D, AOGM-D_0) / AOGM-D_0 with the vertex operations alone, 0 to 1."""
        return _score(self._vertex_cost, 10 * self.vertices)

    @property
    def TRA(self) -> float:
        """Tracking: 1 - min(AOGM, AOGM_0) / AOGM_0 with all six operations, 0 to 1."""
        if not self.linked:
            return math.nan
        return _score(self._vertex_cost + self._edge_cost, 10 * self.vertices + 1.5 * self.edges)

    @property
    def LNK(self) -> float:
        """Linking: 1 - min(AOGM-A, AOGM-A_0) / AOGM-A_0 with the edge operations alone, 0 to 1."""
        return _score(self._edge_cost, 1.5 * self.edges) if self.linked else math.nan

    @property
    def OP_CSB(self) -> float:
        """Overall performance of the segmentation benchmark: (SEG + DET) / 2."""
        return (self.SEG + self.DET) / 2

    @property
    def OP_CTB(self) -> float:
        """Overall performance of the tracking benchmark: (SEG + TRA) / 2."""
        return (self.SEG + self.TRA) / 2

    @property
    def _vertex_cost(self) -> float:
        return 5 * self.ns + 10 * self.fn + self.fp

    @property
    def _edge_cost(self) -> float:
        return self.ed + 1.5 * self.ea + self.ec

    def values(self) -> dict[str, float]:
        """Returns the measures `MEASURES` and the counts `OPERATIONS` by name, nan where not computable."""
        vertex = 1.0 if self.tra_frames else math.nan
        edge = 1.0 if self.linked else math.nan
        measures = {name: float(getattr(self, name)) for name in MEASURES}
        known = {"NS": vertex, "FN": vertex, "FP": vertex, "ED": edge, "EA": edge, "EC": edge}
        return measures | {name: getattr(self, name.lower()) * factor for name, factor in known.items()}

    def as_dict(self) -> dict[str, float | int | None]:
        """Returns measures, operations, divisions and totals ready for JSON: counts as integers, None for nan."""
        out: dict[str, float | int | None] = {}
        for name, value in self.values().items():
            out[name] = None if math.isnan(value) else int(value) if name in OPERATIONS else value
        for name in DIVISIONS:
            out[name] = getattr(self, name) if self.linked else None
        return out | {"seg_cells": self.seg_cells, "vertices": self.vertices, "edges": self.edges}


def _score(cost: float, empty_cost: float) -> float:
    """Normalises a cost by that of an empty result."""
    return 1 - min(cost, empty_cost) / empty_cost if empty_cost else math.nan
