"""Evaluation of result folders."""

import math
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
from ctc_metrics.scripts.evaluate import evaluate_sequence
from random_videos import told

from lightning_cells.errors import InputError
from lightning_cells.metrics.evaluate import evaluate

# Frames 0 to 7. Cell 1 divides into 2 and 3, cell 4 stays; the result loses 4 once and gives it a new label.
TRUTH_ROWS = [(1, 0, 3, 0), (2, 4, 7, 1), (3, 4, 7, 1), (4, 0, 7, 0)]
RESULT_ROWS = [(11, 0, 3, 0), (2, 4, 7, 11), (13, 4, 7, 0), (4, 0, 4, 0), (5, 6, 7, 4), (9, 2, 2, 0)]
PLACES = {1: (2, 2), 11: (2, 3), 2: (2, 2), 3: (10, 2), 13: (10, 3), 4: (2, 12), 5: (3, 12), 9: (14, 14)}


def draw(rows: list[tuple[int, int, int, int]], frame: int) -> np.ndarray:
    mask = np.zeros((20, 24), np.uint16)
    for label, begin, end, _ in rows:
        if begin <= frame <= end:
            y, x = PLACES[label]
            mask[y : y + 6, x : x + 5] = label
    return mask


def write_rows(path: Path, rows: list[tuple[int, int, int, int]]) -> None:
    path.write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A folder with 01_RES and 01_GT; SEG on frames 1 and 5 only."""
    for name in ("01_RES", "01_GT/SEG", "01_GT/TRA"):
        (tmp_path / name).mkdir(parents=True)
    for frame in range(8):
        truth = draw(TRUTH_ROWS, frame)
        tifffile.imwrite(tmp_path / f"01_GT/TRA/man_track{frame:03d}.tif", truth)
        tifffile.imwrite(tmp_path / f"01_RES/mask{frame:03d}.tif", draw(RESULT_ROWS, frame))
        if frame in (1, 5):
            tifffile.imwrite(tmp_path / f"01_GT/SEG/man_seg{frame:03d}.tif", truth)
    write_rows(tmp_path / "01_GT/TRA/man_track.txt", TRUTH_ROWS)
    write_rows(tmp_path / "01_RES/res_track.txt", RESULT_ROWS)
    return tmp_path


def oracle(root: Path) -> dict[str, float]:
    return evaluate_sequence(str(root / "01_RES"), str(root / "01_GT"), ["SEG", "DET", "TRA", "LNK"], threads=1)


def test_equals_py_ctcmetrics(video):
    counts, expected = evaluate(video / "01_RES", video / "01_GT"), oracle(video)
    for name in ("SEG", "DET", "TRA", "LNK", "OP_CSB", "OP_CTB"):
        if name in expected:
            assert getattr(counts, name) == pytest.approx(expected[name], abs=1e-12)
    # Missed: 4 in frame 5. Spurious: 9. Edges to add: 4-5, 5-6 of cell 4 and the parent link of 3; to delete: 4 -> 5.
    assert (counts.ns, counts.fn, counts.fp, counts.ed, counts.ea, counts.ec) == (0, 1, 1, 1, 3, 0)
    assert (counts.seg_cells, counts.vertices, counts.edges) == (5, 20, 18)


def test_frames_limit_both_and_may_be_all_the_result_has(video, tmp_path):
    whole = evaluate(video / "01_RES", video / "01_GT", frames=(1, 5))
    # The same frames renumbered from zero, for py-ctcmetrics.
    other = tmp_path / "other"
    shutil.copytree(video, other, ignore=lambda *_: {"other"})
    for folder, prefix in (("01_RES", "mask"), ("01_GT/TRA", "man_track"), ("01_GT/SEG", "man_seg")):
        for path in sorted((other / folder).glob("*.tif")):
            number = int(path.stem[-3:])
            path.rename(path.with_name(f"{prefix}{number - 1:03d}.tif")) if 1 <= number < 5 else path.unlink()
    write_rows(other / "01_GT/TRA/man_track.txt", [(1, 0, 2, 0), (2, 3, 3, 1), (3, 3, 3, 1), (4, 0, 3, 0)])
    write_rows(
        other / "01_RES/res_track.txt", [(11, 0, 2, 0), (2, 3, 3, 11), (13, 3, 3, 0), (4, 0, 3, 0), (9, 1, 1, 0)]
    )
    expected = oracle(other)
    for name in ("SEG", "DET", "TRA", "LNK"):
        assert getattr(whole, name) == pytest.approx(expected[name], abs=1e-12)
    assert (whole.seg_cells, whole.tra_frames) == (2, 4)
    for frame in (0, 5, 6, 7):
        (video / f"01_RES/mask{frame:03d}.tif").unlink()
    assert evaluate(video / "01_RES", video / "01_GT", frames=(1, 5)) == whole
    # Parents that end before the range are forgotten: the daughters are there from the start.
    assert evaluate(video / "01_RES", video / "01_GT", frames=(4, 5)).edges == 0


def test_parts_of_the_truth(video, tmp_path):
    whole = evaluate(video / "01_RES", video / "01_GT")
    for part in ("SEG", "TRA"):
        (tmp_path / part).mkdir()
        shutil.copytree(video / "01_GT" / part, tmp_path / part / part)
    seg = evaluate(video / "01_RES", tmp_path / "SEG")
    assert (seg.SEG, seg.tra_frames) == (whole.SEG, 0)
    assert math.isnan(seg.DET)
    tra = evaluate(video / "01_RES", tmp_path / "TRA")
    assert (tra.TRA, tra.DET, tra.LNK) == (whole.TRA, whole.DET, whole.LNK)
    assert math.isnan(tra.SEG)
    # The masks in the given folder itself.
    assert evaluate(video / "01_RES", video / "01_GT" / "SEG") == seg
    assert evaluate(video / "01_RES", video / "01_GT" / "TRA") == tra


def test_without_track_tables(video):
    whole = evaluate(video / "01_RES", video / "01_GT")
    (video / "01_RES/res_track.txt").unlink()
    counts = evaluate(video / "01_RES", video / "01_GT")
    assert (counts.SEG, counts.DET) == (whole.SEG, whole.DET)
    assert math.isnan(counts.TRA)
    assert math.isnan(counts.LNK)
    # Nor are masks of other frames needed, or read, when only SEG is measured.
    shutil.rmtree(video / "01_GT/TRA")
    for frame in (0, 3, 4, 6, 7):
        (video / f"01_RES/mask{frame:03d}.tif").unlink()
    (video / "01_RES/mask002.tif").write_bytes(b"broken")
    assert evaluate(video / "01_RES", video / "01_GT").SEG == whole.SEG


def test_four_digits_and_a_first_frame_other_than_zero(video):
    whole = evaluate(video / "01_RES", video / "01_GT")
    for path in list(video.rglob("*.tif")):  # renamed while walking
        stem, number = path.stem[:-3], int(path.stem[-3:]) + 20
        path.rename(path.with_name(f"{stem}{number:04d}.tif"))
    write_rows(video / "01_GT/TRA/man_track.txt", [(r[0], r[1] + 20, r[2] + 20, r[3]) for r in TRUTH_ROWS])
    write_rows(video / "01_RES/res_track.txt", [(r[0], r[1] + 20, r[2] + 20, r[3]) for r in RESULT_ROWS])
    assert evaluate(video / "01_RES", video / "01_GT") == whole


def result_without_cells(video: Path) -> None:
    for path in (video / "01_RES").glob("*.tif"):
        tifffile.imwrite(path, np.zeros((20, 24), np.uint16))
    (video / "01_RES/res_track.txt").write_text("")


def test_result_without_cells(video):
    result_without_cells(video)
    counts = evaluate(video / "01_RES", video / "01_GT")
    assert (counts.SEG, counts.DET, counts.TRA, counts.LNK) == (0, 0, 0, 0)
    assert (counts.fn, counts.fp, counts.ea) == (20, 0, 18)


def remove(name):
    return lambda video: (video / name).unlink()


def rows(table):
    return lambda video: write_rows(video / "01_RES/res_track.txt", table)


def paint(name, value, shape=(20, 24)):
    return lambda video: tifffile.imwrite(video / name, np.full(shape, value, np.uint16))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove("01_RES/mask003.tif"), "01_RES: has 7 masks but none of frame 3"),
        (remove("01_GT/TRA/man_track007.tif"), "01_RES/mask007.tif: "),
        (lambda video: (video / "01_RES/mask000.tif").rename(video / "01_RES/mask008.tif"), "none of frame 0"),
        (lambda video: shutil.rmtree(video / "01_RES"), "01_RES: "),
        (lambda video: shutil.rmtree(video / "01_GT"), "01_GT: there is no such folder"),
        (lambda video: [path.unlink() for path in video.glob("01_GT/*/*.tif")], "01_GT: holds no man_seg"),
        (paint("01_RES/mask002.tif", 0, (20, 23)), "01_RES/mask002.tif: is 20 x 23 pixels but "),
        (paint("01_RES/mask002.tif", 77), "01_RES: label 77 in the mask of frame 2 has no row"),
        (paint("01_RES/mask002.tif", 0), "01_RES: label 4 is missing in the mask of frame 2"),
        (rows([*RESULT_ROWS, (8, 1, 1, 0)]), "01_RES: track 8 has a row but is in no mask"),
        (rows([*RESULT_ROWS[:5], (9, 2, 2, 99)]), "01_RES/res_track.txt, line 6: parent 99"),
        (rows([*RESULT_ROWS[:5], (9, 2, 2, 4)]), "01_RES/res_track.txt, line 6: parent 4 ends in frame 4"),
        (rows([*RESULT_ROWS[:5], (9, 2, 9, 0)]), "01_RES: the row of track 9 says frames 2 to 9"),
        (rows([*RESULT_ROWS[:4], (5, 7, 7, 4), (9, 2, 2, 0)]), "01_RES: label 5 is in the mask of frame 6, outside"),
    ],
)
def test_mistakes_are_told_in_one_line(video, spoil, message):
    spoil(video)
    assert message in told(video)


def test_bad_ranges(video):
    with pytest.raises(InputError, match="frames 3 to 3: the range is empty"):
        evaluate(video / "01_RES", video / "01_GT", frames=(3, 3))
    with pytest.raises(InputError, match="in frames 20 to 29"):
        evaluate(video / "01_RES", video / "01_GT", frames=(20, 30))


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path):
    mask = np.zeros((256, 256), np.uint16)
    mask[50:200, 50:200] = 1
    peaks = []
    for count in (3, 30):
        root = tmp_path / str(count)
        for name in ("01_RES", "01_GT/TRA"):
            (root / name).mkdir(parents=True)
        for frame in range(count):
            tifffile.imwrite(root / f"01_RES/mask{frame:03d}.tif", mask)
            tifffile.imwrite(root / f"01_GT/TRA/man_track{frame:03d}.tif", mask)
        for name in ("01_RES/res_track.txt", "01_GT/TRA/man_track.txt"):
            write_rows(root / name, [(1, 0, count - 1, 0)])
        tracemalloc.start()
        assert evaluate(root / "01_RES", root / "01_GT").TRA == 1
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 2 * mask.nbytes  # of 27 more frames, each with two such masks


def published() -> Path:
    root = os.environ.get("LIGHTNING_CELLS_DATA")
    folder = Path(root or ".") / "ctc-evaluation-testing-dataset"
    if not root or not folder.is_dir():
        pytest.skip("needs the challenge's evaluation testing data set under $LIGHTNING_CELLS_DATA")
    return folder


def test_published_value_of_seg():
    folder = published()
    counts = evaluate(folder / "01_RES", folder / "01_GT")
    assert counts.seg_cells == 121
    assert f"{counts.SEG:.6f}" == "0.232874"
    assert math.isnan(counts.TRA)


def test_published_values_of_tra_and_det():
    folder = published()
    counts = evaluate(folder / "03_RES", folder / "03_GT")
    assert f"{counts.TRA:.6f}" == "0.622980"
    assert f"{counts.DET:.6f}" == "0.688000"
    assert math.isnan(counts.SEG)
    log = (folder / "03_RES" / "TRA_log.txt").read_text()
    blocks = [len(block.strip().splitlines()) for block in log.split("==")[0].split("----------")[2::2]]
    assert [counts.ns, counts.fn, counts.fp, counts.ed, counts.ea, counts.ec] == blocks
