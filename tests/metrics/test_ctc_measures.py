"""CTC counts against py-ctcmetrics, hand-counted graphs and plain loops."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from ctc_metrics.scripts.evaluate import match_computed_to_reference_masks
from ctc_metrics.utils.representations import count_acyclic_graph_correction_operations
from random_videos import compare, draw_truth, oracle, ours, spoil, tidy, write_video

from lightning_cells.data.tracks import Track
from lightning_cells.metrics.ctc_measures import CTCCounts, CTCMatcher, CTCMeasures


@pytest.mark.parametrize("group", range(8))
def test_random_videos_equal_py_ctcmetrics(group, tmp_path):
    compared = 0
    for seed in range(group * 20, group * 20 + 20):
        rng = np.random.default_rng(seed)
        truth, truth_lineage = tidy(draw_truth(rng), rng)
        result, result_lineage = tidy(spoil(truth, rng), rng)
        frames = np.flatnonzero(rng.random(len(truth)) < 0.6)
        seg = {int(t): np.roll(truth[t], 1, 1) for t in frames}
        if not truth_lineage or not result_lineage:
            continue  # py-ctcmetrics stops at an empty table
        counts = ours(truth, truth_lineage, seg, result, result_lineage)
        expected = oracle(tmp_path / str(seed), truth, truth_lineage, seg, result, result_lineage)
        if not expected:
            assert math.isnan(counts.LNK)  # py-ctcmetrics divides by the number of edges, zero
            continue
        assert expected["Valid"] == 1
        compare(counts, expected)
        compared += 1
    assert compared >= 12


@pytest.mark.parametrize("seed", range(6))
def test_truth_without_rows_and_result_without_parents_equal_py_ctcmetrics(seed, tmp_path):
    rng = np.random.default_rng(1000 + seed)
    truth, _ = tidy(draw_truth(rng), rng)
    result, lineage = tidy(spoil(truth, rng), rng)
    lineage = {label: track._replace(parent=0) for label, track in lineage.items()}
    write_video(tmp_path / "truth", "man_track", truth, {}, "man_track.txt")
    write_video(tmp_path / "result", "mask", result, lineage, "res_track.txt")
    paths = [sorted((tmp_path / name).glob("*.tif")) for name in ("truth", "result")]
    found = match_computed_to_reference_masks(*paths, threads=1)
    graph = [found[key] for key in ("labels_ref", "labels_comp", "mapped_ref", "mapped_comp")]
    rows = np.array([tuple(track) for track in lineage.values()]).reshape(-1, 4)
    expected = count_acyclic_graph_correction_operations(np.zeros((0, 4), int), rows, *graph)
    counts = ours(truth, {}, {}, result, lineage)
    for name in ("NS", "FN", "FP", "ED", "EA", "EC"):
        assert getattr(counts, name.lower()) == expected[name], name
    assert (counts.vertices, counts.edges) == (expected["num_vertices"], expected["num_edges"])


def row(*labels: int) -> np.ndarray:
    """A mask of one row, three pixels per given label."""
    return np.repeat(np.array(labels, np.int32), 3)[None]


def test_hand_counted_graph():
    # Truth: 1 divides into 2 and 3; 4 is alone. Result: 7 = 1, then 8 = 2 with parent, 3 is missed at first
    # and found as 9 without a parent; 5 is spurious; 4 and 3 are merged in frame 3.
    truth = [row(1, 0, 4, 0), row(2, 3, 4, 0), row(2, 3, 4, 0), row(2, 3, 4, 0)]
    truth_lineage = {1: Track(1, 0, 0, 0), 2: Track(2, 1, 3, 1), 3: Track(3, 1, 3, 1), 4: Track(4, 0, 3, 0)}
    result = [row(7, 0, 6, 5), row(8, 0, 6, 0), row(8, 9, 6, 0), row(8, 9, 9, 0)]
    rows = [(7, 0, 0, 0), (8, 1, 3, 7), (6, 0, 2, 0), (5, 0, 0, 0), (9, 2, 3, 0)]
    counts = ours(truth, truth_lineage, {}, result, {r[0]: Track(*r) for r in rows})
    # Edges: 2 links of each daughter, 3 of cell 4, 2 parent links. Found: 2 of cell 2, 2 of 4, 1 parent.
    # The division is missed, and there is no other.
    operations = {"ns": 1, "fn": 1, "fp": 1, "ed": 0, "ea": 4, "ec": 0}
    assert counts == CTCCounts(**operations, vertices=11, edges=9, tra_frames=4, linked_frames=4, divisions=1)
    assert pytest.approx(1 - (5 + 10 + 1) / 110) == counts.DET
    assert pytest.approx(1 - (16 + 1.5 * 4) / (110 + 1.5 * 9)) == counts.TRA
    assert pytest.approx(1 - 4 / 9) == counts.LNK


def test_wrong_kind_of_edge_and_edge_to_delete():
    truth = [row(1, 2), row(1, 2), row(1, 2)]
    lineage = {1: Track(1, 0, 2, 0), 2: Track(2, 0, 2, 0)}
    result = [
        row(5, 6),
        row(7, 8),
        row(8, 7),
    ]  # a parent link instead of a track link, then two swapped cells
    rows = [(5, 0, 0, 0), (6, 0, 0, 0), (7, 1, 2, 5), (8, 1, 2, 0)]
    counts = ours(truth, lineage, {}, result, {r[0]: Track(*r) for r in rows})
    assert (counts.ed, counts.ea, counts.ec) == (2, 3, 1)
    assert counts.LNK == 0  # an operation can cost more than its edge, the measure stays at zero


def test_frames_in_any_order():
    rng = np.random.default_rng(5)
    truth, truth_lineage = tidy(draw_truth(rng), rng)
    result, lineage = tidy(spoil(truth, rng), rng)
    matcher = CTCMatcher()
    for t in rng.permutation(len(truth)).tolist():
        matcher.update(t, result[t], None, truth[t])
    assert matcher.compute(lineage, truth_lineage) == ours(truth, truth_lineage, {}, result, lineage)


def test_perfect_and_empty_results():
    rng = np.random.default_rng(3)
    truth, lineage = tidy(draw_truth(rng), rng)
    seg = dict(enumerate(truth))
    perfect = ours(truth, lineage, seg, truth, lineage)
    assert perfect.edges > 0
    assert all(perfect.values()[name] == 1 for name in ("SEG", "DET", "TRA", "LNK", "OP_CSB", "OP_CTB"))
    empty = ours(truth, lineage, seg, np.zeros_like(truth), {})
    assert all(empty.values()[name] == 0 for name in ("SEG", "DET", "TRA", "LNK", "OP_CSB", "OP_CTB"))
    assert empty.fn == sum(len(np.unique(mask)) - 1 for mask in truth)
    nothing = ours(np.zeros_like(truth), {}, {}, np.zeros_like(truth), {})
    assert math.isnan(nothing.TRA)
    assert nothing.values()["FP"] == 0


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_torchmetrics_states_merge_like_processes():
    rng = np.random.default_rng(0)
    videos = [CTCCounts(float(rng.random() * 50), 60, *map(int, rng.integers(1, 9, 6)), 70, 65, 9, 9) for _ in range(5)]
    whole, left, right = CTCMeasures(), CTCMeasures(), CTCMeasures()
    for k, counts in enumerate(videos):
        whole.update(counts)
        (left, right)[k % 2].update(counts)
    # What torchmetrics does over processes: gather every state, then reduce it.
    for name, reduce in left._reductions.items():
        setattr(left, name, reduce(torch.stack([getattr(left, name), getattr(right, name)])))
    assert left.counts() == whole.counts()
    expected = sum(videos, CTCCounts())
    assert pytest.approx(expected.SEG, abs=1e-11) == whole.counts().SEG
    values = left.compute()
    assert list(values) == list(expected.values())
    for name, value in values.items():
        assert value.dtype == torch.float32
        assert float(value) == pytest.approx(expected.values()[name], abs=1e-6)
    left.reset()
    assert left.counts() == CTCCounts()
    assert all(math.isnan(value) for value in left.compute().values())
    assert float(CTCMeasures()(videos[0])["TRA"]) == pytest.approx(videos[0].TRA, abs=1e-6)


PROCESS = """
import json, sys
import torch.distributed as dist
from lightning_cells.metrics.ctc_measures import CTCCounts, CTCMeasures
rank, meeting = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
metric = CTCMeasures()
if rank == 0:  # the other process has no video at all
    metric.update(CTCCounts(1.25, 2, 1, 2, 3, 4, 5, 6, 20, 10, 3, 3))
print(json.dumps({name: float(value) for name, value in metric.compute().items()}))
dist.destroy_process_group()
"""


def test_two_processes_give_the_same(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", PROCESS]
    processes = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "meeting")], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=300)[0] for process in processes]
    expected = CTCCounts(1.25, 2, 1, 2, 3, 4, 5, 6, 20, 10, 3, 3).values()
    for text in printed:
        assert json.loads(text.splitlines()[-1]) == pytest.approx(expected, abs=1e-6)
