"""Reading and writing the pixels of one file."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from data_cases import complaint

from lightning_cells.data.image_files import read_frame, read_mask, write_image

PIXELS = np.random.default_rng(0).integers(0, 60000, (20, 30)).astype(np.uint16)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd", "packbits"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_frames_of_any_kind(tmp_path: Path, compression: str | None, byteorder: str, dtype: type) -> None:
    pixels = PIXELS.astype(dtype)
    tifffile.imwrite(tmp_path / "t.tif", pixels, compression=compression, byteorder=byteorder, rowsperstrip=7)
    read = read_frame(tmp_path / "t.tif")
    assert read.dtype == dtype
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, pixels)


@pytest.mark.parametrize("lead", [(1,), (1, 1)])
def test_leading_singleton_axes(tmp_path: Path, lead: tuple[int, ...]) -> None:
    tifffile.imwrite(tmp_path / "t.tif", PIXELS.reshape(*lead, *PIXELS.shape))
    np.testing.assert_array_equal(read_frame(tmp_path / "t.tif"), PIXELS)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.uint32, np.int64])
def test_masks_of_any_integer(tmp_path: Path, kind: type) -> None:
    labels = np.array([[0, 1], [200, 7]])
    tifffile.imwrite(tmp_path / "m.tif", labels.astype(kind))
    read = read_mask(tmp_path / "m.tif")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, labels)


def test_largest_label_is_kept(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", np.full((2, 2), 65535, np.int32))
    assert read_mask(tmp_path / "m.tif").max() == 65535


def make_bad(path: Path, kind: str) -> None:
    if kind == "float":
        tifffile.imwrite(path, PIXELS.astype(np.float32))
    elif kind == "colour":
        tifffile.imwrite(path, np.zeros((8, 9, 3), np.uint8), photometric="rgb")
    elif kind == "planar colour":
        tifffile.imwrite(path, np.zeros((3, 8, 9), np.uint8), photometric="rgb", planarconfig="separate")
    elif kind == "points in time":
        tifffile.imwrite(path, np.stack([PIXELS, PIXELS]), photometric="minisblack", metadata={"axes": "TYX"})
    elif kind == "stack in one page":
        tifffile.imwrite(path, np.stack([PIXELS, PIXELS]), imagej=True)
    elif kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("not an image")
    elif kind == "empty":
        path.touch()
    elif kind != "missing":
        compression, cut = kind.split()
        tifffile.imwrite(path, PIXELS, compression=None if compression == "none" else compression, rowsperstrip=5)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * float(cut)) - 1])


CUT = [f"{codec} {part}" for codec in ("none", "zlib", "lzw", "packbits") for part in (1, 0.9, 0.5, 0.2, 0.05)]


@pytest.mark.parametrize(
    "kind",
    [
        "float",
        "colour",
        "planar colour",
        "points in time",
        "stack in one page",
        "folder",
        "text",
        "empty",
        "missing",
        *CUT,
    ],
)
@pytest.mark.parametrize("read", [read_frame, read_mask])
def test_bad_images(tmp_path: Path, kind: str, read, capfd: pytest.CaptureFixture) -> None:
    path = tmp_path / "t000.tif"
    make_bad(path, kind)
    complaint(lambda: read(path), path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("value", "kind"), [(65536, np.uint32), (-1, np.int32), (-3, np.int8)])
def test_labels_out_of_range(tmp_path: Path, value: int, kind: type) -> None:
    tifffile.imwrite(tmp_path / "m.tif", np.array([[0, value]], kind))
    complaint(lambda: read_mask(tmp_path / "m.tif"), tmp_path / "m.tif", value)


def test_signed_frames_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "t.tif", PIXELS.astype(np.int16))
    complaint(lambda: read_frame(tmp_path / "t.tif"), "int16")


def test_same_image_same_bytes(tmp_path: Path) -> None:
    write_image(tmp_path / "new" / "a.tif", PIXELS)
    write_image(tmp_path / "new" / "b.tif", np.asfortranarray(PIXELS))
    assert (tmp_path / "new" / "a.tif").read_bytes() == (tmp_path / "new" / "b.tif").read_bytes()
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "new" / "a.tif"), PIXELS)
    assert sorted(os.listdir(tmp_path / "new")) == ["a.tif", "b.tif"]


def test_failed_write_leaves_the_old_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "a.tif", PIXELS)

    def half(path: Path, *_: object, **__: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(tifffile, "imwrite", half)
    with pytest.raises(OSError, match="disk full"):
        write_image(tmp_path / "a.tif", PIXELS + 1)
    monkeypatch.undo()
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), PIXELS)
    assert os.listdir(tmp_path) == ["a.tif"]


@pytest.mark.parametrize("array", [np.zeros((2, 2)), np.zeros((2, 2), np.int32), np.zeros((1, 2, 2), np.uint8)])
def test_write_image_refuses_what_readers_refuse(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint16"):
        write_image(tmp_path / "a.tif", array)
