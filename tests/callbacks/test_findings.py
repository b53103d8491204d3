from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_cells.callbacks import findings as module
from lightning_cells.callbacks.findings import CellRow, Findings
from lightning_cells.data.ctc import SequenceFiles
from lightning_cells.data.image_files import write_image
from lightning_cells.data.sequence import Sequence
from lightning_cells.data.tracks import Track

SIZE = (20, 30)


def mask(*cells: tuple[int, int, int, int, int]) -> np.ndarray:
    """Rectangles of (label, top, left, bottom, right)."""
    labels = np.zeros(SIZE, np.int32)
    for label, top, left, bottom, right in cells:
        labels[top:bottom, left:right] = label
    return labels


A, B = (1, 2, 2, 6, 8), (2, 10, 10, 14, 14)  # 24 and 16 pixels
TRUTH = mask(A, B)


def video(
    folder: Path, name: str = "01", frames: int = 4, seg: dict[int, np.ndarray] | None = None, markers: bool = True
) -> Sequence:
    """A video of the two cells, numbered from 5, with segmentation truth in some of its frames."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, dict[int, Path]] = {"seg": {}, "tra": {}}
    for kind, masks in (("seg", seg or {}), ("tra", dict.fromkeys(range(5, 5 + frames), TRUTH) if markers else {})):
        for number, labels in masks.items():
            files[kind][number] = folder / f"{kind}{number}.tif"
            write_image(files[kind][number], labels.astype(np.uint16))
    return Sequence(
        name=name,
        frames=np.random.default_rng(0).random((frames, *SIZE)).astype(np.float16),
        labels=None,
        classes=None,
        numbers=tuple(range(5, 5 + frames)),
        annotated=np.ones(frames, bool),
        lineage={k: Track(k, 5, 4 + frames, 0) for k in (1, 2)} if markers else {},
        size=SIZE,
        files=SequenceFiles(name, {}, files["seg"], files["tra"], None, {}, 3),
        fingerprint="",
    )


def still(labels: np.ndarray, frames: int) -> tuple[list[np.ndarray], dict[int, Track]]:
    return [labels] * frames, {int(k): Track(int(k), 5, 4 + frames, 0) for k in np.unique(labels) if k}


def test_each_true_cell_and_each_other_cell_has_a_row(tmp_path):
    findings = Findings(tmp_path / "out")
    result = mask((7, 2, 2, 6, 7), (8, 16, 20, 19, 25))  # 20 of the 24 pixels of A; B is missed; 15 pixels of nothing
    findings.add(video(tmp_path, seg={6: TRUTH}), 0, *still(result, 4))
    findings.close()
    assert findings.cells == [
        CellRow("01", 6, 1, 7, 24, round(20 / 24, 6), "matched"),
        CellRow("01", 6, 2, 0, 16, 0.0, "missed"),
        CellRow("01", 6, 0, 8, 15, 0.0, "spurious"),
    ]
    [found] = findings.videos
    assert (found.frames, found.true_cells, found.tracks, found.divisions) == (4, 2, 2, (0, 0, 0))
    assert found.iou == pytest.approx(20 / 24)
    assert dict(found.kinds) == {"matched": 1, "missed": 1, "spurious": 1}


def test_where_the_truth_is_unknown_nothing_is_spurious(tmp_path):
    findings = Findings(tmp_path / "out")
    result = mask((7, *A[1:]), (8, 16, 20, 19, 25))
    findings.add(video(tmp_path, seg={6: mask(A)}), 0, *still(result, 4))  # cell B has a marker, but no segmentation
    assert [(row.label, row.kind) for row in findings.cells] == [(7, "matched"), (8, "unknown")]
    findings.close()
    assert findings.videos[0].kinds["spurious"] == 0


def test_the_worst_frames_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WORST", 3)
    findings = Findings(tmp_path / "out")
    sequence = video(tmp_path, frames=5, seg=dict.fromkeys(range(5, 10), TRUTH))
    low = mask((1, 2, 2, 6, 6), B)  # all are found, one of them badly
    results = [TRUTH.copy(), mask(A), low, mask(), TRUTH.copy()]
    findings.add(sequence, 0, results, {1: Track(1, 5, 9, 0), 2: Track(2, 5, 9, 0)})
    kept = [result.copy() for result in results]
    for result in results:
        result[:] = 0  # a method may use its arrays again
    worst = findings.worst.items()
    assert [candidate.number for _, candidate in worst] == [8, 6, 7]
    for (_, candidate), k in zip(worst, (3, 1, 2), strict=True):
        assert np.array_equal(candidate.labels, kept[k])


def test_a_video_in_parts_and_one_that_is_cut_short(tmp_path):
    findings = Findings(tmp_path / "out")
    labels, lineage = still(TRUTH, 4)
    first = video(tmp_path / "a", seg={8: TRUTH})
    findings.add(first, 0, [], {})  # results may lag behind
    findings.add(first, 0, labels[:3], lineage)
    findings.add(first, 3, labels[3:], lineage)
    findings.add(video(tmp_path / "b", name="02"), 0, labels[:2], {k: t._replace(end=6) for k, t in lineage.items()})
    findings.close()
    assert [(found.key, found.frames) for found in findings.videos] == [("01", 4), ("02", 2)]
    assert len(findings.cells) == 2


def test_looping_pictures_and_lineages_of_the_first_videos(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PICTURED", 2)
    findings = Findings(tmp_path / "out")
    for k, name in enumerate(("01", "../<b>", "03")):
        findings.add(video(tmp_path / str(k), name), 0, *still(TRUTH, 4))
    findings.close()
    assert [found.key for found in findings.videos] == ["01", "__b_", "03"]
    files = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert files == ["lineage/01.png", "lineage/__b_.png", "tracks/01.gif", "tracks/__b_.gif"]
    assert [found.animation is None for found in findings.videos] == [False, False, True]
    with Image.open(tmp_path / "out/tracks/01.gif") as picture:
        assert (picture.n_frames, picture.size) == (4, (300, 200))


def test_two_videos_of_one_name_are_told_apart(tmp_path):
    findings = Findings(tmp_path / "out")
    for k in range(3):
        findings.add(video(tmp_path / str(k), seg={5: TRUTH}), 0, *still(TRUTH, 4))
    findings.close()
    assert [found.key for found in findings.videos] == ["01", "01_2", "01_3"]
    assert {row.video for row in findings.cells} == {"01", "01_2", "01_3"}
    assert len(list((tmp_path / "out").rglob("*.gif"))) == 3


def test_still_images_have_no_looping_picture(tmp_path):
    findings = Findings(tmp_path / "out")
    findings.add(video(tmp_path, frames=1, seg={5: TRUTH}, markers=False), 0, *still(TRUTH, 1))
    findings.close()
    [found] = findings.videos
    assert (found.animation, found.lineage, found.divisions) == (None, None, None)
    assert not (tmp_path / "out").exists()
    assert len(findings.fixed.items()) == len(findings.worst.items()) == 1


def test_without_any_truth_there_is_still_something_to_show(tmp_path):
    findings = Findings(tmp_path / "out")
    findings.add(video(tmp_path, markers=False), 0, *still(TRUTH, 4))
    findings.close()
    assert (findings.cells, findings.worst.items(), findings.videos[0].divisions) == ([], [], None)
    assert len(findings.fixed.items()) == 4
    assert findings.videos[0].lineage is not None


def test_the_table_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_CELLS", 5)
    findings = Findings(tmp_path / "out")
    findings.add(video(tmp_path, seg=dict.fromkeys(range(5, 9), TRUTH)), 0, *still(TRUTH, 4))
    findings.close()
    assert [row.frame for row in findings.cells] == [5, 5, 6, 6]
    assert findings.cells_left_out == 4
    assert findings.videos[0].true_cells == 8
