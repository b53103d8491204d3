"""The cache of decoded videos, and the way of a video to a worker process."""

import multiprocessing
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from data_cases import ROWS, SIZE, complaint, make_video, markers

from lightning_cells.data import cache as cache_module
from lightning_cells.data.image_files import write_image
from lightning_cells.data.sequence import Sequence, open_sequence
from lightning_cells.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_video(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


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


def test_leftovers_of_a_killed_process_go(root: Path, cache: Path) -> None:
    open_sequence(root, "01", "zscore", cache=cache)
    (folder,) = entries(cache)
    folder.rename(folder.with_name(f".{folder.name}.tmp"))  # killed before its end
    (cache / f".{folder.name}.lock").write_text("999999999")
    open_sequence(root, "01", "zscore", cache=cache)
    assert entries(cache) == [folder]


def test_what_was_not_used_for_longest_makes_room(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {}
    for age, normalisation in ((300, "zscore"), (200, "percentile"), (100, "signal")):
        before = set(entries(cache)) if cache.exists() else set()
        open_sequence(root, "01", normalisation, cache=cache)
        (made[normalisation],) = set(entries(cache)) - before
        os.utime(made[normalisation], (age, age))  # seconds since 1970
    open_sequence(root, "01", "zscore", cache=cache)  # is used again
    size = sum(path.stat().st_size for path in made["zscore"].iterdir())
    monkeypatch.setenv("LIGHTNING_CELLS_CACHE_GB", str(2.5 * size / 1e9))
    (cache / "embeddings").mkdir()
    kept = open_sequence(root, "01", "zscore", cache=cache)
    open_sequence(root, "01", "log_zscore", cache=cache)
    assert [name for name, path in made.items() if path.exists()] == ["zscore"]
    assert (cache / "digests").exists()
    assert (cache / "embeddings").exists()
    monkeypatch.setenv("LIGHTNING_CELLS_CACHE_GB", "1e-9")
    open_sequence(root, "01", "signal", cache=cache)
    assert made["zscore"].exists(), "it is open here"
    assert kept.frames.shape[0] == len(kept)
    monkeypatch.setenv("LIGHTNING_CELLS_CACHE_GB", "much")
    with pytest.raises(InputError, match="LIGHTNING_CELLS_CACHE_GB=much: must be a number"):
        open_sequence(root, "01", "percentile", cache=cache)


@pytest.mark.parametrize("name", ["01/t004.tif", "01_GT/TRA/man_track.txt"])
def test_a_pipe_is_not_waited_for(root: Path, cache: Path, name: str) -> None:
    (root / name).unlink()
    os.mkfifo(root / name)
    with pytest.raises(InputError, match=r"is no regular file|there is no such file"):
        open_sequence(root, "01", "zscore", cache=cache)


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
    results = [queue.get(timeout=300) for _ in processes]
    for process in processes:
        process.join(30)
    sequence = open_sequence(root, "01", "zscore", cache=tmp_path / "alone")
    alone = (float(sequence.frames.astype(float).sum()), int(sequence.labels.sum()), sequence.fingerprint)
    assert results == [alone] * 3
    assert len(entries(cache)) == 1


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
    results = queue.get(timeout=300)
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
