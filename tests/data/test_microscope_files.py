"""Files of microscopes by way of bioio: with a stand-in for it, and where it is installed with real ones."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
from data_cases import complaint

from lightning_cells.data.frames import open_frames

VIDEO = np.stack([np.full((8, 9), 100 * (t + 1), np.uint16) for t in range(5)])
VIDEO[:, 3, 4] += 7
BOTH = np.stack([VIDEO // 2, VIDEO], 1)[:, :, None]  # T, C, Z, Y, X


def frames(path: Path, **options) -> np.ndarray:
    with open_frames(path, **options) as video:
        return np.stack([video.read(index) for index in range(len(video))])


class StandIn:
    """What is used of bioio's BioImage, of an array (T, C, Z, Y, X)."""

    pixels = BOTH
    scenes = ("Image:0",)
    extra: dict[str, int] = {}  # noqa: RUF012 - replaced, never changed

    def __init__(self, path: Path) -> None:
        if path.stat().st_size == 0:
            raise sys.modules["bioio_base.exceptions"].UnsupportedFileFormatError("no reader")
        self.dims = {**dict(zip("TCZYX", self.pixels.shape, strict=True)), **self.extra}
        self.dtype = self.pixels.dtype

    def get_image_dask_data(self, axes: str, T: int, C: int, Z: int | slice = slice(None)):
        assert axes == ("YX" if isinstance(Z, int) else "ZYX")
        if T == 4 and self.pixels is not BOTH:
            raise OSError("the file ends")
        return types.SimpleNamespace(compute=lambda scheduler: self.pixels[T, C, Z])


@pytest.fixture
def image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    errors = types.ModuleType("bioio_base.exceptions")
    errors.UnsupportedFileFormatError = type("UnsupportedFileFormatError", (Exception,), {})
    bioio = types.ModuleType("bioio")
    bioio.BioImage = StandIn
    for name, module in {
        "bioio": bioio,
        "bioio_base": types.ModuleType("bioio_base"),
        "bioio_base.exceptions": errors,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    for ending in ("nd2", "czi", "LIF"):
        (tmp_path / f"a.{ending}").write_text("content")
    (tmp_path / "a.ome.zarr").mkdir()
    (tmp_path / "a.ome.zarr/zarr.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("ending", ["nd2", "czi", "LIF", "ome.zarr"])
def test_one_channel_in_the_order_of_time(image: Path, ending: str) -> None:
    path = image / f"a.{ending}"
    np.testing.assert_array_equal(frames(path, channel=1), VIDEO)
    with open_frames(path, channel=0) as video:
        assert (len(video), video.size, video.digits) == (5, (8, 9), 3)
        assert video.files == [path / "zarr.json" if ending == "ome.zarr" else path]
    complaint(lambda: frames(path), path, "2 channels", "--channel 0 to 1")
    complaint(lambda: frames(path, channel=2), path, "no channel 2", "0 to 1")


def test_what_is_no_grey_video(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = image / "a.nd2"
    (image / "empty.nd2").touch()
    complaint(lambda: frames(image / "empty.nd2"), "empty.nd2", "pip install 'lightning-cells[bioio]'")
    monkeypatch.setattr(StandIn, "scenes", ("A1", "A2"))
    complaint(lambda: frames(path), path, "2 scenes (A1, A2)")
    monkeypatch.setattr(StandIn, "scenes", ("A1",))
    for pixels, words in (
        (BOTH[:, :1].astype(np.float32), "float32 pixels"),
        (BOTH[:, :1].copy(), "the file ends"),
    ):
        monkeypatch.setattr(StandIn, "pixels", pixels)
        complaint(lambda: frames(path, channel=0), path, words)
    monkeypatch.setattr(StandIn, "extra", {"S": 3})
    complaint(lambda: frames(path), path, "in colour")
    complaint(lambda: frames(path, pattern="{t}.tif"), "--pattern")


def test_without_bioio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bioio", None)
    (tmp_path / "a.czi").touch()
    said = complaint(lambda: frames(tmp_path / "a.czi"), "a.czi", "is CZI, which bioio reads")
    assert said.endswith("pip install 'lightning-cells[bioio]'")
    complaint(lambda: frames(tmp_path / "gone.czi"), "no such folder or file")


@pytest.mark.parametrize("version", [2, 3])
def test_real_zarr(version: int, tmp_path: Path) -> None:
    writers = pytest.importorskip("bioio_ome_zarr.writers")
    path = tmp_path / "a.ome.zarr"
    writer = writers.OMEZarrWriter(store=str(path), level_shapes=[BOTH.shape], dtype=BOTH.dtype, zarr_format=version)
    writer.write_full_volume(BOTH)
    np.testing.assert_array_equal(frames(path, channel=1), VIDEO)
    complaint(lambda: frames(path), "2 channels")


def test_real_czi(tmp_path: Path) -> None:
    pytest.importorskip("bioio_czi")
    czi = pytest.importorskip("pylibCZIrw.czi")
    with czi.create_czi(str(tmp_path / "a.czi")) as document:
        for t, both in enumerate(BOTH):
            for c in range(2):
                document.write(data=both[c, 0][..., None], plane={"T": t, "C": c, "Z": 0})
    np.testing.assert_array_equal(frames(tmp_path / "a.czi", channel=1), VIDEO)
    (tmp_path / "cut.czi").write_bytes((tmp_path / "a.czi").read_bytes()[:500])
    complaint(lambda: frames(tmp_path / "cut.czi"), "cut.czi")


@pytest.mark.parametrize("ending", ["nd2", "lif", "czi", "zarr"])
def test_rubbish(ending: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("bioio")
    (tmp_path / f"a.{ending}").write_bytes(100 * b"rubbish")
    complaint(lambda: frames(tmp_path / f"a.{ending}"), f"a.{ending}")
    assert not capfd.readouterr().err


def test_volumes(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = BOTH.transpose(1, 2, 0, 3, 4)[:, :, :4]  # one point in time of four planes
    monkeypatch.setattr(StandIn, "pixels", volumes)
    with open_frames(image / "a.nd2") as video:
        assert (len(video), video.size, video.voxel) == (len(volumes), volumes.shape[2:], None)
        np.testing.assert_array_equal(video.read(0), volumes[0, 0])
    monkeypatch.setattr(StandIn, "physical_pixel_sizes", types.SimpleNamespace(Z=2.0, Y=0.5, X=0.5), raising=False)
    with open_frames(image / "a.nd2") as video:
        assert video.voxel == (2.0, 0.5, 0.5)
