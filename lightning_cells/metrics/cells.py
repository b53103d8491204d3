"""What went wrong with each cell of a frame, for pictures and tables."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightning_cells.metrics.matching import CommonPixels, Regions, overlap

Kind = Literal["matched", "merged", "split", "missed", "spurious", "unknown"]


@dataclass(frozen=True)
class CellError:
    """How one cell fared.

    Attributes:
        side: whose cell it is.
        label: its label in that mask.
        area: its pixels, or voxels.
        partner: label of the cell of the other side that it is matched with, 0 for none; for a merged result
            cell the truth cell with which it shares most.
        iou: Jaccard index with the partner, 0 without one.
        kind: see `frame_errors`.
    """

    side: Literal["truth", "result"]
    label: int
    area: int
    partner: int
    iou: float
    kind: Kind


def frame_errors(result: NDArray[np.integer], seg: NDArray[np.integer]) -> list[CellError]:
    """Compares the cells of one frame: first the truth cells, then the result cells, by ascending label.

    A result cell covers a truth cell if it holds more than half of the truth cell's pixels (as for SEG and
    TRA), and it is a part of a truth cell if more than half of its own pixels lie in it. The kind of a cell
    is the first that fits:

    - ``merged``: a result cell that covers two or more truth cells, and each of these.
    - ``split``: a truth cell with two or more parts, and each of these parts.
    - ``matched``: a truth cell that is covered, and the result cell that covers it.
    - ``missed``: a truth cell that is not covered.
    - ``unknown``: a result cell more than half of which lies where the truth is unknown.
    - ``spurious``: any other result cell.

    These kinds are meant for looking at: a part of a split truth cell that covers none counts as a false
    positive in TRA. Where the truth shows only some cells of a frame, mark the rest of it unknown, or ignore
    ``spurious``.

    Args:
        result: (H, W) or (Z, H, W) integers, result labels, 0 background.
        seg: integers of the same shape, truth labels, 0 background, negative where nothing is known.
    """
    truth_cells, result_cells = Regions(seg), Regions(result)
    pairs = overlap(truth_cells, result_cells)
    covers = 2 * pairs.pixels > truth_cells.areas[pairs.truth]
    inside = 2 * pairs.pixels > result_cells.areas[pairs.result]
    n_truth, n_result = len(truth_cells.labels), len(result_cells.labels)
    covered = np.bincount(pairs.result[covers], minlength=n_result)  # truth cells that a result cell covers
    parts = np.bincount(pairs.truth[inside], minlength=n_truth)
    unknown = np.bincount(result_cells.index[seg.ravel()[result_cells.pixels] < 0], minlength=n_result)

    truth_kind = np.full(n_truth, "missed", object)
    result_kind = np.full(n_result, "spurious", object)
    result_kind[2 * unknown > result_cells.areas] = "unknown"
    truth_kind[pairs.truth[covers]] = "matched"
    result_kind[covered == 1] = "matched"
    truth_kind[parts > 1] = "split"
    result_kind[pairs.result[inside & (parts[pairs.truth] > 1)]] = "split"
    truth_kind[pairs.truth[covers & (covered[pairs.result] > 1)]] = "merged"
    result_kind[covered > 1] = "merged"
    shown = CommonPixels(*(field[covers] for field in pairs))
    return [
        *_errors("truth", truth_cells, result_cells, shown.truth, shown.result, shown.pixels, truth_kind),
        *_errors("result", result_cells, truth_cells, shown.result, shown.truth, shown.pixels, result_kind),
    ]


def _errors(
    side: Literal["truth", "result"],
    own: Regions,
    other: Regions,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    pixels: NDArray[np.int64],
    kinds: NDArray[np.object_],
) -> list[CellError]:
    """One entry per cell of `own`; of several covering pairs the one that shares most pixels is shown."""
    order = np.argsort(pixels, kind="stable")  # the last assignment to an entry stays
    rows, columns, pixels = rows[order], columns[order], pixels[order]
    partner = np.zeros(len(own.labels), np.int64)
    iou = np.zeros(len(own.labels))
    partner[rows] = other.labels[columns]
    iou[rows] = pixels / (own.areas[rows] + other.areas[columns] - pixels)
    entries = zip(own.labels.tolist(), own.areas.tolist(), partner.tolist(), iou.tolist(), kinds, strict=True)
    return [CellError(side, label, area, mate, value, kind) for label, area, mate, value, kind in entries]
