"""What makes a result invalid, and how it is told."""

import tracemalloc

import numpy as np
import pytest

from lightning_cells.data.tracks import Track
from lightning_cells.errors import InputError
from lightning_cells.metrics.matcher import CTCMatcher
from lightning_cells.metrics.validity import VERTEX, check_masks


def row(*labels: int) -> np.ndarray:
    """A mask of one row, three pixels per given label."""
    return np.repeat(np.array(labels, np.int32), 3)[None]


VALID = [row(1, 2), row(1, 2), row(1, 3)]
ROWS = {1: Track(1, 0, 2, 0), 2: Track(2, 0, 1, 0), 3: Track(3, 2, 2, 2)}


@pytest.mark.parametrize(
    ("masks", "rows", "message"),
    [
        ([row(1, 2), row(0, 2), row(1, 3)], {}, "label 1 is missing in the mask of frame 1"),
        ([row(1, 2), row(1, 2), row(1, 9)], {}, "label 9 in the mask of frame 2 has no row"),
        (VALID, {4: Track(4, 1, 1, 0)}, "track 4 has a row but is in no mask"),
        (VALID, {2: Track(2, 0, 0, 0)}, "label 2 is in the mask of frame 1, outside frames 0 to 0"),
        (VALID, {3: Track(3, 2, 2, 1)}, "parent 1 ends in frame 2, not before its child 3 begins in frame 2"),
        (VALID, {3: Track(3, 2, 2, 8)}, "parent 8, which has no row"),
        (VALID, {3: Track(3, 2, 1, 0)}, "ends in frame 1, before it begins in frame 2"),
        (VALID, {1: Track(1, 0, 10**12, 0)}, "the masks are those of frames 0 to 2"),
    ],
)
def test_invalid_results(masks, rows, message):
    matcher = CTCMatcher(result="some/01_RES")
    for t, mask in enumerate(masks):
        matcher.update(t, mask, None, VALID[t])
    with pytest.raises(InputError) as error:
        matcher.compute(ROWS | rows, ROWS)
    assert message in str(error.value)
    assert str(error.value).startswith("some/01_RES: ")
    assert "\n" not in str(error.value)


def test_truth_with_parent_link_to_nowhere():
    matcher = CTCMatcher(truth="01_GT/TRA/man_track.txt")
    for t, mask in enumerate(VALID):
        matcher.update(t, mask, None, mask)
    with pytest.raises(InputError, match=r"^01_GT/TRA/man_track.txt: track 4 is not in the mask of frame 1"):
        matcher.compute(ROWS, {2: Track(2, 0, 0, 0), 4: Track(4, 1, 1, 2)})


def test_the_mistake_told_is_the_first() -> None:
    """Against a loop over all frames of all rows, on random tables and masks."""
    rng = np.random.default_rng(0)
    kinds = set()
    for _ in range(400):
        rows = {}
        for label in rng.choice(np.arange(1, 9), rng.integers(1, 6), replace=False).tolist():
            begin, end = sorted(rng.integers(3, 9, 2).tolist())
            rows[label] = Track(label, begin, end, 0)
        told = {(f, t.label) for t in rows.values() for f in range(t.begin, t.end + 1)}
        every = [(f, n) for f in range(3, 9) for n in range(1, 9)]
        seen = {cell for cell in every if (cell in told) != (rng.random() < 0.02 * rng.integers(0, 3))}
        vertices = np.array([f * VERTEX + n for f, n in sorted(seen)], np.int64)
        wrong = min(seen - told, default=None) or min(told - seen, default=None)
        if wrong is None:
            check_masks(rows, range(3, 9), vertices, "r")
            continue
        with pytest.raises(InputError) as caught:
            check_masks(rows, range(3, 9), vertices, "r")
        frame, label = wrong
        said = str(caught.value)
        in_no_mask = f"track {label} has a row but is in no mask"
        assert (f"frame {frame}" in said and f"label {label} " in said) or in_no_mask in said
        kinds.add(said.split(";")[1])
    assert len(kinds) == 4


def test_as_many_rows_as_there_can_be() -> None:
    """Rows through a whole long video take no more than the masks do: two gigabytes and a minute, once."""
    rows = {label: Track(label, 0, 5000, 0) for label in range(1, 65536)}
    vertices = np.arange(5001, dtype=np.int64) * VERTEX + 1
    tracemalloc.start()
    with pytest.raises(InputError, match="track 2 has a row but is in no mask"):
        check_masks(rows, range(5001), vertices, "r")
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
