"""Which tracks of a truth and of a result are drawn beside each other, and in which row."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from lightning_cells.data.ctc import Lineage

MOST_TRUE = 40
"""True tracks that are drawn, at most."""
MOST_SPURIOUS = 6
"""Rows of tracks that never cover a true cell, at most."""

Partners = dict[int, dict[int, int]]
"""Frame -> true label -> label of the result cell that covers it, 0 for none."""


@dataclass
class Row:
    """One row of a picture of lineages.

    Attributes:
        truth: label of the true track in it, or 0.
        result: labels of the result's tracks in it, of which no two overlap in time.
    """

    truth: int = 0
    result: list[int] = field(default_factory=list)


@dataclass
class Rows:
    """The rows from top to bottom, and how much of all they show."""

    rows: list[Row]
    families: int
    families_shown: int
    spurious: int  # tracks of the result that never cover a true cell
    spurious_shown: int


def arrange(truth: Lineage, result: Lineage, partners: Partners) -> Rows:
    """Gives true families their rows, those with most errors if not all have room, and puts the result beside them.

    A track of the result lies in the row of the true track that it covers most often, below it where that is taken.
    Tracks that cover none come last, the longest of them. Without a truth, the families of the result are shown.
    """
    if not truth:
        shown, families = _families(result, {})
        return Rows([Row(result=[label]) for label in shown], families, _roots(shown, result), 0, 0)
    covered: dict[int, Counter[int]] = defaultdict(Counter)
    errors: Counter[int] = Counter()
    for cells in partners.values():
        for true, found in cells.items():
            if found:
                covered[found][true] += 1
            else:
                errors[true] += 1
    followers: dict[int, list[int]] = defaultdict(list)  # true label -> tracks of the result that follow it
    alone = []
    for label in result:
        if covered[label]:
            followers[covered[label].most_common(1)[0][0]].append(label)
        else:
            alone.append(label)
    errors.update({true: len(labels) - 1 for true, labels in followers.items()})
    shown, families = _families(truth, errors)
    rows = []
    for true in shown:
        rows += _packed(followers[true], result, Row(true))
    alone.sort(key=lambda label: (result[label].begin - result[label].end, label))
    last = _packed(alone[: 10 * MOST_SPURIOUS], result)[:MOST_SPURIOUS]  # packing all of thousands would take long
    return Rows(rows + last, families, _roots(shown, truth), len(alone), sum(len(row.result) for row in last))


def _packed(labels: list[int], lineage: Lineage, first: Row | None = None) -> list[Row]:
    """Puts tracks into rows, in each those that fit in between."""
    rows = [first] if first else []
    for label in labels:
        track = lineage[label]
        for row in rows:
            if all(track.begin > lineage[o].end or track.end < lineage[o].begin for o in row.result):
                row.result.append(label)
                break
        else:
            rows.append(Row(result=[label]))
    return rows


def _families(lineage: Lineage, errors: dict[int, int]) -> tuple[list[int], int]:
    """The tracks to show, each mother between her daughters, and the number of all families."""
    children: dict[int, list[int]] = defaultdict(list)
    for label in sorted(lineage):
        children[lineage[label].parent].append(label)
    members = {root: _inner_order(root, children) for root in children[0]}
    worst = sorted(
        members, key=lambda root: (-sum(errors.get(label, 0) for label in members[root]), -len(members[root]), root)
    )
    chosen: list[int] = []
    used = 0
    for root in worst:
        if not chosen or used + len(members[root]) <= MOST_TRUE:
            chosen.append(root)
            used += len(members[root])
    shown = [label for root in sorted(chosen) for label in members[root]]
    if used > MOST_TRUE:  # a single large family: those that come first, among which are the mothers of all
        first = set(sorted(shown, key=lambda label: (lineage[label].begin, label))[:MOST_TRUE])
        shown = [label for label in shown if label in first]
    return shown, len(members)


def _inner_order(root: int, children: dict[int, list[int]]) -> list[int]:
    order: list[int] = []
    waiting = [(root, False)]
    while waiting:  # without recursion: families may be deep
        label, opened = waiting.pop()
        if opened:
            order.append(label)
            continue
        half = len(children[label]) // 2
        waiting += [(child, False) for child in reversed(children[label][half:])]
        waiting.append((label, True))
        waiting += [(child, False) for child in reversed(children[label][:half])]
    return order


def _roots(labels: list[int], lineage: Lineage) -> int:
    return sum(lineage[label].parent == 0 for label in labels)
