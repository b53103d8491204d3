"""What several tests of the data layer need."""

from pathlib import Path

import numpy as np
import pytest

from lightning_cells.errors import InputError


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
