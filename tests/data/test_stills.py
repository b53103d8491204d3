"""Still images."""

import os
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from data_cases import complaint

from lightning_cells.data.sequence import Sequence
from lightning_cells.data.stills import open_images

RNG = np.random.default_rng(0)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(pixels))
    else:
        tifffile.imwrite(path, pixels)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images of two sizes, types and formats."""
    root = tmp_path / "stills"
    for stem, suffix, size, kind in (
        ("b", ".png", (8, 10), np.uint8),
        ("a", ".tif", (12, 6), np.uint16),
        ("c", ".png", (8, 10), np.uint16),
    ):
        write(root / "images" / f"{stem}{suffix}", RNG.integers(0, 250, size).astype(kind) * (1 + (stem == "c") * 200))
        labels = np.zeros(size, np.uint8)
        labels[1:4, 1:4], labels[5:7, 2:5] = 1, 2
        write(root / "labels" / f"{stem}.png", labels)
    return root


def test_instances(root: Path, tmp_path: Path) -> None:
    sequences = open_images(root, "zscore", cache=tmp_path / "cache")
    assert [s.name for s in sequences] == ["a", "b", "c"]
    assert [s.size for s in sequences] == [(12, 6), (8, 10), (8, 10)]
    for s in sequences:
        path = s.files.frames[0]
        exact = tifffile.imread(path) if path.suffix == ".tif" else imagecodecs.png_decode(path.read_bytes())
        exact = exact.astype(float)
        assert s.frames.shape == (1, *s.size)
        np.testing.assert_allclose(s.frames[0], (exact - exact.mean()) / exact.std(), atol=2e-3)
        labels = imagecodecs.png_decode((root / "labels" / f"{s.name}.png").read_bytes())
        np.testing.assert_array_equal(s.labels, labels[None])
        assert s.classes is None
        assert s.lineage == {}
        assert s.annotated.tolist() == [True]
        assert s.numbers == (0,)
        np.testing.assert_array_equal(s.truth(0)[0], labels)
        assert s.truth(0)[1] is None
    assert len({s.fingerprint for s in sequences}) == 3


def test_classes(root: Path, tmp_path: Path) -> None:
    sequences = open_images(root, "percentile", 0.5, "classes", tmp_path / "cache")
    for s in sequences:
        assert s.labels is None
        assert s.annotated.tolist() == [True]
        assert s.truth(0) == (None, None)
        labels = imagecodecs.png_decode((root / "labels" / f"{s.name}.png").read_bytes())
        np.testing.assert_array_equal(s.classes[0], labels[1::2, 1::2])
        assert s.classes.dtype == np.int8


def test_both_kinds_of_labels_have_entries_of_their_own(root: Path, tmp_path: Path) -> None:
    open_images(root, "zscore", 1.0, "classes", tmp_path / "cache")
    assert open_images(root, "zscore", 1.0, "instances", tmp_path / "cache")[0].labels is not None


def test_unlabelled(root: Path, tmp_path: Path) -> None:
    (root / "labels").rename(root / "elsewhere")
    sequences = open_images(root, "zscore", cache=tmp_path / "cache")
    assert all(s.labels is None and s.classes is None and not s.annotated.any() for s in sequences)


def test_second_open_reads_no_pixels(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_images(root, "zscore", cache=tmp_path / "cache")
    monkeypatch.setattr(imagecodecs, "png_decode", None)
    monkeypatch.setattr(tifffile, "TiffFile", None)
    assert len(open_images(root, "zscore", cache=tmp_path / "cache")) == 3


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts the open files of a Linux process")
def test_many_images_take_few_file_handles(tmp_path: Path) -> None:
    for k in range(40):
        write(tmp_path / "images" / f"{k:02d}.tif", np.full((4, 4), k, np.uint8))
        write(tmp_path / "labels" / f"{k:02d}.tif", np.ones((4, 4), np.uint8))
    before = len(os.listdir("/proc/self/fd"))
    sequences = open_images(tmp_path, "zscore", cache=tmp_path / "cache")
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    assert len(sequences) == 40


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def test_bad_files(root: Path, tmp_path: Path) -> None:
    def run() -> object:
        return open_images(root, "zscore", cache=tmp_path / "cache")

    png = root / "images" / "b.png"
    good = png.read_bytes()
    truncate(png)
    complaint(run, png)
    for bad in (np.zeros((8, 10, 3), np.uint8), np.zeros((8, 10, 4), np.uint16)):
        write(png, bad)
        complaint(run, png, "colours", "--data.channel")
    png.write_bytes(good)
    write(root / "labels" / "b.png", np.zeros((8, 11), np.uint8))
    complaint(run, root / "labels" / "b.png", "8x11", "8x10")


def test_one_colour(root: Path, tmp_path: Path) -> None:
    frame = RNG.integers(0, 250, (8, 10, 3)).astype(np.uint8)
    for path in (root / "images").iterdir():
        path.unlink()
        write(path.with_suffix(".png"), frame)
    for path in (root / "labels").iterdir():
        write(path, np.zeros((8, 10), np.uint8))
    for channel in range(3):
        for s in open_images(root, "zscore", cache=tmp_path / "cache", channel=channel):
            np.testing.assert_array_equal(s.frame(0), frame[..., channel])
            exact = frame[..., channel].astype(float)
            np.testing.assert_allclose(s.frames[0], (exact - exact.mean()) / exact.std(), atol=2e-3)


def test_bad_folders(root: Path, tmp_path: Path) -> None:
    def run() -> list[Sequence]:
        return open_images(root, "zscore", cache=tmp_path / "cache")

    (root / "images" / "._b.png").touch()  # what some systems leave in copies
    assert len(run()) == 3
    label = root / "labels" / "b.png"
    label.rename(root / "labels" / "d.png")
    complaint(run, root / "images" / "b.png", root / "labels")
    (root / "images" / "b.png").unlink()
    complaint(run, root / "labels" / "d.png", root / "images")
    write(root / "images" / "c.tif", np.zeros((8, 10), np.uint8))
    complaint(run, "c.tif", "c.png")
    complaint(lambda: open_images(tmp_path, "zscore"), tmp_path / "images")
    (tmp_path / "images").mkdir()
    complaint(lambda: open_images(tmp_path, "zscore"), "holds no images")
    complaint(lambda: open_images(root, "zscore", labels="contours"), "contours")
