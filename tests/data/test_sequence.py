"""Opening videos: what is in them, the cache, and the way to a worker process."""

import json
import multiprocessing
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from data_cases import complaint

from lightning_cells.data import cache as cache_module
from lightning_cells.data.ctc import Track, write_image
from lightning_cells.data.sequence import Sequence, open_sequence, rescale_labels

SIZE = (12, 16)
ROWS = "1 3 6 0\n2 3 4 0\n4 5 6 2\n"
CELLS = {1: (slice(1, 5), slice(1, 6)), 2: (slice(6, 11), slice(8, 14)), 4: (slice(7, 11), slice(9, 15))}


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


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Frames 3 to 6; frame 3 is segmented whole, frame 5 in part; classes of frame 4."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    gold = root / "01_GT"
    for number in range(3, 7):
        write_image(root / "01" / f"t{number:03d}.tif", rng.integers(0, 4000, SIZE).astype(np.uint16))
        write_image(gold / "TRA" / f"man_track{number:03d}.tif", markers(number))
    (gold / "TRA" / "man_track.txt").write_text(ROWS)
    write_image(gold / "SEG" / "man_seg003.tif", segmented(2, 1))
    write_image(gold / "SEG" / "man_seg005.tif", segmented(4))
    write_image(gold / "SEM" / "man_sem004.tif", (markers(4) > 1).astype(np.uint8) * 2)
    return root


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_content(root: Path, cache: Path) -> None:
    sequence = open_sequence(root, "01", "zscore", cache=cache)
    assert (sequence.name, len(sequence), sequence.numbers, sequence.size) == ("01", 4, (3, 4, 5, 6), SIZE)
    assert sequence.frames.dtype == np.float16
    for frame, number in zip(sequence.frames, sequence.numbers, strict=True):
        exact = tifffile.imread(root / "01" / f"t{number:03d}.tif").astype(float)
        np.testing.assert_allclose(frame, (exact - exact.mean()) / exact.std(), atol=2e-3)
    assert sequence.lineage == {1: Track(1, 3, 6, 0), 2: Track(2, 3, 4, 0), 4: Track(4, 5, 6, 2)}
    np.testing.assert_array_equal(sequence.annotated, [True, True, True, False])
    for array in (sequence.frames, sequence.labels, sequence.classes):
        assert array is not None
        assert not array.flags.writeable


def test_labels(root: Path, cache: Path) -> None:
    labels = open_sequence(root, "01", "zscore", cache=cache).labels
    assert labels is not None
    assert labels.dtype == np.int32
    whole = np.zeros(SIZE, int)
    whole[CELLS[1]], whole[CELLS[2]] = 1, 2
    np.testing.assert_array_equal(labels[0], whole)
    part = np.where(markers(5) == 1, -2, -1)
    part[CELLS[4]] = 4
    np.testing.assert_array_equal(labels[2], part)
    for index in (1, 3):
        np.testing.assert_array_equal(labels[index], -1 - markers(3 + index).astype(int))


def test_classes(root: Path, cache: Path) -> None:
    classes = open_sequence(root, "01", "zscore", cache=cache).classes
    assert classes is not None
    assert classes.dtype == np.int8
    np.testing.assert_array_equal(classes[1], (markers(4) > 1) * 2)
    assert (classes[[0, 2, 3]] == -1).all()


def test_no_truth(root: Path, cache: Path) -> None:
    shutil.rmtree(root / "01_GT")
    sequence = open_sequence(root, "01", "zscore", cache=cache)
    assert sequence.labels is None
    assert sequence.classes is None
    assert sequence.lineage == {}
    assert not sequence.annotated.any()
    assert sequence.truth(0) == (None, None)


def test_silver_truth(root: Path, cache: Path) -> None:
    write_image(root / "01_ST" / "SEG" / "man_seg004.tif", segmented(1, 2))
    sequence = open_sequence(root, "01", "zscore", truth="silver", cache=cache)
    assert sequence.labels is not None
    assert [(frame > 0).any() for frame in sequence.labels] == [False, True, False, False]


def test_cells_beyond_the_tracks_live_in_one_frame(root: Path, cache: Path) -> None:
    for number in (3, 4):
        seg = segmented(1, 2)
        seg[0, 12:] = 30  # no marker there
        write_image(root / "01_GT" / "SEG" / f"man_seg{number:03d}.tif", seg)
    labels = open_sequence(root, "01", "zscore", cache=cache).labels
    assert labels is not None
    assert set(labels[0, 0, 12:]) == {5}
    assert set(labels[1, 0, 12:]) == {6}


def test_without_markers_no_cell_is_in_two_frames(root: Path, cache: Path) -> None:
    shutil.rmtree(root / "01_GT" / "TRA")
    sequence = open_sequence(root, "01", "zscore", cache=cache)
    assert sequence.labels is not None
    assert sequence.lineage == {}
    found = [set(np.unique(frame[frame > 0])) for frame in sequence.labels]
    assert [len(ids) for ids in found] == [2, 0, 1, 0]
    assert not found[0] & found[2]
    assert (sequence.labels[1] == -1).all()


def test_truth_is_as_on_disk(root: Path, cache: Path) -> None:
    sequence = open_sequence(root, "01", "zscore", 0.5, cache=cache)
    seg, tra = sequence.truth(2)
    np.testing.assert_array_equal(seg, segmented(4))
    np.testing.assert_array_equal(tra, markers(5))
    seg, tra = sequence.select(6, 7).truth(0)
    assert seg is None
    np.testing.assert_array_equal(tra, markers(6))


def test_scale(root: Path, cache: Path) -> None:
    full, half = (open_sequence(root, "01", "zscore", scale, cache=cache) for scale in (1.0, 0.5))
    assert half.frames.shape == (4, 6, 8)
    assert half.size == SIZE
    assert half.labels is not None
    assert full.labels is not None
    np.testing.assert_array_equal(half.labels, rescale_labels(full.labels, 0.5))
    exact = tifffile.imread(root / "01" / "t003.tif").astype(float).reshape(6, 2, 8, 2).mean((1, 3))
    np.testing.assert_allclose(half.frames[0], (exact - exact.mean()) / exact.std(), atol=2e-3)


def test_hot_pixels_stay_finite(root: Path, cache: Path) -> None:
    frame = np.full(SIZE, 10, np.uint16)
    frame[0, :3] = 11
    big = np.tile(frame, (20, 20))
    big[5, 5] = 65535
    shutil.rmtree(root / "01_GT")
    for number in range(3, 7):
        write_image(root / "01" / f"t{number:03d}.tif", big)
    assert np.isfinite(open_sequence(root, "01", "percentile", cache=cache).frames).all()


def test_select(root: Path, cache: Path) -> None:
    sequence = open_sequence(root, "01", "zscore", cache=cache)
    part = sequence.select(4, 6)
    assert part.numbers == (4, 5)
    np.testing.assert_array_equal(part.frames, sequence.frames[1:3])
    np.testing.assert_array_equal(part.labels, sequence.labels[1:3])
    np.testing.assert_array_equal(part.annotated, [True, True])
    assert part.lineage == {1: Track(1, 4, 5, 0), 2: Track(2, 4, 4, 0), 4: Track(4, 5, 5, 2)}
    assert part.select(5, 99).lineage == {1: Track(1, 5, 5, 0), 4: Track(4, 5, 5, 0)}
    assert np.shares_memory(part.frames, sequence.frames)
    complaint(lambda: part.select(6, 9), "01", "[6:9]", "4 to 5")


# --- cache


def entries(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.name != "digests")


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file was read")

    monkeypatch.setattr(tifffile, "TiffFile", refuse)
    monkeypatch.setattr(cache_module.hashlib, "file_digest", refuse)


def test_second_open_reads_no_pixels(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_sequence(root, "01", "zscore", cache=cache)
    forbid_reading(monkeypatch)
    second = open_sequence(root, "01", "zscore", cache=cache)
    assert_equal(first, second)


def test_each_file_is_decoded_once(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    original = tifffile.TiffFile

    def count(path: Path) -> tifffile.TiffFile:
        opened.append(path)
        return original(path)

    monkeypatch.setattr(tifffile, "TiffFile", count)
    open_sequence(root, "01", "zscore", cache=cache)
    assert sorted(opened) == sorted(root.rglob("*.tif"))


def assert_equal(a: Sequence, b: Sequence) -> None:
    assert (a.name, a.numbers, a.lineage, a.size, a.fingerprint) == (
        b.name,
        b.numbers,
        b.lineage,
        b.size,
        b.fingerprint,
    )
    for name in ("frames", "labels", "classes", "annotated"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_default_cache_is_under_home(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_CELLS_HOME", str(tmp_path / "home"))
    open_sequence(root, "01", "zscore")
    assert len(entries(tmp_path / "home" / "cache")) == 1


def test_options_do_not_share_an_entry(root: Path, cache: Path) -> None:
    a = open_sequence(root, "01", "zscore", cache=cache)
    b = open_sequence(root, "01", "percentile", cache=cache)
    c = open_sequence(root, "01", "zscore", 0.5, cache=cache)
    assert len(entries(cache)) == 3
    assert a.fingerprint == b.fingerprint == c.fingerprint


def test_a_moved_video_keeps_its_entry(
    root: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_sequence(root, "01", "zscore", cache=cache)
    shutil.copytree(root, tmp_path / "copy")
    monkeypatch.setattr(tifffile, "TiffFile", None)  # digests are read again, pixels are not
    second = open_sequence(tmp_path / "copy", "01", "zscore", cache=cache)
    assert second.fingerprint == first.fingerprint
    assert len(entries(cache)) == 1


@pytest.mark.parametrize("name", ["01/t004.tif", "01_GT/SEG/man_seg003.tif", "01_GT/TRA/man_track.txt"])
def test_a_changed_file_is_seen(root: Path, cache: Path, name: str) -> None:
    first = open_sequence(root, "01", "zscore", cache=cache)
    state = (root / name).stat()
    if name.endswith("txt"):
        (root / name).write_text(ROWS.replace("4 5 6 2", "4 5 6 1").replace("1 3 6 0", "1 3 4 0"))
        (root / "01_GT/TRA/man_track005.tif").write_bytes((root / "01_GT/TRA/man_track006.tif").read_bytes())
        for number in (5, 6):
            tra = markers(number)
            tra[tra == 1] = 0
            write_image(root / f"01_GT/TRA/man_track{number:03d}.tif", tra)
    else:
        pixels = tifffile.imread(root / name)
        tifffile.imwrite(root / name, np.flip(pixels), compression=None)
    os.utime(root / name, ns=(state.st_atime_ns, state.st_mtime_ns))
    second = open_sequence(root, "01", "zscore", cache=cache)
    assert first.fingerprint != second.fingerprint
    if name.endswith("txt"):
        assert second.lineage[4].parent == 1


def test_same_size_same_time_is_still_seen(root: Path, cache: Path) -> None:
    path = root / "01" / "t004.tif"
    tifffile.imwrite(path, np.arange(192, dtype=np.uint16).reshape(SIZE))
    before, state = open_sequence(root, "01", "zscore", cache=cache), path.stat()
    tifffile.imwrite(path, np.arange(192, dtype=np.uint16)[::-1].reshape(SIZE))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    after = open_sequence(root, "01", "zscore", cache=cache)
    np.testing.assert_array_equal(after.frames[1], before.frames[1][::-1, ::-1])


def break_entry(folder: Path, how: str) -> None:
    if how == "short":
        with (folder / "frames.bin").open("r+b") as file:
            file.truncate(100)
    elif how == "no array":
        (folder / "labels.bin").unlink()
    elif how == "no description":
        (folder / "entry.json").unlink()
    elif how == "torn description":
        (folder / "entry.json").write_text((folder / "entry.json").read_text()[:40])
    elif how == "foreign description":
        (folder / "entry.json").write_text("[1, 2]")
    elif how == "empty folder":
        shutil.rmtree(folder)
        folder.mkdir()


@pytest.mark.parametrize(
    "how", ["short", "no array", "no description", "torn description", "foreign description", "empty folder"]
)
def test_a_broken_entry_is_built_again(root: Path, cache: Path, how: str) -> None:
    first = open_sequence(root, "01", "zscore", cache=cache)
    expected = pickle.loads(pickle.dumps(replace(first, frames=np.array(first.frames))))
    del first
    (folder,) = entries(cache)
    break_entry(folder, how)
    again = open_sequence(root, "01", "zscore", cache=cache)
    np.testing.assert_array_equal(again.frames, expected.frames)
    assert entries(cache) == [folder]


def test_damaged_digests_are_made_again(root: Path, cache: Path) -> None:
    first = open_sequence(root, "01", "zscore", cache=cache)
    for path in (cache / "digests").iterdir():
        path.write_text("{")
    assert open_sequence(root, "01", "zscore", cache=cache).fingerprint == first.fingerprint


def test_a_failed_build_leaves_nothing(root: Path, cache: Path) -> None:
    path = root / "01" / "t006.tif"
    path.write_bytes(path.read_bytes()[:-9])
    complaint(lambda: open_sequence(root, "01", "zscore", cache=cache), path)
    assert entries(cache) == []


def test_leftovers_of_killed_processes_go_after_a_day(root: Path, cache: Path) -> None:
    for name, age in ((".old.1-a.tmp", 2 * 86400), (".new.2-b.tmp", 60)):
        (cache / name).mkdir(parents=True)
        then = (cache / name).stat().st_mtime - age
        os.utime(cache / name, (then, then))
    open_sequence(root, "01", "zscore", cache=cache)
    assert [path.name for path in entries(cache) if path.suffix == ".tmp"] == [".new.2-b.tmp"]


def test_files_that_change_while_decoded(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = tifffile.TiffFile

    def meddle(path: Path) -> tifffile.TiffFile:
        if Path(path).name == "t006.tif":
            os.utime(root / "01" / "t003.tif")
        return original(path)

    monkeypatch.setattr(tifffile, "TiffFile", meddle)
    complaint(lambda: open_sequence(root, "01", "zscore", cache=cache), "changed while")
    assert entries(cache) == []


def open_in_process(root: Path, cache: Path, barrier, queue) -> None:
    barrier.wait(30)
    sequence = open_sequence(root, "01", "zscore", cache=cache)
    queue.put((float(sequence.frames.astype(float).sum()), int(sequence.labels.sum()), sequence.fingerprint))


def test_processes_that_build_at_once(root: Path, cache: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(3), context.Queue()
    processes = [context.Process(target=open_in_process, args=(root, cache, barrier, queue)) for _ in range(3)]
    for process in processes:
        process.start()
    results = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(30)
    sequence = open_sequence(root, "01", "zscore", cache=tmp_path / "alone")
    alone = (float(sequence.frames.astype(float).sum()), int(sequence.labels.sum()), sequence.fingerprint)
    assert results == [alone] * 3
    assert len(entries(cache)) == 1


def test_the_loser_of_a_race_takes_the_winners_entry(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def late(source: Path, target: Path) -> None:
        if not Path(target).exists():  # another process is a moment earlier
            monkeypatch.setattr(os, "rename", rename)
            shutil.copytree(source, target)
            marker = json.loads((Path(target) / "entry.json").read_text())
            marker["description"][0]["annotated"] = [False] * 4
            (Path(target) / "entry.json").write_text(json.dumps(marker))
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    sequence = open_sequence(root, "01", "zscore", cache=cache)
    assert not sequence.annotated.any()
    assert len(entries(cache)) == 1


# --- on the way to a worker


def test_pickles_hold_no_pixels(root: Path, cache: Path) -> None:
    shutil.rmtree(root / "01_GT")
    for number in range(3, 7):
        write_image(root / "01" / f"t{number:03d}.tif", np.zeros((300, 400), np.uint8))
    sequence = open_sequence(root, "01", "zscore", cache=cache)
    assert sequence.frames.nbytes > 500_000
    assert len(pickle.dumps(sequence)) < 5000
    assert len(pickle.dumps(sequence.select(4, 6))) < 5000


def read_in_process(sequences: list[Sequence], queue) -> None:
    queue.put([(np.array(s.frames), np.array(s.labels), np.array(s.classes), s.numbers) for s in sequences])


def test_a_worker_sees_the_same(root: Path, cache: Path) -> None:
    whole = open_sequence(root, "01", "zscore", cache=cache)
    sequences = [whole, whole.select(4, 6), whole.select(4, 99).select(5, 6)]
    sequences.append(replace(whole, labels=np.ones((4, *SIZE), np.int32)))  # in memory
    sequences.append(replace(whole, frames=whole.frames[::-1], labels=whole.labels[:, ::2]))
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=read_in_process, args=(sequences, queue))
    process.start()
    results = queue.get(timeout=60)
    process.join(30)
    for s, (frames, labels, classes, numbers) in zip(sequences, results, strict=True):
        np.testing.assert_array_equal(s.frames, frames)
        np.testing.assert_array_equal(s.labels, labels)
        np.testing.assert_array_equal(s.classes, classes)
        assert s.numbers == numbers


def test_copies_share_one_map(root: Path, cache: Path) -> None:
    a, b = (open_sequence(root, "01", "zscore", cache=cache) for _ in range(2))
    assert np.shares_memory(a.frames, b.frames)
    assert np.shares_memory(pickle.loads(pickle.dumps(a.select(4, 6))).frames, b.frames)


def test_a_cache_that_is_gone(root: Path, cache: Path) -> None:
    sequence = open_sequence(root, "01", "zscore", cache=cache)
    state = pickle.dumps(sequence)
    shutil.rmtree(cache)
    complaint(lambda: pickle.loads(state), cache, "open the data again")


# --- contradictions


def test_frames_of_two_sizes(root: Path, cache: Path) -> None:
    write_image(root / "01" / "t005.tif", np.ones((12, 17), np.uint16))
    complaint(lambda: open_sequence(root, "01", "zscore", cache=cache), "t005.tif", "12x17", "12x16")


@pytest.mark.parametrize("name", ["SEG/man_seg003.tif", "TRA/man_track004.tif", "SEM/man_sem004.tif"])
def test_masks_of_another_size(root: Path, cache: Path, name: str) -> None:
    write_image(root / "01_GT" / name, np.zeros((16, 12), np.uint16))
    complaint(lambda: open_sequence(root, "01", "zscore", cache=cache), root / "01_GT" / name, "16x12", "12x16")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("1 3 6 0\n2 3 4 0\n", ["man_track005.tif", "label 4", "no row"]),
        ("1 3 6 0\n2 3 4 0\n4 6 6 2\n", ["man_track005.tif", "label 4", "frames 6 to 6"]),
        ("1 3 6 0\n2 3 4 x\n4 6 6 2\n", ["man_track.txt, line 2"]),
    ],
)
def test_markers_without_rows(root: Path, cache: Path, rows: str, words: list[str]) -> None:
    (root / "01_GT" / "TRA" / "man_track.txt").write_text(rows)
    complaint(lambda: open_sequence(root, "01", "zscore", cache=cache), *words)


def test_rows_beyond_the_video_are_clipped(root: Path, cache: Path) -> None:
    (root / "01_GT" / "TRA" / "man_track.txt").write_text("1 0 9 0\n2 3 4 0\n4 5 8 2\n7 7 9 0\n")
    sequence = open_sequence(root, "01", "zscore", cache=cache)
    assert sequence.lineage == {1: Track(1, 3, 6, 0), 2: Track(2, 3, 4, 0), 4: Track(4, 5, 6, 2)}


def test_too_many_classes(root: Path, cache: Path) -> None:
    write_image(root / "01_GT" / "SEM" / "man_sem004.tif", np.full(SIZE, 127, np.uint8))
    complaint(lambda: open_sequence(root, "01", "zscore", cache=cache), "man_sem004.tif", "127")


def test_bad_options_and_names(root: Path, cache: Path) -> None:
    complaint(lambda: open_sequence(root, "01", "minmax", cache=cache), "minmax")
    complaint(lambda: open_sequence(root, "01", "zscore", 0.0, cache=cache), "scale")
    complaint(lambda: open_sequence(root, "02", "zscore", cache=cache), root / "02")
    (root / "03").mkdir()
    complaint(lambda: open_sequence(root, "03", "zscore", cache=cache), root / "03", "no images")


def test_empty_masks_are_known_background(root: Path, cache: Path) -> None:
    write_image(root / "01_GT" / "TRA" / "man_track006.tif", np.zeros(SIZE, np.uint16))
    write_image(root / "01_GT" / "SEG" / "man_seg006.tif", np.zeros(SIZE, np.uint16))
    sequence = open_sequence(root, "01", "zscore", cache=cache)
    np.testing.assert_array_equal(sequence.labels[3], np.zeros(SIZE))
    assert sequence.annotated[3]
