"""What a killed computation goes on from, on disks that are full."""

import errno
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_cells.data import spool as module
from lightning_cells.data.spool import Spool


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("size", [10, 10_000_000])
def test_why_a_state_cannot_be_kept(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path / "work", "key", interval=0)
    spool.append([np.arange(3)], torch.ones(size))

    @contextmanager
    def full(path: Path):
        yield Path("/dev/full") if path.name == "state.pt" else path

    with monkeypatch.context() as patch:
        patch.setattr(module, "writing", full)
        with pytest.raises(OSError, match="No space left") as told:
            spool.append([np.arange(4)], torch.zeros(size))
    assert told.value.errno == errno.ENOSPC
    again = Spool(tmp_path / "work", "key", interval=0)
    assert again.done == 1
    assert again.state.sum() == size
