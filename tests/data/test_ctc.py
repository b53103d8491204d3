"""Layout of the Cell Tracking Challenge, and the merging of its two kinds of truth."""

from pathlib import Path

import numpy as np
import pytest
from data_cases import complaint, mask, touch

from lightning_cells.data.ctc import find_sequence, frame_paths, merge_identities, sequence_names


def test_frames_are_found_by_number(tmp_path: Path) -> None:
    touch(tmp_path, "t1000.tif", "t998.tif", "t999.TIF", "notes.txt", "t12.tif", "mask000.tif", "xt001.tif")
    assert [(k, p.name) for k, p in frame_paths(tmp_path).items()] == [
        (998, "t998.tif"),
        (999, "t999.TIF"),
        (1000, "t1000.tif"),
    ]


def test_masks_may_be_sparse(tmp_path: Path) -> None:
    touch(tmp_path, "man_seg010.tif", "man_seg002.tif", "man_track.txt")
    assert list(frame_paths(tmp_path, "man_seg")) == [2, 10]


@pytest.mark.parametrize(
    ("names", "prefix", "words"),
    [
        ([], "t", ["no images", "t000.tif"]),
        (["t000.tif", "t002.tif"], "t", ["frame 1 is missing"]),
        (["t000.tif", "t0000.tif"], "t", ["frame 0", "t000.tif", "t0000.tif"]),
        (["man_seg_000_001.tif"], "man_seg", ["has no images"]),
    ],
)
def test_bad_folders(tmp_path: Path, names: list[str], prefix: str, words: list[str]) -> None:
    touch(tmp_path, *names)
    complaint(lambda: frame_paths(tmp_path, prefix), tmp_path, *words)


def test_missing_folders(tmp_path: Path) -> None:
    complaint(lambda: frame_paths(tmp_path / "01"), tmp_path / "01")
    complaint(lambda: sequence_names(tmp_path / "gone"), tmp_path / "gone")


def test_sequence_names(tmp_path: Path) -> None:
    for name in ("02", "01", "010", "01_GT", "1", "notes"):
        touch(tmp_path / name, "t000.tif")
    touch(tmp_path / "03", "mask000.tif")
    assert sequence_names(tmp_path) == ["01", "010", "02"]


def test_find_sequence(tmp_path: Path) -> None:
    touch(tmp_path / "01", "t0005.tif", "t0006.tif")
    assert find_sequence(tmp_path, "01").seg == {}
    touch(tmp_path / "01_GT" / "SEG", "man_seg0006.tif")
    touch(tmp_path / "01_GT" / "TRA", "man_track0005.tif", "man_track0006.tif", "man_track.txt")
    touch(tmp_path / "01_GT" / "SEM", "man_sem0005.tif")
    touch(tmp_path / "01_ST" / "SEG", "man_seg0005.tif", "man_seg0006.tif")
    gold, silver = find_sequence(tmp_path, "01"), find_sequence(tmp_path, "01", "silver")
    assert (list(gold.frames), list(gold.seg), list(gold.tra), list(gold.classes)) == (
        [5, 6],
        [6],
        [5, 6],
        [5],
    )
    assert gold.digits == 4
    assert gold.tracks == tmp_path / "01_GT" / "TRA" / "man_track.txt"
    assert silver.seg[5] == tmp_path / "01_ST" / "SEG" / "man_seg0005.tif"
    assert silver.tra == gold.tra


def test_contradictory_truth(tmp_path: Path) -> None:
    touch(tmp_path / "01", "t000.tif")
    complaint(lambda: find_sequence(tmp_path, "01", "silver"), "01_ST")
    tra = touch(tmp_path / "01_GT" / "TRA", "man_track000.tif")
    complaint(lambda: find_sequence(tmp_path, "01"), "man_track.txt")
    (tra / "man_track.txt").touch()
    seg = touch(tmp_path / "01_GT" / "SEG", "man_seg001.tif")
    complaint(lambda: find_sequence(tmp_path, "01"), seg / "man_seg001.tif", "no frame 1")
    (seg / "man_seg001.tif").unlink()
    assert find_sequence(tmp_path, "01").seg == {}
    (tra / "man_track000.tif").unlink()
    complaint(lambda: find_sequence(tmp_path, "01"), tra, "no man_track000.tif")


def test_markers_alone() -> None:
    np.testing.assert_array_equal(merge_identities(mask("..1.", "3..."), None), [[-1, -1, -2, -1], [-4, -1, -1, -1]])


def test_cells_alone_keep_their_ids() -> None:
    merged = merge_identities(None, mask("..1.", "3..."))
    assert merged.dtype == np.int32
    np.testing.assert_array_equal(merged, mask("..1.", "3..."))


def test_complete_frame() -> None:
    tra, seg = mask(".5....", ".....7"), mask("222...", "....11")
    np.testing.assert_array_equal(merge_identities(tra, seg), [[5, 5, 5, 0, 0, 0], [0, 0, 0, 0, 7, 7]])


def test_partial_frame_has_no_background() -> None:
    tra, seg = mask(".5....", ".....7"), mask("222...", "......")
    np.testing.assert_array_equal(merge_identities(tra, seg), [[5, 5, 5, -1, -1, -1], [-1, -1, -1, -1, -1, -8]])


def test_the_larger_overlap_names_a_cell() -> None:
    # marker 5 lies in the cell as well, so nothing is missing
    np.testing.assert_array_equal(merge_identities(mask(".566.."), mask("2222..")), [[6, 6, 6, 6, 0, 0]])


def test_marker_beyond_its_cell_is_unknown() -> None:
    np.testing.assert_array_equal(merge_identities(mask(".5555."), mask("222...")), [[5, 5, 5, -1, -1, 0]])


def test_two_cells_on_one_marker() -> None:
    tra, seg = mask("555555.."), mask("1122223.")
    np.testing.assert_array_equal(merge_identities(tra, seg), [[6, 6, 5, 5, 5, 5, 7, 0]])
    np.testing.assert_array_equal(merge_identities(tra, seg, 40), [[40, 40, 5, 5, 5, 5, 41, 0]])


def test_a_grazed_marker_is_not_covered() -> None:
    # the cell of marker 5 reaches one of three pixels of marker 7, whose own cell was not drawn
    np.testing.assert_array_equal(merge_identities(mask("55.777."), mask("2222...")), [[5, 5, 5, 5, -8, -8, -1]])


def test_empty_masks() -> None:
    nothing = mask("....")
    np.testing.assert_array_equal(merge_identities(nothing, nothing), [[0, 0, 0, 0]])
    np.testing.assert_array_equal(merge_identities(nothing, None), [[-1, -1, -1, -1]])
    np.testing.assert_array_equal(merge_identities(mask(".3.."), nothing), [[-1, -4, -1, -1]])
    np.testing.assert_array_equal(merge_identities(nothing, mask(".3..")), [[0, 4, 0, 0]])


def test_merge_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="neither"):
        merge_identities(None, None)
    with pytest.raises(ValueError, match="shape"):
        merge_identities(mask("..."), mask(".."))


def test_merge_agrees_with_loops() -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        tra = np.kron(rng.integers(0, 6, (4, 4)) * (rng.random((4, 4)) < 0.7), np.ones((3, 3))).astype(np.uint16)
        seg = np.roll(np.kron(rng.integers(0, 6, (4, 4)), np.ones((3, 3))), 1, axis=1).astype(np.uint16)
        merged = merge_identities(tra, seg, 100)
        taken: dict[int, int] = {}
        for cell in np.unique(seg[seg > 0]):
            (value,) = np.unique(merged[seg == cell])  # one id throughout the cell
            best = max(((tra == m) & (seg == cell)).sum() for m in range(1, 7))
            if value < 100:
                assert ((tra == value) & (seg == cell)).sum() == best > 0
            assert value not in taken  # and no other cell has it
            taken[int(value)] = int(cell)
        for marker in np.unique(tra[tra > 0]):
            claims = [int(((tra == marker) & (seg == cell)).sum()) for cell in taken.values()]
            if int(marker) in taken:
                mine = int(((tra == marker) & (seg == taken[int(marker)])).sum())
                assert mine > 0
                assert mine <= max(claims)
                assert (merged[(tra == marker) & (seg == 0)] == -1).all()
            else:
                assert (merged[(tra == marker) & (seg == 0)] == -1 - int(marker)).all()
        missing = [
            m
            for m in np.unique(tra[tra > 0])
            if int(m) not in taken and 2 * (seg[tra == m] > 0).sum() <= (tra == m).sum()
        ]
        assert set(np.unique(merged[(tra == 0) & (seg == 0)])) <= ({-1} if missing else {0})
