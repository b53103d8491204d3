"""The measures of volumes: against py-ctcmetrics, with truth on single planes, and what does not fit."""

import json
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
from ctc_metrics.utils.representations import match as match_files
from random_videos import compare, draw_truth, oracle, ours, spoil, tidy, told, write_video

from lightning_cells.cli import main
from lightning_cells.data.simulate import simulate
from lightning_cells.data.tracks import Track
from lightning_cells.errors import Doubt, InputError
from lightning_cells.metrics.cells import frame_errors
from lightning_cells.metrics.evaluate import evaluate
from lightning_cells.metrics.matcher import CTCMatcher

SIZE = (6, 15, 17)
SLOW = [pytest.param(group, marks=pytest.mark.slow) for group in range(2, 26)]


def drawn(seed: int):
    rng = np.random.default_rng(seed)
    truth, truth_lineage = tidy(draw_truth(rng, SIZE), rng)
    result, result_lineage = tidy(spoil(truth, rng), rng)
    chosen = np.flatnonzero(rng.random(len(truth)) < 0.6)
    seg = {int(t): np.roll(truth[t], 1, int(rng.integers(3))) for t in chosen}
    return truth, truth_lineage, seg, result, result_lineage


@pytest.mark.parametrize("group", [0, 1, *SLOW])
def test_random_volumes_equal_py_ctcmetrics(group, tmp_path):
    compared = 0
    for seed in range(5000 + group * 20, 5000 + group * 20 + 20):
        video = drawn(seed)
        if not video[1] or not video[4]:
            continue  # py-ctcmetrics stops at an empty table
        counts = ours(*video)
        expected = oracle(tmp_path / str(seed), *video[:2], *video[2:])
        if not expected:
            assert math.isnan(counts.LNK)  # py-ctcmetrics divides by the number of edges, zero
            continue
        assert expected["Valid"] == 1
        compare(counts, expected)
        assert evaluate(tmp_path / f"{seed}/01_RES", tmp_path / f"{seed}/01_GT") == counts, "so do their files"
        compared += 1
    assert compared >= 12


def plane_files(folder: Path, planes: dict[int, dict[int, np.ndarray]]) -> None:
    (folder / "SEG").mkdir(parents=True)
    for t, masks in planes.items():
        for z, mask in masks.items():
            tifffile.imwrite(folder / "SEG" / f"man_seg_{t:03d}_{z:03d}.tif", mask)


@pytest.mark.parametrize("seed", range(6))
def test_truth_of_single_planes_equals_py_ctcmetrics_on_each_plane(seed, tmp_path):
    truth, truth_lineage, _, result, lineage = drawn(7000 + seed)
    rng = np.random.default_rng(seed)
    planes = {
        t: {z: np.roll(truth[t, z], 1, 0) for z in range(SIZE[0]) if rng.random() < 0.4} for t in range(len(truth))
    }
    write_video(tmp_path / "RES", "mask", result, lineage, "res_track.txt")
    write_video(tmp_path / "GT/TRA", "man_track", truth, truth_lineage, "man_track.txt")
    plane_files(tmp_path / "GT", planes)
    total, cells = 0.0, 0
    for t, masks in planes.items():
        for z in masks:
            tifffile.imwrite(tmp_path / "plane.tif", result[t, z])
            labels, _, _, _, ious = match_files(
                str(tmp_path / f"GT/SEG/man_seg_{t:03d}_{z:03d}.tif"), str(tmp_path / "plane.tif")
            )
            total, cells = total + sum(ious), cells + len(labels)
    counts = evaluate(tmp_path / "RES", tmp_path / "GT")
    assert counts.seg_cells == cells
    assert counts.seg_sum == pytest.approx(total, abs=1e-9)
    whole = ours(truth, truth_lineage, {}, result, lineage)
    assert (counts.DET, counts.TRA) == (whole.DET, whole.TRA) or math.isnan(whole.TRA)


def test_a_cell_counts_in_each_plane_by_itself():
    result = np.zeros((3, 4, 8), int)
    result[:2, :2, :4] = 5  # 8 pixels in planes 0 and 1
    seg = {0: np.where(result[0] > 0, 2, 0), 1: np.zeros((4, 8), int), 2: np.zeros((4, 8), int)}
    seg[1][:3, :4], seg[2][0, 0] = 2, 2
    matcher = CTCMatcher()
    matcher.update(0, result, seg, None)
    counts = matcher.compute(None, None)
    assert (counts.seg_cells, counts.seg_sum) == (3, pytest.approx(1 + 8 / 12))
    assert (matcher.detections.tp, matcher.detections.fp, matcher.detections.fn) == (2, 0, 1)


def test_the_truth_of_a_simulated_video_is_perfect(tmp_path):
    out = simulate(tmp_path / "out", sequences=1, frames=8, size=(64, 64), depth=8)
    result = tmp_path / "01_RES"
    result.mkdir()
    for path in (out / "01_GT/TRA").iterdir():
        path.rename(result / path.name.replace("man_track.txt", "res_track.txt").replace("man_track", "mask"))
    simulate(tmp_path / "again", sequences=1, frames=8, size=(64, 64), depth=8)
    counts = evaluate(result, tmp_path / "again/01_GT")
    assert (counts.SEG, counts.DET, counts.TRA, counts.LNK) == (1, 1, 1, 1)
    assert counts.divisions == counts.divisions_found


@pytest.mark.parametrize("seed", range(3))
def test_each_plane_by_itself_is_as_if_its_truth_were_alone(seed, tmp_path, capfd):
    """Labels that mean nothing from plane to plane, against a plain loop."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, (2, 3, 4, 5)).repeat(4, 2).repeat(4, 3).astype(np.uint16)
    result = np.where(rng.random(truth.shape) < 0.2, 0, truth)
    names = rng.permuted(np.tile(np.arange(1, 5), (6, 1)), axis=1).reshape(2, 3, 4)
    result = np.stack(
        [[np.append(0, n[:3])[p] for n, p in zip(m, v, strict=True)] for m, v in zip(names, result, strict=True)]
    )
    (tmp_path / "GT/SEG").mkdir(parents=True)
    (tmp_path / "RES").mkdir()
    expected = []
    for t in range(2):
        tifffile.imwrite(tmp_path / f"GT/SEG/man_seg{t:03d}.tif", truth[t], photometric="minisblack")
        tifffile.imwrite(tmp_path / f"RES/mask{t:03d}.tif", result[t].astype(np.uint16), photometric="minisblack")
        for z in range(3):
            for cell in set(truth[t, z].ravel()) - {0}:
                mine = truth[t, z] == cell
                ious = [
                    (mine & (result[t, z] == k)).sum() / (mine | (result[t, z] == k)).sum()
                    for k in range(1, 5)
                    if (mine & (result[t, z] == k)).sum() > mine.sum() / 2
                ]
                expected.append(max(ious, default=0))
    words = [str(tmp_path / "RES"), str(tmp_path / "GT"), "--json"]
    assert main(["evaluate", *words, "--planes"]) == 0
    measured = json.loads(capfd.readouterr().out)
    assert measured["SEG"] == pytest.approx(np.mean(expected))
    assert (measured["seg_cells"], measured["TRA"]) == (len(expected), None)
    assert measured["SEG"] - 0.1 > evaluate(tmp_path / "RES", tmp_path / "GT").SEG
    tifffile.imwrite(tmp_path / "GT/SEG/man_seg000.tif", truth[0, 0])
    tifffile.imwrite(tmp_path / "RES/mask000.tif", result[0, 0].astype(np.uint16))
    assert main(["evaluate", *words, "--planes"]) == 2
    assert "mask000.tif: is 16 x 20 pixels: --planes is for volumes" in capfd.readouterr().err


def test_errors_of_the_cells_of_a_volume():
    seg, result = np.zeros((2, 3, 4, 4), int)
    seg[:2, :2, :2], seg[2, 3, 3] = 1, 2
    result[:2, :2, :1], result[0, 3, 3] = 7, 8
    result[:2, :2, 1:2] = 7
    kinds = [(error.side, error.label, error.area, error.kind) for error in frame_errors(result, seg)]
    assert kinds == [
        ("truth", 1, 8, "matched"),
        ("truth", 2, 1, "missed"),
        ("result", 7, 8, "matched"),
        ("result", 8, 1, "spurious"),
    ]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Two frames of four planes, with one cell; SEG is that of plane 1 of frame 0."""
    mask = np.zeros((4, 10, 12), np.uint16)
    mask[1:3, 2:6, 2:6] = 3
    for folder, prefix, table in (("01_RES", "mask", "res_track.txt"), ("01_GT/TRA", "man_track", "man_track.txt")):
        write_video(tmp_path / folder, prefix, np.stack([mask, mask]), {3: Track(3, 0, 1, 0)}, table)
    plane_files(tmp_path / "01_GT", {0: {1: mask[1]}})
    return tmp_path


def paint(name, shape):
    return lambda video: tifffile.imwrite(video / name, np.zeros(shape, np.uint16), photometric="minisblack")


def test_planes_are_found_with_and_without_markers(video):
    counts = evaluate(video / "01_RES", video / "01_GT")
    assert (counts.SEG, counts.seg_cells, counts.TRA) == (1, 1, 1)
    (video / "01_RES/mask001.tif").unlink()
    (video / "01_RES/res_track.txt").unlink()
    assert evaluate(video / "01_RES", video / "01_GT/SEG").SEG == 1
    with pytest.raises(InputError, match="holds no man_segNNN"):
        evaluate(video / "01_RES", video / "01_GT/SEG", frames=(1, 2))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (paint("01_RES/mask000.tif", (10, 12)), "01_RES/mask000.tif: is 10 x 12 pixels but "),
        (paint("01_RES/mask000.tif", (10, 12)), "write all planes of each frame"),
        (paint("01_GT/TRA/man_track001.tif", (10, 12)), "mask001.tif: is a volume of 4 x 10 x 12 voxels but "),
        (
            paint("01_GT/TRA/man_track001.tif", (10, 12)),
            "is 10 x 12 pixels; give a truth of volumes, or of single planes",
        ),
        (paint("01_RES/mask001.tif", (3, 10, 12)), "write masks of the original frame size"),
        (
            paint("01_GT/SEG/man_seg_000_002.tif", (4, 10, 12)),
            "002.tif: is a volume of 4 x 10 x 12 voxels: give one plane",
        ),
        (paint("01_GT/SEG/man_seg_000_004.tif", (10, 12)), "has 4 planes but "),
        (paint("01_GT/SEG/man_seg_001_000.tif", (10, 11)), "is 10 x 11 pixels; write masks of the original"),
        (paint("01_GT/SEG/man_seg000.tif", (4, 10, 12)), "there are single planes of this frame, too"),
        (paint("01_GT/SEG/man_seg_002_000.tif", (10, 12)), "none of frame 2"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(video, spoil, message):
    spoil(video)
    assert message in told(video)


def test_images_beside_planes_of_a_volume(video):
    paint("01_RES/mask000.tif", (10, 12))(video)
    with pytest.raises(
        InputError, match=r"is 10 x 12 pixels but .*000_001.tif is a plane of a volume; write all planes"
    ):
        evaluate(video / "01_RES", video / "01_GT/SEG")


def test_frames_in_memory_that_do_not_fit():
    volume, image = np.ones((2, 3, 3), int), np.ones((3, 3), int)
    for seg, tra in ((image, None), (None, image)):
        with pytest.raises(
            InputError, match="result mask is 2 x 3 x 3 but the truth mask is 3 x 3: give masks of one size"
        ):
            CTCMatcher().update(0, volume, seg, tra)
    with pytest.raises(InputError, match="has 2 planes and no plane 2"):
        CTCMatcher().update(0, volume, {2: image}, None)
    with pytest.raises(InputError, match="the truth is that of plane 0 of a volume"):
        CTCMatcher().update(0, image, {0: image}, None)


def test_a_truth_of_one_label_in_pieces_is_doubted(video):
    mask = np.zeros((4, 10, 12), np.uint16)
    mask[0, :2, :2] = mask[3, 6:, 6:] = 3
    for t in range(2):
        tifffile.imwrite(video / f"01_GT/TRA/man_track{t:03d}.tif", mask, photometric="minisblack")
    with pytest.warns(Doubt, match="all cells have the one label 3"):
        evaluate(video / "01_RES", video / "01_GT")


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path):
    mask = np.zeros((16, 64, 64), np.uint16)
    mask[3:12, 10:50, 10:50] = 1
    peaks = []
    for count in (3, 30):
        lineage = {1: Track(1, 0, count - 1, 0)}
        for folder, prefix, table in (("01_RES", "mask", "res_track.txt"), ("01_GT/TRA", "man_track", "man_track.txt")):
            write_video(tmp_path / str(count) / folder, prefix, np.repeat(mask[None], count, 0), lineage, table)
        tracemalloc.start()
        assert evaluate(tmp_path / f"{count}/01_RES", tmp_path / f"{count}/01_GT").TRA == 1
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 2 * mask.nbytes  # of 27 more frames, each with two such masks
