"""Which of many frames are shown, decided as they come: only those are kept in memory."""

import zlib
from typing import Generic, TypeVar

from lightning_cells.data.sequence import Sequence

Rank = tuple[float, ...]
"""What frames are compared by; the lowest are shown."""
T = TypeVar("T")


class Shortlist(Generic[T]):
    """Keeps what ranks lowest.

    Args:
        most: how much is kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[Rank, T] = {}

    def wants(self, rank: Rank) -> bool:
        """Whether something of that rank would be kept."""
        return len(self._kept) < self._most or rank < max(self._kept)

    def add(self, rank: Rank, item: T) -> None:
        """Keeps it in place of what ranks highest, or in place of what has the same rank."""
        self._kept[rank] = item
        if len(self._kept) > self._most:
            del self._kept[max(self._kept)]

    def items(self) -> list[T]:
        """What is kept, lowest rank first."""
        return [self._kept[rank] for rank in sorted(self._kept)]

    def clear(self) -> None:
        """Forgets all."""
        self._kept.clear()


def fixed_ranks(sequence: Sequence) -> list[Rank]:
    """Ranks all frames of a video such that each time the same are shown, and frames of all videos compare.

    Those with segmentation truth come first, from as many videos as possible, spread over each.
    """
    video = zlib.crc32(f"{sequence.name} {sequence.numbers[0]}".encode())
    ranks: dict[int, Rank] = {}
    for without in (False, True):
        group = [
            position
            for position, number in enumerate(sequence.numbers)
            if (number not in sequence.files.seg) == without
        ]
        ranks |= {group[place]: (without, turn, video) for turn, place in enumerate(_spread(len(group)))}
    return [ranks[position] for position in range(len(sequence))]


def _spread(count: int) -> list[int]:
    """The numbers below `count`, first the middle one, then those at the quarters, then at the eighths, and so on."""
    steps = 1 << count.bit_length()
    order = sorted(range(1, steps), key=lambda step: (-(step & -step), step))
    return list(dict.fromkeys(step * count // steps for step in order))
