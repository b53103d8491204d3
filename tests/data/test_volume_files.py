"""Volumes as files: planes in depth, told from points in time by metadata, by layout, or by the user."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from data_cases import complaint

from lightning_cells.data.ctc import frame_paths, plane_paths, truth_paths
from lightning_cells.data.image_files import read_frame, read_mask, write_image
from lightning_cells.data.result_folder import ResultWriter
from lightning_cells.data.tiff import open_tiff
from lightning_cells.data.tracks import Track

VIDEO = np.random.default_rng(0).integers(0, 60000, (3, 5, 12, 14)).astype(np.uint16)  # T, Z, Y, X
VOLUME = VIDEO[0]
GREY = {"photometric": "minisblack"}
SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


@pytest.mark.parametrize(
    "options",
    [
        {"metadata": None},
        {},
        {"metadata": {"axes": "ZYX"}},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"compression": "zlib"},
        {"byteorder": ">"},
    ],
)
@pytest.mark.parametrize("read", [read_frame, read_mask])
def test_a_file_of_a_folder_is_a_volume(read, options: dict, tmp_path: Path) -> None:
    path = tmp_path / "t000.tif"
    tifffile.imwrite(path, VOLUME, **GREY, **options)
    np.testing.assert_array_equal(read(path), VOLUME)
    np.testing.assert_array_equal(read(path, VOLUME.shape), VOLUME)
    complaint(lambda: read(path, (12, 14)), path, "is 5x12x14 pixels, others of the video are 12x14")
    complaint(lambda: read(path, (4, 12, 14)), path, "is 5x12x14 pixels, others of the video are 4x12x14")


@pytest.mark.parametrize("planes", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_written_and_read(planes: int, kind: type, tmp_path: Path) -> None:
    """Three and four planes are no colours."""
    volume = (VOLUME[:planes] // 300).astype(kind)
    write_image(tmp_path / "mask000.tif", volume)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask000.tif"), volume)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "mask000.tif"), volume)
    once = (tmp_path / "mask000.tif").read_bytes()
    write_image(tmp_path / "mask000.tif", volume)
    assert (tmp_path / "mask000.tif").read_bytes() == once


def test_planes_of_two_sizes(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "t000.tif") as file:
        for plane in (VOLUME[0], VOLUME[1, :6]):
            file.write(plane, contiguous=False, metadata=None, **GREY)
    complaint(lambda: read_frame(tmp_path / "t000.tif"), "t000.tif", "series of images (12x14, 6x14)")


def test_a_plane_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "t000.tif"
    tifffile.imwrite(path, VOLUME, metadata=None, compression="zlib", **GREY)
    content = path.read_bytes()
    for part in (0.3, 0.7, 0.95):
        path.write_bytes(content[: int(part * len(content))])
        complaint(lambda: read_frame(path), path)


def test_truth_of_a_plane_beside_a_volume(tmp_path: Path) -> None:
    write_image(tmp_path / "man_seg000.tif", VOLUME[0] // 100)
    complaint(lambda: read_mask(tmp_path / "man_seg000.tif", VOLUME.shape), "12x14", "5x12x14", "man_seg_003_007.tif")


def planes_of(path: Path, **options) -> tuple[np.ndarray, bool, tuple | None]:
    with open_tiff(path, **options) as planes:
        return np.stack([planes.read(index) for index in range(planes.count)]), planes.told, planes.voxel


class TestAxes:
    @pytest.mark.parametrize("imagej", [False, True])
    def test_by_metadata(self, imagej: bool, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, VIDEO, imagej=imagej, metadata={"axes": "TZYX"}, **GREY)
        found, told, _ = planes_of(path)
        np.testing.assert_array_equal(found, VIDEO)
        assert told
        tifffile.imwrite(path, VOLUME, imagej=imagej, metadata={"axes": "ZYX"}, **GREY)
        found, told, _ = planes_of(path)
        np.testing.assert_array_equal(found, VOLUME[None])
        assert told

    @pytest.mark.parametrize("order", ["XYZCT", "XYZTC", "XYCTZ", "XYCZT", "XYTCZ", "XYTZC"])
    def test_every_order_of_ome(self, order: str, tmp_path: Path) -> None:
        both = np.stack([VIDEO, VIDEO // 2], 2)  # T, Z, C
        outer = [axis for axis in reversed(order) if axis not in "XY"]
        pages = both.transpose(*("TZC".index(axis) for axis in outer), 3, 4).reshape(-1, 12, 14)
        described = (
            f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{SCHEMA}"><Image ID="Image:0"><Pixels ID="Pixels:0" '
            f'DimensionOrder="{order}" Type="uint16" SizeX="14" SizeY="12" SizeZ="5" SizeC="2" SizeT="3" '
            'PhysicalSizeX="400" PhysicalSizeXUnit="nm" PhysicalSizeY="0.4" PhysicalSizeZ="2">'
            '<Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData/></Pixels></Image></OME>'
        )
        with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
            for index, page in enumerate(pages):
                text = described.encode() if index == 0 else None
                file.write(page, description=text, metadata=None, contiguous=False, **GREY)
        for channel in (0, 1):
            found, told, voxel = planes_of(tmp_path / "a.ome.tif", channel=channel)
            np.testing.assert_array_equal(found, both[:, :, channel])
            assert told
            assert voxel == pytest.approx((2, 0.4, 0.4))

    def test_of_unknown_axes_the_place_decides(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, VOLUME, **GREY)
        found, told, _ = planes_of(path)
        np.testing.assert_array_equal(found, VOLUME)  # a video, as ever
        assert not told
        found, told, _ = planes_of(path, alone=True)
        np.testing.assert_array_equal(found, VOLUME[None])
        assert not told

    def test_the_user_decides(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, VOLUME, imagej=True, metadata={"axes": "ZYX"})
        np.testing.assert_array_equal(planes_of(path, axes="TYX")[0], VOLUME)
        tifffile.imwrite(path, VOLUME, **GREY)
        np.testing.assert_array_equal(planes_of(path, axes="ZYX")[0], VOLUME[None])
        complaint(lambda: planes_of(path, axes="TZYX"), path, "5x12x14", "--axes TZYX does not describe")
        tifffile.imwrite(path, VIDEO, **GREY)
        np.testing.assert_array_equal(planes_of(path, axes="TZYX")[0], VIDEO)
        complaint(lambda: planes_of(path), path, "3x5x12x14", "--axes TZYX")
        complaint(lambda: planes_of(path, axes="ZYX"), path, "--axes ZYX does not describe")

    def test_a_video_is_no_frame(self, tmp_path: Path) -> None:
        for axes, stack in (("TYX", VOLUME), ("TZYX", VIDEO)):
            tifffile.imwrite(tmp_path / "t000.tif", stack, metadata={"axes": axes}, **GREY)
            complaint(lambda: read_frame(tmp_path / "t000.tif"), "t000.tif", "pages: give one")

    def test_voxel_of_imagej(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        options = {"metadata": {"axes": "ZYX", "spacing": 2.5, "unit": "um"}, "resolution": (2.0, 4.0)}
        tifffile.imwrite(path, VOLUME, imagej=True, **options)
        assert planes_of(path)[2] == pytest.approx((2.5, 0.25, 0.5))
        tifffile.imwrite(path, VOLUME, imagej=True, metadata={"axes": "ZYX"})
        assert planes_of(path)[2] is None


def test_truth_of_single_planes(tmp_path: Path) -> None:
    folder = tmp_path / "SEG"
    for name in ("man_seg_000_003.tif", "man_seg_002_001.tif", "MAN_SEG_002_000.TIF"):
        write_image(folder / name, VOLUME[0])
    found = plane_paths(folder)
    assert {frame: list(planes) for frame, planes in found.items()} == {0: [3], 2: [0, 1]}
    assert found[0][3] == folder / "man_seg_000_003.tif"
    assert truth_paths(folder, "man_seg") == {}
    write_image(folder / "man_seg004.tif", VOLUME)
    assert list(frame_paths(folder, "man_seg")) == [4]
    assert list(truth_paths(folder, "man_seg")) == [4]
    assert list(plane_paths(folder)) == [0, 2]
    write_image(folder / "man_seg_0002_001.tif", VOLUME[0])
    complaint(lambda: plane_paths(folder), "frame 2, plane 1, as is")
    assert plane_paths(tmp_path / "none") == {}


def test_a_result_of_volumes(tmp_path: Path) -> None:
    labels = np.zeros((5, 12, 14), np.int32)
    labels[1:3, 2:5, 2:5] = 7
    with ResultWriter(tmp_path / "01_RES") as writer:
        writer.write(0, labels)
        with pytest.raises(ValueError, match="expected"):
            writer.write(1, labels[0])
        writer.write(1, labels)
        writer.finish({7: Track(7, 0, 1, 0)})
    for path in frame_paths(tmp_path / "01_RES", "mask").values():
        np.testing.assert_array_equal(read_mask(path), labels)
