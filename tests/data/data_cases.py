"""What several tests of the data layer need."""

from pathlib import Path

import numpy as np
import pytest

from lightning_cells.data.image_files import write_image
from lightning_cells.errors import InputError

SIZE = (12, 16)
ROWS = "1 3 6 0\n2 3 4 0\n4 5 6 2\n"
CELLS = {1: (slice(1, 5), slice(1, 6)), 2: (slice(6, 11), slice(8, 14)), 4: (slice(7, 11), slice(9, 15))}


def touch(folder: Path, *names: str) -> Path:
    """Makes a folder with empty files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def complaint(call, *words: object) -> str:
    """The one-line message of the InputError that `call` raises, which holds all `words`."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message
    return message


def mask(*rows: str) -> np.ndarray:
    """Labels drawn as digits."""
    return np.array([[0 if c == "." else int(c) for c in row] for row in rows], np.uint16)


def markers(number: int) -> np.ndarray:
    """Two-by-two markers of the cells of a frame."""
    tra = np.zeros(SIZE, np.uint16)
    for cell in (1, 2) if number < 5 else (1, 4):
        rows, columns = CELLS[cell]
        tra[rows.start + 1 : rows.start + 3, columns.start + 1 : columns.start + 3] = cell
    return tra


def segmented(*cells: int) -> np.ndarray:
    """Whole cells, numbered 9, 10, ... as their drawer liked."""
    seg = np.zeros(SIZE, np.uint16)
    for value, cell in enumerate(cells, start=9):
        seg[CELLS[cell]] = value
    return seg


def make_video(root: Path) -> None:
    """Frames 3 to 6; frame 3 is segmented whole, frame 5 in part; classes of frame 4."""
    rng = np.random.default_rng(0)
    gold = root / "01_GT"
    for number in range(3, 7):
        write_image(root / "01" / f"t{number:03d}.tif", rng.integers(0, 4000, SIZE).astype(np.uint16))
        write_image(gold / "TRA" / f"man_track{number:03d}.tif", markers(number))
    (gold / "TRA" / "man_track.txt").write_text(ROWS)
    write_image(gold / "SEG" / "man_seg003.tif", segmented(2, 1))
    write_image(gold / "SEG" / "man_seg005.tif", segmented(4))
    write_image(gold / "SEM" / "man_sem004.tif", (markers(4) > 1).astype(np.uint8) * 2)
