"""Which files of a folder are frames, and in which order."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from data_cases import complaint

from lightning_cells.data.frames import open_frames
from lightning_cells.errors import Doubt

FRAME = np.arange(12, dtype=np.uint8).reshape(3, 4)


def make(folder: Path, *names: str) -> Path:
    """A folder of frames, of which each holds the place of its name among those given."""
    folder.mkdir(exist_ok=True)
    for value, name in enumerate(names):
        tifffile.imwrite(folder / name, np.full((3, 4), value, np.uint8))
    return folder


def order(folder: Path, **options) -> list[int]:
    with open_frames(folder, **options) as frames:
        return [int(frames.read(index)[0, 0]) for index in range(len(frames))]


@pytest.mark.parametrize(
    "names",
    [
        ["t000.tif", "t001.tif", "t002.tif"],
        ["T000.TIF", "t001.tif", "t002.Tiff"],
        ["t008.tif", "t009.tif", "t010.tif"],
        ["t999.tif", "t1000.tif", "t1001.tif"],
        ["img2.tif", "img6.tif", "img10.tif", "img14.tif"],
        ["Exp_20240101_c1_t8.tif", "exp_20240101_c1_t9.tif", "exp_20240101_c1_t10.tif"],
        ["9.tif", "10.tif", "11.tif"],
        ["img-9.tif", "img-10.tif", "img-11.tif"],  # a hyphen
        ["a 1 (8).tif", "a 1 (9).tif", "a 1 (10).tif"],
        ["frame_0.5h.tif", "frame_1.5h.tif", "frame_2.5h.tif"],
        ["mean_1.05.tif", "mean_1.15.tif", "mean_1.25.tif"],
        ["t5s.tif", "t10s.tif", "t15s.tif"],
        ["1700000000123.tif", "1700000001119.tif", "1700000002128.tif"],
        ["t0000.tif"],
        ["anything.tif"],
        ["1e5.tif", "2e5.tif", "3e5.tif"],
    ],
)
def test_one_number_tells_frames_apart(names: list[str], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / "._t000.tif").write_text("no frame either")
    assert order(make(tmp_path, *names)) == list(range(len(names)))


TEN = [f"t{t:03d}.tif" for t in range(10)]


@pytest.mark.parametrize(
    ("names", "pattern", "expected"),
    [
        ([*TEN, *(f"t{t:03d}_cp_masks.tif" for t in range(10))], "t{t}.tif", 10),
        ([*TEN, *(f"mask{t:03d}.tif" for t in range(10))], "t{t}.tif", 10),
        ([*TEN, "AVG_stack.tif"], "t{t}.tif", 10),
        ([*TEN, "MAX_t000.tif"], "t{t}.tif", 10),
        ([*TEN, "t005 (1).tif"], "t{t}.tif", 10),
        ([f"img_t{t:03d}_c{c}.tif" for t in range(6) for c in range(2)], "img_t{t}_c0.tif", 6),
        ([f"img_c{c}_t{t}.tif" for t in range(12) for c in range(3)], "img_c0_t{t}.tif", 12),
        ([f"p{p}_t{t}.tif" for t in range(6) for p in range(4)], "p0_t{t}.tif", 6),
        (["frame_0.5h.tif", "frame_1.25h.tif", "frame_1.5h.tif", "frame_10.0h.tif"], "frame_{t}h.tif", 4),
        (["frame_-10h.tif", "frame_-5h.tif", "frame_0h.tif", "frame_5h.tif"], "frame_{t}h.tif", 4),
        (["img-10.tif", "img-5.tif", "img0.tif", "img5.tif"], "img{t}.tif", 4),
        (["a_0001_000s.tif", "a_0002_010s.tif", "a_0003_020s.tif"], "a_{t}_000s.tif", 1),
    ],
)
def test_anything_else_is_refused_and_the_remedy_works(
    names: list[str], pattern: str, expected: int, tmp_path: Path
) -> None:
    make(tmp_path, *names)
    said = complaint(
        lambda: order(tmp_path), tmp_path, "differ in more than one number", f"--pattern, such as '{pattern}'"
    )
    assert sum(name in said for name in names) >= 2
    found = order(tmp_path, pattern=pattern)
    assert len(found) == expected
    assert found == sorted(found)


def test_what_a_pattern_may_say(tmp_path: Path) -> None:
    make(tmp_path, *(f"a_{t:04d}_{10 * t:03d}s.tif" for t in range(5)))
    for pattern in ("a_{t}_*.tif", "A_{t}_*s", "a_*_{t}s.tif", "*{t}s.tif", "a_{t}*"):
        assert order(tmp_path, pattern=pattern) == list(range(5))
    complaint(lambda: order(tmp_path, pattern="b_{t}.tif"), "--pattern", "a_0000_000s.tif")
    for pattern in ("a.tif", "{t}{t}", "*", "", "{T}.tif"):
        complaint(lambda pattern=pattern: order(tmp_path, pattern=pattern), "--pattern", "{t}")
    complaint(lambda: order(tmp_path, pattern="a_(.+)_{t}"), "--pattern")


@pytest.mark.parametrize(
    "names",
    [
        ["x0.5.tif", "x0.25.tif", "x0.125.tif"],
        ["exp1.9.tif", "exp1.10.tif", "exp1.11.tif"],
        ["frame_-10h.tif", "frame_-9h.tif", "frame_-8h.tif"],
        ["-3.tif", "-2.tif", "-1.tif"],
        ["a.tif", "b.tif", "c.tif"],
        ["img1.tif", "img01.tif", "img2.tif"],
        ["img1.tif", "img1.tiff"],
        ["a.tif", "A.tiff"],
        ["2024-01-01_10-00-00.tif", "2024-01-01_10-05-30.tif"],
    ],
)
def test_names_that_may_be_read_in_two_ways(names: list[str], tmp_path: Path) -> None:
    complaint(lambda: order(make(tmp_path, *names)), tmp_path, "--pattern")


def test_the_pattern_says_how_to_read_them(tmp_path: Path) -> None:
    make(tmp_path / "a", "exp1.9.tif", "exp1.10.tif", "exp1.11.tif")
    assert order(tmp_path / "a", pattern="exp1.{t}.tif") == [0, 1, 2]
    make(tmp_path / "b", "x0.125.tif", "x0.25.tif", "x0.375.tif", "x0.5.tif")
    assert order(tmp_path / "b", pattern="x{t}.tif") == [0, 1, 2, 3]
    make(tmp_path / "c", "-3.tif", "-2.tif", "-1.tif", "0.tif")
    assert order(tmp_path / "c", pattern="{t}.tif") == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["t000.tif", "t001.tif", "t003.tif"], "frame 2 is missing"),
        (["t000.tif", "t002.tif", "t004.tif"], "frame 1 is missing"),
        (["img_1.tif", "img_2.tif", "img_4.tif"], "frame 3 is missing after img_2.tif"),
        (["img_00.tif", "img_05.tif", "img_15.tif"], "frame 10 is missing after img_05.tif"),
        (["9.tif", "10.tif", "11.tif", "13.tif", "14.tif"], "frame 12 is missing after 11.tif"),
        (["2.tif", "5.tif", "7.tif"], "frame 3 is missing after 2.tif"),
    ],
)
def test_gaps(names: list[str], missing: str, tmp_path: Path) -> None:
    complaint(lambda: order(make(tmp_path, *names)), tmp_path, missing)
    pattern = "t{t}.tif" if names[0][0] == "t" else "img_{t}.tif" if names[0][0] == "i" else "{t}.tif"
    if missing == "frame 1 is missing":
        assert order(tmp_path, pattern=pattern) == list(range(len(names)))
        return
    with pytest.warns(Doubt, match=missing):
        assert order(tmp_path, pattern=pattern) == list(range(len(names)))


def test_gaps_of_decimals(tmp_path: Path) -> None:
    make(tmp_path, "h0.0.tif", "h0.5.tif", "h1.0.tif", "h2.0.tif")
    with pytest.warns(Doubt, match=r"frame 1.5 is missing after h1.0.tif"):
        order(tmp_path, pattern="h{t}.tif")
    make(tmp_path / "times", "h0.5.tif", "h1.25.tif", "h1.5.tif", "h2.05.tif", "h2.5.tif", "h10.0.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert order(tmp_path / "times", pattern="h{t}.tif") == list(range(6))


def test_own_numbers_are_kept(tmp_path: Path) -> None:
    make(tmp_path, *(f"t{t:04d}.tif" for t in range(7, 12)), "mask0007.tif")
    with warnings.catch_warnings(), open_frames(tmp_path, "t{t}.tif") as frames:
        warnings.simplefilter("error")
        assert (frames.numbers, frames.digits) == (range(7, 12), 4)
    make(tmp_path / "free", "img7.tif", "img8.tif")
    with open_frames(tmp_path / "free") as frames:
        assert (frames.numbers, frames.digits) == (range(2), 3)


def test_numbers_beyond_all_bounds(tmp_path: Path) -> None:
    large = 10**200
    make(tmp_path / "free", *(f"img{large + t}.tif" for t in range(3)))
    assert order(tmp_path / "free") == [0, 1, 2]
    make(tmp_path / "steps", "img1.tif", "img2.tif", f"img{large}.tif")
    complaint(lambda: order(tmp_path / "steps"), "frame 3 is missing")
    make(tmp_path / "own", *(f"t{2**63 + t}.tif" for t in range(3)))
    complaint(lambda: order(tmp_path / "own"), "number frames")
