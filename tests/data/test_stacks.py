"""Stacks as microscopes and programs write them: all images, in the order of time, or one line that says why not."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from data_cases import complaint

from lightning_cells.data.frames import open_frames
from lightning_cells.data.image_files import read_frame
from lightning_cells.errors import InputError

VIDEO = np.stack([np.full((32, 40), 100 * (t + 1), np.uint16) for t in range(6)])
VIDEO[:, 4:9, 4:9] += np.arange(6, dtype=np.uint16)[:, None, None]
GREY = {"photometric": "minisblack"}
SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def frames(path: Path, **options) -> np.ndarray:
    with open_frames(path, **options) as video:
        return np.stack([video.read(index) for index in range(len(video))])


def frames_or_line(path: Path) -> np.ndarray | str:
    try:
        return frames(path)
    except InputError as error:
        return str(error)


def refused(path: Path, *words: str, **options) -> str:
    return complaint(lambda: frames(path, **options), *words)


def cut(path: Path, part: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    return path


def ome(planes: str, sizes: str = 'SizeZ="1" SizeC="1" SizeT="6"', order: str = "XYZCT", uuid: str = "") -> str:
    """OME-XML of one image; `planes` are its TiffData."""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{SCHEMA}"{uuid}><Image ID="Image:0"><Pixels ID="Pixels:0" '
        f'DimensionOrder="{order}" Type="uint16" SizeX="40" SizeY="32" {sizes}>'
        f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>'
    )


def plane(t: int, ifd: int, c: int = 0, z: int = 0, file: str = "") -> str:
    named = f'<UUID FileName="{file}">urn:uuid:{file}</UUID>' if file else ""
    return f'<TiffData IFD="{ifd}" FirstT="{t}" FirstC="{c}" FirstZ="{z}" PlaneCount="1">{named}</TiffData>'


def write_pages(path: Path, pages, description: str | None) -> Path:
    with tifffile.TiffWriter(path) as file:
        for index, page in enumerate(pages):
            text = description.encode() if description and index == 0 else None
            file.write(page, description=text, metadata=None, contiguous=False, **GREY)
    return path


class TestCutOff:
    """What is left of a file whose copying was interrupted."""

    @pytest.mark.parametrize("part", [0.05, 0.2, 0.35, 0.5, 0.7, 0.9, 0.97, 0.999])
    @pytest.mark.parametrize("kind", ["plain", "shaped", "pages", "zlib", "lzw", "imagej", "ome", "big", "append"])
    def test_refused(self, kind: str, part: float, tmp_path: Path) -> None:
        path = tmp_path / ("a.ome.tif" if kind == "ome" else "a.tif")
        noise = np.random.default_rng(0).integers(0, 60000, (6, 32, 40)).astype(np.uint16)
        options: dict = {
            "plain": {"metadata": None},
            "shaped": {},
            "pages": {"metadata": None},
            "zlib": {"compression": "zlib"},
            "lzw": {"compression": "lzw", "metadata": None},
            "imagej": {"imagej": True, "metadata": {"axes": "TYX"}},
            "ome": {"metadata": {"axes": "TYX"}},
            "big": {"bigtiff": True},
            "append": {},
        }[kind]
        if kind == "pages":
            write_pages(path, noise, None)
        elif kind == "append":
            for page in noise:
                tifffile.imwrite(path, page, append=True, **options)
        else:
            tifffile.imwrite(path, noise, **GREY, **options)
        np.testing.assert_array_equal(frames(path), noise)
        refused(cut(path, part), path)

    def test_every_length(self, tmp_path: Path) -> None:
        """Data, pages, descriptions: wherever a file ends, no part of the frames is taken for all."""
        for kind in ({"metadata": None}, {}, {"imagej": True, "metadata": {"axes": "TYX"}}):
            path = tmp_path / "a.tif"
            tifffile.imwrite(path, VIDEO[:, :6, :7], **GREY, **kind)
            whole = path.read_bytes()
            for length in range(0, len(whole) - 1, 7):
                path.write_bytes(whole[:length])
                if isinstance(found := frames_or_line(path), str):
                    assert str(path) in found
                    assert "\n" not in found
                else:
                    np.testing.assert_array_equal(found, VIDEO[:, :6, :7], err_msg=f"{kind} {length}")

    def test_one_page_that_speaks_for_all(self, tmp_path: Path) -> None:
        """As ImageJ writes stacks of more than 4 GB."""
        path, description = tmp_path / "a.tif", "ImageJ=1.53t\nimages=6\nframes=6\n"
        with path.open("wb") as file:
            tifffile.imwrite(file, VIDEO[0].astype(">u2"), byteorder=">", description=description, metadata=None)
            file.seek(0, os.SEEK_END)
            file.write(VIDEO[1:].astype(">u2").tobytes())
        np.testing.assert_array_equal(frames(path), VIDEO)
        for part in (0.3, 0.6, 0.99):
            refused(cut(path, part), path)

    def test_truncated_on_purpose(self, tmp_path: Path) -> None:
        """Tifffile, too, can write one page that speaks for all."""
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, VIDEO, truncate=True, **GREY)
        np.testing.assert_array_equal(frames(path), VIDEO)
        refused(cut(path, 0.8), path, "6 images, but it holds 4")

    def test_a_frame_of_a_folder(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "t000.tif", VIDEO[0])
        tifffile.imwrite(tmp_path / "t001.tif", VIDEO, metadata=None, **GREY)
        cut(tmp_path / "t001.tif", 0.7)
        refused(tmp_path, tmp_path / "t001.tif")
        complaint(lambda: read_frame(tmp_path / "t001.tif"), "t001.tif")

    def test_pages_in_a_circle(self, tmp_path: Path) -> None:
        path = write_pages(tmp_path / "a.tif", VIDEO, None)
        content = bytearray(path.read_bytes())
        with tifffile.TiffFile(path) as file:
            first, last = file.pages[0], file.pages[5]
            end = last.offset + 2 + 12 * len(last.tags)
            content[end : end + 4] = first.offset.to_bytes(4, "little")
        path.write_bytes(content)
        refused(path, "circle")


class TestOrder:
    """Planes that are not stored in the order of time."""

    def test_backwards(self, tmp_path: Path) -> None:
        described = ome("".join(plane(t, 5 - t) for t in range(6)))
        path = write_pages(tmp_path / "a.ome.tif", VIDEO[::-1], described)
        np.testing.assert_array_equal(frames(path), VIDEO)

    def test_under_another_ending(self, tmp_path: Path) -> None:
        order = np.random.default_rng(0).permutation(6)
        described = ome("".join(plane(t, int(np.flatnonzero(order == t)[0])) for t in range(6)))
        path = write_pages(tmp_path / "movie.TIFF", VIDEO[order], described)
        np.testing.assert_array_equal(frames(path), VIDEO)

    @pytest.mark.parametrize("order", ["XYZCT", "XYZTC", "XYCTZ", "XYCZT", "XYTCZ", "XYTZC"])
    @pytest.mark.parametrize("channel", [0, 1])
    def test_every_order_of_dimensions(self, order: str, channel: int, tmp_path: Path) -> None:
        both = np.stack([VIDEO, VIDEO + 1000], 1)  # T, C
        inner_is_time = order.index("T") < order.index("C")
        pages = both.transpose(1, 0, 2, 3) if inner_is_time else both
        described = ome("<TiffData/>", 'SizeZ="1" SizeC="2" SizeT="6"', order)
        path = write_pages(tmp_path / "a.ome.tif", pages.reshape(12, 32, 40), described)
        np.testing.assert_array_equal(frames(path, channel=channel), both[:, channel])
        refused(path, "2 channels", "--channel 0 to 1")

    @pytest.mark.parametrize(
        ("sizes", "planes", "words"),
        [
            ('SizeZ="1" SizeC="1" SizeT="3"', "<TiffData/>", "3 images, but it holds 6"),
            ('SizeZ="1" SizeC="1" SizeT="9"', "<TiffData/>", "9 images, but it holds 6"),
            ('SizeZ="3" SizeC="1" SizeT="3"', "<TiffData/>", "9 images, but it holds 6"),
            (
                'SizeZ="1" SizeC="1" SizeT="6"',
                "".join(plane(t, 0) for t in range(6)),  # all are said to be in the first page
                "6 images, but it holds",
            ),
            ('SizeZ="1" SizeC="1" SizeT="6"', "".join(plane(t, t) for t in (0, 1, 3, 4, 5)), "but it holds 5"),
            ('SizeZ="1" SizeC="1" SizeT="999999999"', '<TiffData PlaneCount="999999999"/>', "damaged"),
            ('SizeZ="1" SizeC="1" SizeT="9' + 5000 * "9" + '"', "<TiffData/>", "a.ome.tif"),
        ],
    )
    def test_other_counts_than_there_are(self, sizes: str, planes: str, words: str, tmp_path: Path) -> None:
        refused(write_pages(tmp_path / "a.ome.tif", VIDEO, ome(planes, sizes)), words)

    def test_damaged_description(self, tmp_path: Path) -> None:
        described = ome("".join(plane(t, 5 - t) for t in range(6))).replace("</Pixels>", "")
        refused(write_pages(tmp_path / "a.ome.tif", VIDEO[::-1], described), "metadata (OME) cannot be followed")

    @pytest.mark.parametrize("described", [None, ome("".join(plane(t, t) for t in range(6)))[:-20]])
    def test_description_that_is_lost(self, described: str | None, tmp_path: Path) -> None:
        """Planes would be points in time; one image is what it is."""
        for name, video in (("a", VIDEO), ("b", VIDEO[:1])):  # under its name tifffile would write a description
            write_pages(tmp_path / f"{name}.tif", video, described).rename(tmp_path / f"{name}.OME.tif")
        refused(tmp_path / "a.OME.tif", "is called OME-TIFF", "damaged or missing")
        np.testing.assert_array_equal(frames(tmp_path / "b.OME.tif"), VIDEO[:1])

    def test_several_images(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
            for _ in range(2):
                file.write(VIDEO, metadata={"axes": "TYX"}, **GREY)
        refused(tmp_path / "a.ome.tif", "2 series of images (6x32x40, 6x32x40)")


class TestSeveralFiles:
    """Series of which each file holds a part, and names the others."""

    @staticmethod
    def write(folder: Path, parts: list[list[int]]) -> list[Path]:
        names = [f"part{number}.ome.tif" for number in range(len(parts))]
        planes = "".join(
            plane(t, ifd, file=name) for name, part in zip(names, parts, strict=True) for ifd, t in enumerate(part)
        )
        return [
            write_pages(folder / name, VIDEO[part], ome(planes, uuid=f' UUID="urn:uuid:{name}"'))
            for name, part in zip(names, parts, strict=True)
        ]

    @pytest.mark.parametrize("parts", [[[0, 1, 2], [3, 4, 5]], [[3, 4, 5], [2, 0, 1]], [[0, 2, 4], [1, 3, 5]]])
    def test_any_part_opens_all(self, parts: list[list[int]], tmp_path: Path) -> None:
        for path in self.write(tmp_path, parts):
            np.testing.assert_array_equal(frames(path), VIDEO)
            with open_frames(path) as video:
                assert [file.name for file in video.files] == ["part0.ome.tif", "part1.ome.tif"]

    def test_a_part_is_missing_or_cut_off(self, tmp_path: Path) -> None:
        first, second = self.write(tmp_path, [[0, 1, 2], [3, 4, 5]])
        whole = second.read_bytes()
        for part in (0.3, 0.6, 0.9):
            second.write_bytes(whole[: int(part * len(whole))])
            refused(first, "part")
        second.unlink()
        refused(first, "6 images, but it holds 3", "side by side")

    def test_parts_of_one_frame(self, tmp_path: Path) -> None:
        """Each file is a frame and names its siblings; the folder of them is a video, whatever they are called now."""
        parts = self.write(tmp_path, [[t] for t in range(6)])
        np.testing.assert_array_equal(frames(tmp_path), VIDEO)
        np.testing.assert_array_equal(frames(parts[3]), VIDEO)
        for number, path in enumerate(parts):
            path.rename(tmp_path / f"t{number:03d}.tif")
        np.testing.assert_array_equal(frames(tmp_path), VIDEO)
        np.testing.assert_array_equal(read_frame(tmp_path / "t004.tif"), VIDEO[4])
        refused(tmp_path / "t000.tif", "6 images, but it holds")

    def test_parts_of_several_frames_are_no_frames(self, tmp_path: Path) -> None:
        self.write(tmp_path, [[0, 1, 2], [3, 4, 5]])
        refused(tmp_path, "part0.ome.tif", "this file itself")

    def test_described_elsewhere(self, tmp_path: Path) -> None:
        described = f'<OME xmlns="{SCHEMA}"><BinaryOnly MetadataFile="a.companion.ome" UUID="urn:uuid:1"/></OME>'
        for t in range(6):
            write_pages(tmp_path / f"a{t}.ome.tif", VIDEO[t : t + 1], described)
        np.testing.assert_array_equal(frames(tmp_path), VIDEO)
        refused(tmp_path / "a0.ome.tif", "metadata (OME) cannot be followed")


class TestPageByPage:
    """Stacks that grew by one image after another."""

    def test_appended(self, tmp_path: Path) -> None:
        for options in ({}, {"metadata": None}, {"compression": "zlib"}, {"bigtiff": True}):
            path = tmp_path / f"{'-'.join(options)}.tif"
            for page in VIDEO:
                tifffile.imwrite(path, page, append=True, **options)
            np.testing.assert_array_equal(frames(path), VIDEO)

    def test_one_writer(self, tmp_path: Path) -> None:
        for contiguous in (True, False):
            with tifffile.TiffWriter(tmp_path / "a.tif") as file:
                for page in VIDEO:
                    file.write(page, contiguous=contiguous)
            np.testing.assert_array_equal(frames(tmp_path / "a.tif"), VIDEO)

    def test_codecs_that_differ(self, tmp_path: Path) -> None:
        for page, codec in zip(VIDEO, [None, "zlib", None, "lzw", "zlib", None], strict=True):
            tifffile.imwrite(tmp_path / "a.tif", page, append=True, compression=codec)
        np.testing.assert_array_equal(frames(tmp_path / "a.tif"), VIDEO)

    def test_images_of_several_kinds(self, tmp_path: Path) -> None:
        for name, other in {"size": VIDEO[0, :20], "type": VIDEO[0].astype(np.uint8), "stack": VIDEO[:3]}.items():
            path = tmp_path / f"{name}.tif"
            for page in (VIDEO[0], other, VIDEO[1]):
                tifffile.imwrite(path, page, append=True, **GREY)
            refused(path, "series of images")

    def test_a_thumbnail_is_no_frame(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            for page in VIDEO:
                file.write(page, metadata=None, **GREY)
            file.write(VIDEO[0, ::4, ::4], metadata=None, subfiletype=1, **GREY)
        np.testing.assert_array_equal(frames(tmp_path / "a.tif"), VIDEO)


class TestStaleDescriptions:
    """What a program left in the description that changed the images."""

    @pytest.mark.parametrize("described", [[9, 32, 40], [3, 32, 40], [2, 1, 32, 40], [9, 32, 40, 1]])
    def test_of_another_number(self, described: list[int], tmp_path: Path) -> None:
        text = f'{{"shape": {described}}}'
        refused(write_pages(tmp_path / "a.tif", VIDEO, text), f"speak of {described[0]} images, but it holds 6")

    def test_of_another_size_or_of_the_first(self, tmp_path: Path) -> None:
        for described in ("[32, 40]", "[1, 32, 40]", "[64, 80]", "[7, 9, 11]"):
            path = write_pages(tmp_path / "a.tif", VIDEO, f'{{"shape": {described}}}')
            np.testing.assert_array_equal(frames(path), VIDEO)

    def test_of_a_frame(self, tmp_path: Path) -> None:
        for text, words in {
            '{"shape": [6, 32, 40]}': "6 images, but it holds 1",
            "ImageJ=1.53t\nimages=6\nframes=6\n": "6 images, but it holds 1",
            "ImageJ=1.53t\nimages=6\nslices=6\n": "6 images, but it holds 1",
            ome("<TiffData/>"): "6 images, but it holds 1",
        }.items():
            path = write_pages(tmp_path / "t000.tif", VIDEO[:1], text)
            refused(path, words)
            refused(tmp_path, words)
        for text in ('{"shape": [64, 80]}', "ImageJ=1.53t\nimages=1\n", "taken on Monday, frames=6", '{"shape": 1}'):
            path = write_pages(tmp_path / "t000.tif", VIDEO[:1], text)
            np.testing.assert_array_equal(read_frame(path), VIDEO[0])

    @pytest.mark.parametrize("count", [3, 9])
    def test_of_imagej(self, count: int, tmp_path: Path) -> None:
        text = f"ImageJ=1.53t\nimages={count}\nframes={count}\n"
        refused(write_pages(tmp_path / "a.tif", VIDEO, text), f"speak of {count} images, but it holds 6")

    def test_that_cannot_be(self, tmp_path: Path) -> None:
        text = "ImageJ=1.53t\nimages=6\nchannels=2\nframes=0\n"
        refused(write_pages(tmp_path / "a.tif", VIDEO, text), "metadata (ImageJ) cannot be followed")

    @pytest.mark.parametrize("text", ['{"shape": [9' + 5000 * "9" + ", 32, 40]}", "ImageJ=1\nimages=9" + 5000 * "9"])
    def test_numbers_without_end(self, text: str, tmp_path: Path) -> None:
        refused(write_pages(tmp_path / "a.tif", VIDEO, text), "a.tif")


class TestAxes:
    """Axes that are time, and others."""

    @pytest.mark.parametrize(("axes", "words"), [("CYX", "6 channels"), ("PYX", "axis P"), ("TYX", ""), ("QYX", "")])
    def test_of_a_description(self, axes: str, words: str, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", VIDEO, metadata={"axes": axes}, **GREY)
        if words:
            refused(tmp_path / "a.tif", words)
        else:
            np.testing.assert_array_equal(frames(tmp_path / "a.tif"), VIDEO)

    def test_imagej(self, tmp_path: Path) -> None:
        both = np.stack([VIDEO, VIDEO + 1000], 1)
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, both, imagej=True, metadata={"axes": "TCYX"})
        refused(path, "2 channels")
        for channel in (0, 1):
            np.testing.assert_array_equal(frames(path, channel=channel), both[:, channel])
        refused(path, "no channel 2", "0 to 1", channel=2)
        refused(path, "no channel -1", channel=-1)

    def test_channels_behind_one_page(self, tmp_path: Path) -> None:
        both = np.stack([VIDEO, VIDEO + 1000], 1).astype(">u2").reshape(12, 32, 40)
        path, text = tmp_path / "a.tif", "ImageJ=1.53t\nimages=12\nchannels=2\nframes=6\nhyperstack=true\n"
        with path.open("wb") as file:
            tifffile.imwrite(file, both[0], byteorder=">", description=text, metadata=None)
            file.seek(0, os.SEEK_END)
            file.write(both[1:].tobytes())
        np.testing.assert_array_equal(frames(path, channel=1), VIDEO + 1000)

    def test_two_unnamed_axes(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", VIDEO.reshape(2, 3, 32, 40), **GREY)
        refused(tmp_path / "a.tif", "2x3x32x40", "--axes TZYX")

    def test_colours(self, tmp_path: Path) -> None:
        small = (VIDEO // 4).astype(np.uint8)
        colours = np.stack([small, 255 - small, small // 2], -1)
        tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb")
        refused(tmp_path / "a.tif", "3 colours")
        for channel in range(3):
            np.testing.assert_array_equal(frames(tmp_path / "a.tif", channel=channel), colours[..., channel])
        (tmp_path / "planar").mkdir()
        for t, frame in enumerate(colours):
            planes = np.ascontiguousarray(frame.transpose(2, 0, 1))
            tifffile.imwrite(tmp_path / f"planar/{t}.tif", planes, photometric="rgb", planarconfig="separate")
        np.testing.assert_array_equal(frames(tmp_path / "planar", channel=1), 255 - small)

    def test_channels_in_each_file_of_a_folder(self, tmp_path: Path) -> None:
        for t, frame in enumerate(VIDEO):
            tifffile.imwrite(tmp_path / f"t{t:03d}.tif", np.stack([frame, frame + 1]), metadata={"axes": "CYX"}, **GREY)
        refused(tmp_path, "2 channels")
        np.testing.assert_array_equal(frames(tmp_path, channel=1), VIDEO + 1)

    def test_one_channel(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", VIDEO, **GREY)
        np.testing.assert_array_equal(frames(tmp_path / "a.tif", channel=0), VIDEO)
        refused(tmp_path / "a.tif", "no channel 1", "is grey", channel=1)
        complaint(lambda: frames(VIDEO, channel=1), "--channel 1: is for")
        refused(tmp_path / "a.tif", "--pattern", pattern="{t}.tif")
