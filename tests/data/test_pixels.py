"""What the stored numbers of an image mean: white is zero, look-up tables; labels stay what they are."""

import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from data_cases import complaint, make_video
from PIL import Image

from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.data.frames import open_frames
from lightning_cells.data.image_files import read_frame, read_mask
from lightning_cells.data.sequence import Sequence, open_sequence

FRAME = np.random.default_rng(0).integers(0, 256, (20, 30)).astype(np.uint8)
RAMP = np.arange(256, dtype=np.uint16)
GREYS = np.stack([RAMP * 257] * 3)


def as_stack(path: Path) -> np.ndarray:
    with open_frames(path) as frames:
        return np.stack([frames.read(index) for index in range(len(frames))])


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero(dtype: type, compression: str | None, tmp_path: Path) -> None:
    frame = FRAME.astype(dtype) * (1 if dtype == np.uint8 else 200)
    stored = np.iinfo(dtype).max - frame
    tifffile.imwrite(tmp_path / "t000.tif", stored, photometric="miniswhite", compression=compression)
    np.testing.assert_array_equal(read_frame(tmp_path / "t000.tif"), frame)
    np.testing.assert_array_equal(read_mask(tmp_path / "t000.tif"), stored)
    for name, options in {"a": {}, "b": {"metadata": None}, "c": {"truncate": True}, "d": {"bigtiff": True}}.items():
        if not (compression and options.get("truncate")):
            path = tmp_path / f"{name}.tif"
            tifffile.imwrite(path, np.stack([stored] * 4), photometric="miniswhite", compression=compression, **options)
            np.testing.assert_array_equal(as_stack(path), np.stack([frame] * 4))


def test_white_is_zero_of_twelve_bits(tmp_path: Path) -> None:
    frame = FRAME.astype(np.uint16) * 16
    tifffile.imwrite(tmp_path / "a.tif", 4095 - frame, photometric="miniswhite", bitspersample=12)
    np.testing.assert_array_equal(read_frame(tmp_path / "a.tif"), frame)


def test_no_photometric_interpretation(tmp_path: Path) -> None:
    """The tag must be there; where it is not, black is zero, as other programs have it."""
    tifffile.imwrite(tmp_path / "a.tif", FRAME, metadata=None)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        place = file.pages[0].tags[262].offset
    content[place : place + 2] = struct.pack("<H", 65000)
    (tmp_path / "a.tif").write_bytes(content)
    np.testing.assert_array_equal(read_frame(tmp_path / "a.tif"), FRAME)


@pytest.mark.parametrize("unit", [257, 256])
@pytest.mark.parametrize(
    ("hues", "falls"), [((1, 1, 1), False), ((1, 1, 1), True), ((0, 1, 0), False), ((0, 1, 1), True), ((1, 0, 0), True)]
)
def test_palettes_of_one_hue(hues: tuple[int, ...], falls: bool, unit: int, tmp_path: Path) -> None:
    ramp = (RAMP[::-1] if falls else RAMP) * unit
    palette = np.stack([ramp * hue for hue in hues]).astype(np.uint16)
    stored = 255 - FRAME if falls else FRAME
    tifffile.imwrite(tmp_path / "t000.tif", stored, photometric="palette", colormap=palette)
    np.testing.assert_array_equal(read_frame(tmp_path / "t000.tif"), FRAME)
    np.testing.assert_array_equal(read_mask(tmp_path / "t000.tif"), stored)
    tifffile.imwrite(tmp_path / "a.tif", np.stack([stored] * 3), photometric="palette", colormap=palette)
    np.testing.assert_array_equal(as_stack(tmp_path / "a.tif"), np.stack([FRAME] * 3))


def test_palettes_of_any_greys(tmp_path: Path) -> None:
    ramp = np.random.default_rng(1).permutation(RAMP * 200 + 3).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", FRAME, photometric="palette", colormap=np.stack([ramp] * 3))
    np.testing.assert_array_equal(read_frame(tmp_path / "a.tif"), ramp[FRAME])


def test_pseudo_colours_are_refused(tmp_path: Path) -> None:
    fire = np.stack([RAMP * 257, (RAMP[::-1]) * 257, np.minimum(RAMP * 3, 255) * 257]).astype(np.uint16)
    for name, image in {"t000": FRAME, "a": np.stack([FRAME] * 3)}.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", image, photometric="palette", colormap=fire)
        complaint(lambda name=name: as_stack(tmp_path / f"{name}.tif"), f"{name}.tif", "look-up table", "Grays")
    np.testing.assert_array_equal(read_mask(tmp_path / "t000.tif"), FRAME)


def test_a_damaged_palette(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t000.tif"
    tifffile.imwrite(path, FRAME, photometric="palette", colormap=GREYS, metadata=None)
    with tifffile.TiffFile(path) as file:
        place = file.pages[0].tags[320].offset
    for count in (769, 30, 0):
        content = bytearray(path.read_bytes())
        content[place + 4 : place + 8] = struct.pack("<I", count)
        (tmp_path / "bad.tif").write_bytes(content)
        complaint(lambda: read_frame(tmp_path / "bad.tif"), "bad.tif")
        np.testing.assert_array_equal(read_mask(tmp_path / "bad.tif"), FRAME)
    assert not capfd.readouterr().err


@pytest.mark.parametrize("kind", ["cfa", "mask", "linear_raw"])
def test_other_interpretations(kind: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", FRAME, photometric="minisblack", metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        file.pages[0].tags[262].overwrite({"cfa": 32803, "mask": 4, "linear_raw": 34892}[kind])
    complaint(lambda: read_frame(tmp_path / "a.tif"), "photometric interpretation", kind.upper())
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), FRAME)


@pytest.mark.parametrize("falls", [False, True])
def test_look_up_tables_of_imagej(falls: bool, tmp_path: Path) -> None:
    """Beside the pixels of 16 bits; colours are for show, an inverted one is not."""
    table = np.stack([RAMP[::-1] if falls else RAMP] * 3).astype(np.uint8)
    video = np.stack([FRAME.astype(np.uint16) * 9] * 3)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, video, imagej=True, metadata={"axes": "TYX", "LUTs": [table]})
    np.testing.assert_array_equal(as_stack(path), 65535 - video if falls else video)
    green = np.stack([0 * RAMP, RAMP, 0 * RAMP]).astype(np.uint8)
    tifffile.imwrite(path, video, imagej=True, metadata={"axes": "TYX", "LUTs": [green]})
    np.testing.assert_array_equal(as_stack(path), video)


def test_training_sees_what_tracking_sees(tmp_path: Path) -> None:
    make_video(tmp_path / "plain")
    make_video(tmp_path / "white")
    for path in (tmp_path / "white/01").iterdir():
        tifffile.imwrite(path, 65535 - tifffile.imread(path), photometric="miniswhite")
    made = [open_sequence(tmp_path / name, "01", "zscore", cache=tmp_path / "cache") for name in ("plain", "white")]
    np.testing.assert_array_equal(made[0].frames, made[1].frames)
    np.testing.assert_array_equal(made[0].labels, made[1].labels)


def test_one_channel_of_frames_in_colour(tmp_path: Path) -> None:
    """As if it had been saved alone; another one is another entry of the cache."""
    make_video(tmp_path / "grey")
    shutil.copytree(tmp_path / "grey", tmp_path / "colour")
    for path in (tmp_path / "colour/01").iterdir():
        frame = tifffile.imread(path)
        tifffile.imwrite(path, np.stack([frame[::-1], frame, 65535 - frame], -1), photometric="rgb")

    def video(name: str, channel: int | None) -> Sequence:
        data = SequenceDataModule(root=str(tmp_path / name), channel=channel, clip_length=2)
        data.setup("fit")
        return data.sequences["train"][0]

    for channel in (1, 0):
        made, alone = video("colour", channel), video("grey", None)
        order = slice(None, None, 1 if channel else -1)
        np.testing.assert_array_equal(made.frames, alone.frames[:, order])
        np.testing.assert_array_equal(made.frame(2), alone.frame(2)[order])
        np.testing.assert_array_equal(made.labels, alone.labels)
    complaint(lambda: video("colour", None), "t003.tif", "3 colours", "--data.channel")
    complaint(lambda: video("colour", 3), "t003.tif", "no channel 3", "0 to 2")
    complaint(lambda: video("grey", 1), "t003.tif", "no channel 1", "is grey")


class TestTooLarge:
    """Headers that claim more than the file can hold are told before memory is taken."""

    @staticmethod
    def write(path: Path, compression: str | None = "zlib") -> int:
        """A file of about 200 bytes that claims 100,000 x 20,000 pixels."""
        options = {"compression": compression, "metadata": None, "software": False, "rowsperstrip": 100_000}
        tifffile.imwrite(path, np.zeros((4, 4), np.uint8), photometric="minisblack", **options)
        with tifffile.TiffFile(path, mode="r+") as file:
            tags = file.pages[0].tags
            tags[256].overwrite(20_000, dtype="I") if tags[256].dtype == 4 else tags[256].overwrite(20_000)
            tags[257].overwrite(100_000, dtype="I")
        return path.stat().st_size

    @pytest.mark.parametrize("compression", ["zlib", "lzw", "zstd", "lzma", None])
    def test_one_image(self, compression: str | None, tmp_path: Path) -> None:
        assert self.write(tmp_path / "t000.tif", compression) < 400
        for read in (read_frame, read_mask):
            complaint(lambda read=read: read(tmp_path / "t000.tif"), "t000.tif")

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_among_others(self, place: int, tmp_path: Path) -> None:
        for number in range(3):
            tifffile.imwrite(tmp_path / f"t{number:03d}.tif", FRAME)
        self.write(tmp_path / f"t{place:03d}.tif")
        complaint(lambda: as_stack(tmp_path), "pixels")

    def test_png(self, tmp_path: Path) -> None:
        def chunk(kind: bytes, content: bytes) -> bytes:
            return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 100_000, 8, 0, 0, 0, 0))
        content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
        (tmp_path / "a.png").write_bytes(content)
        for read in (read_frame, read_mask):
            complaint(lambda read=read: read(tmp_path / "a.png"), "100000x20000")
        (tmp_path / "a.png").write_bytes(content[:20])
        complaint(lambda: read_frame(tmp_path / "a.png"), "a.png", "truncated")


@pytest.mark.parametrize("name", ["t001.tif", "t001.png"])
def test_pipes_and_devices(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    for read in (read_frame, read_mask):
        complaint(lambda read=read: read(tmp_path / name), name, "pipe or device")
    (tmp_path / "zero.tif").symlink_to("/dev/zero")
    complaint(lambda: read_frame(tmp_path / "zero.tif"), "pipe or device")
    complaint(lambda: as_stack(tmp_path / name), name)


def test_labels_in_png_stay_what_they_are(tmp_path: Path) -> None:
    """Numbers of a palette, and of few bits, are labels all the same."""
    labels = (FRAME // 64).astype(np.uint8)
    picture = Image.fromarray(labels, mode="P")
    picture.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    picture.save(tmp_path / "p.png", bits=2)
    np.testing.assert_array_equal(read_mask(tmp_path / "p.png"), labels)
    picture.save(tmp_path / "p8.png", bits=8)
    np.testing.assert_array_equal(read_mask(tmp_path / "p8.png"), labels)
    complaint(lambda: read_frame(tmp_path / "p.png"), "p.png")
    Image.fromarray(labels > 1).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "b.png"), labels > 1)
    picture.putpalette(np.repeat(255 - np.arange(256), 3).tolist())
    picture.save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_frame(tmp_path / "grey.png"), 255 - labels)
    np.testing.assert_array_equal(read_mask(tmp_path / "grey.png"), labels)
