"""Which divisions of the truth a result has, and which it made up."""

from collections import defaultdict
from typing import NamedTuple

from lightning_cells.data.tracks import Lineage

TOLERANCE = 1  # frames by which a division may come early or late


class Division(NamedTuple):
    """A track that ends in two or more.

    Attributes:
        mother: its label.
        daughters: theirs.
        frame: in which the first daughter begins.
    """

    mother: int
    daughters: tuple[int, ...]
    frame: int


def divisions(lineage: Lineage) -> list[Division]:
    """Lists the divisions of a track table; a single child is none."""
    children: dict[int, list[int]] = defaultdict(list)
    for track in lineage.values():
        if track.parent:
            children[track.parent].append(track.label)
    return [
        Division(mother, tuple(sorted(daughters)), min(lineage[label].begin for label in daughters))
        for mother, daughters in sorted(children.items())
        if len(daughters) > 1
    ]


class Compared(NamedTuple):
    """The divisions of a truth and a result.

    Attributes:
        found: pairs of a division of the truth and one of the result that belong together.
        missed: the others of the truth.
        false: the others of the result.
    """

    found: list[tuple[Division, Division]]
    missed: list[Division]
    false: list[Division]


def compare_divisions(result: Lineage, truth: Lineage, partners: dict[int, dict[int, int]]) -> Compared:
    """Compares the divisions of a result with those of the truth.

    A division is found if the result has one within `TOLERANCE` frames whose mother detects the true mother before
    both, and whose daughters detect the true ones, each its own, after both. This is branching correctness with a
    tolerance (Ulicna et al., Frontiers in Computer Science 3, 2021).

    Args:
        result: the result's track table.
        truth: the truth's.
        partners: frame -> truth label -> label of the result cell that detects it, 0 for none, for all frames with
            markers. Divisions of frames without are left out.
    """
    wanted = [d for d in divisions(truth) if {d.frame - 1, d.frame} <= partners.keys()]
    offered = {d.mother: d for d in divisions(result) if {d.frame - 1, d.frame} <= partners.keys()}
    found, missed = [], []
    for true in wanted:
        for number in range(true.frame - 1 - TOLERANCE, true.frame):  # no later than the last frame before both
            candidate = offered.get(partners.get(number, {}).get(true.mother, 0))
            if candidate and _is_same(true, candidate, number, partners):
                del offered[candidate.mother]
                found.append((true, candidate))
                break
        else:
            missed.append(true)
    return Compared(found, missed, list(offered.values()))


def count_divisions(result: Lineage, truth: Lineage, partners: dict[int, dict[int, int]]) -> tuple[int, int, int]:
    """Returns the number of divisions in the truth, how many were found, and how many others the result has.

    See `compare_divisions`.
    """
    found, missed, false = compare_divisions(result, truth, partners)
    return len(found) + len(missed), len(found), len(false)


def _is_same(true: Division, candidate: Division, before: int, partners: dict[int, dict[int, int]]) -> bool:
    if abs(candidate.frame - true.frame) > TOLERANCE or before != min(candidate.frame, true.frame) - 1:
        return False
    after = partners.get(max(candidate.frame, true.frame), {})
    found = {after.get(label, 0) for label in true.daughters} - {0}
    return len(found) == len(true.daughters) and found <= set(candidate.daughters)
