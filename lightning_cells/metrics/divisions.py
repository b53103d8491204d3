"""Which divisions of the truth a result has, and which it made up."""

from collections import Counter, defaultdict
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

    A division is found if the result has one with as many daughters, mother and daughters each within `TOLERANCE`
    frames of the true ones: the mother's last frame, and each daughter's first one. In the last frame of both mothers
    the result's must detect the true one and no other; each daughter must detect its true one, and no other, in the
    first frame of both. Between mother and daughters there may be frames without either. This is branching
    correctness with a tolerance (Ulicna et al., Frontiers in Computer Science 3, 2021), as py-ctcmetrics counts it.

    Args:
        result: the result's track table.
        truth: the truth's.
        partners: frame -> truth label -> label of the result cell that detects it, 0 for none, for all frames with
            markers. Divisions of frames without are left out.
    """
    wanted = [division for division in divisions(truth) if _frames(division, truth) <= partners.keys()]
    offered = {d.mother: d for d in divisions(result) if _frames(d, result) <= partners.keys()}
    alone = {frame: _alone(cells) for frame, cells in partners.items()}
    found, missed = [], []
    for true in wanted:
        end = truth[true.mother].end
        for last in range(end - TOLERANCE, end + 1):  # of both mothers
            candidate = offered.get(alone.get(last, {}).get(true.mother, 0))
            if (
                candidate
                and last == min(end, result[candidate.mother].end)
                and _is_same(true, candidate, truth, result, alone)
            ):
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


def _frames(division: Division, lineage: Lineage) -> set[int]:
    """The last frame of the mother, and the first of each daughter."""
    return {lineage[division.mother].end, *(lineage[label].begin for label in division.daughters)}


def _is_same(
    true: Division, candidate: Division, truth: Lineage, result: Lineage, alone: dict[int, dict[int, int]]
) -> bool:
    ends = truth[true.mother].end, result[candidate.mother].end
    if len(candidate.daughters) != len(true.daughters) or abs(ends[0] - ends[1]) > TOLERANCE:
        return False
    if alone.get(min(ends), {}).get(true.mother) != candidate.mother:
        return False
    found = set()
    for daughter in true.daughters:
        for other in candidate.daughters:
            begins = truth[daughter].begin, result[other].begin
            if abs(begins[0] - begins[1]) <= TOLERANCE and alone.get(max(begins), {}).get(daughter) == other:
                found.add(other)
    return len(found) == len(true.daughters)


def _alone(partners: dict[int, int]) -> dict[int, int]:
    """Of a frame's truth labels and the result cells that detect them, those where the cell detects no other."""
    times = Counter(partners.values())
    return {true: cell for true, cell in partners.items() if cell and times[cell] == 1}
