"""What a test finds in volumes, and how it is shown."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_cells.callbacks.findings import Findings
from lightning_cells.callbacks.images import ShownFrame, numbered
from lightning_cells.data.sequence import Sequence, open_sequence
from lightning_cells.data.simulate import simulate
from lightning_cells.visualization.montage import strip


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Sequence:
    out = simulate(tmp_path_factory.mktemp("v") / "out", sequences=1, frames=4, size=(48, 64), depth=6, voxel=(4, 1, 1))
    return open_sequence(out, "01", "zscore", scale=0.5, cache=tmp_path_factory.mktemp("cache"))


def test_findings_of_volumes(volumes: Sequence, tmp_path: Path) -> None:
    truth = [volumes.truth(index)[1] for index in range(4)]
    missing = int(np.unique(truth[1])[1])
    labels = [np.where((mask == missing) & (index == 1), 0, mask).astype(np.int32) for index, mask in enumerate(truth)]
    findings = Findings(tmp_path)
    findings.add(volumes, 0, labels, volumes.lineage)
    findings.close()
    (video,) = findings.videos
    cells = sum(len(np.unique(mask)) - 1 for mask in truth)
    assert (video.true_cells, video.kinds["missed"], video.kinds["matched"]) == (cells, 1, cells - 1)
    assert {row.kind for row in findings.cells} == {"matched", "missed"}
    with Image.open(tmp_path / "tracks/01.gif") as picture:
        assert picture.n_frames == 4
        assert picture.size[0] / picture.size[1] == pytest.approx(64 / 48, rel=0.02), "from above"
    worst = next(iter(findings.worst.items()))[1]
    assert worst.number == 1


def test_a_shown_volume_is_to_scale(volumes: Sequence) -> None:
    truth = volumes.truth(2)[1].astype(np.int32)
    sample = ShownFrame(volumes, 2, truth).sample()
    assert sample.step == 4.0, "planes are four pixels of the original apart, whatever the network sees"
    drawn = strip(sample)
    assert drawn.kinds["missed"] == drawn.kinds["spurious"] == 0
    panel = (drawn.image.shape[1] + 8) / 4 - 8
    deep = 6 * 4 + 1  # planes and a gap
    assert panel / drawn.image.shape[0] == pytest.approx((64 + deep) / (48 + deep), rel=0.02)
    assert list(numbered("val/frame", [sample])) == ["val/frame_1"]
