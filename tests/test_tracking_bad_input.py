"""Tracking whatever frames there are, with whatever checkpoint, on whatever disk."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import seeing
import tifffile
import torch
from scipy import ndimage

import lightning_cells as lc
from lightning_cells.cli import main
from lightning_cells.data.tracks import read_tracks
from lightning_cells.errors import Doubt
from lightning_cells.methods.loading import SETTINGS
from lightning_cells.metrics.validity import VERTEX, check_masks, check_parents
from lightning_cells.networks.hourglass import StackedHourglass
from lightning_cells.networks.ulstm import ULSTM as ULSTMNetwork

METHODS = ("ulstm", "rshn")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {name: seeing.save(method, folder / f"{name}.ckpt") for name, method in seeing.methods().items()}


@pytest.fixture
def _seeing(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, name in ((ULSTMNetwork, "forward"), (StackedHourglass, "contract"), (StackedHourglass, "embed")):
        monkeypatch.setattr(kind, name, getattr(kind, name))  # to be put back
    seeing.install()


def write(folder: Path, frames: np.ndarray) -> Path:
    folder.mkdir()
    for number, frame in enumerate(frames):
        tifffile.imwrite(folder / f"t{number:03d}.tif", frame)
    return folder


def words(source: Path, checkpoint: Path, out: Path, *options: str) -> list[str]:
    return [str(w) for w in ("track", source, "--checkpoint", checkpoint, "--out", out, "--device", "cpu", *options)]


def tracked(frames: np.ndarray, checkpoint: Path, folder: Path, *options: str) -> np.ndarray:
    """Tracks frames, checks that the result is one that the challenge accepts, and returns its masks."""
    out = folder / "out"
    assert main(words(write(folder / "frames", frames), checkpoint, out, *options)) == 0
    masks = np.stack([tifffile.imread(path) for path in sorted(out.glob("mask*.tif"))])
    assert masks.shape == frames.shape
    assert masks.dtype == np.uint16
    lineage = read_tracks(out / "res_track.txt")
    vertices = [number * VERTEX + np.unique(mask[mask > 0]).astype(np.int64) for number, mask in enumerate(masks)]
    check_parents(lineage, "result")
    check_masks(lineage, range(len(masks)), np.concatenate(vertices).astype(np.int64), "result")
    return masks


def complaint(capfd: pytest.CaptureFixture[str], *given: str) -> str:
    """The one line that is said of a mistake."""
    capfd.readouterr()
    assert main(list(given)) == 2
    err = capfd.readouterr().err
    assert err.startswith("lightning-cells track: error: ")
    assert err.count("\n") == 1, err
    return err


def cells(frames: int, *boxes: tuple[int, int, int, int], size: tuple[int, int] = (64, 80)) -> np.ndarray:
    """A video of bright boxes (top, left, bottom, right) that stand still, on a dark and noisy ground."""
    video = np.random.default_rng(0).integers(0, 30, (frames, *size)).astype(np.uint8)
    for top, left, bottom, right in boxes:
        video[:, top:bottom, left:right] += 200
    return video


@pytest.mark.usefixtures("_seeing")
@pytest.mark.parametrize("method", METHODS)
class TestFrames:
    """What may come in a video."""

    def test_plain_cells(self, method: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
        video = cells(5, (5, 5, 15, 15), (30, 40, 44, 60))
        masks = tracked(video, checkpoints[method], tmp_path)
        np.testing.assert_array_equal(masks > 0, video > 100)
        assert [set(np.unique(mask)) for mask in masks] == [{0, 1, 2}] * 5

    def test_empty_frame(self, method: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
        video = cells(7, (5, 5, 15, 15))
        video[3] = 0
        masks = tracked(video, checkpoints[method], tmp_path, "--preview")
        assert [int(mask.max()) for mask in masks] == [1, 1, 1, 0, 2, 2, 2]

    @pytest.mark.parametrize("value", [0, 1, 255])
    def test_constant_frames(self, method: str, value: int, checkpoints: dict[str, Path], tmp_path: Path) -> None:
        assert not tracked(np.full((4, 30, 40), value, np.uint8), checkpoints[method], tmp_path, "--preview").any()
        assert not (tmp_path / "out/res_track.txt").read_text()

    def test_what_cannot_be_right_is_told(
        self, method: str, checkpoints: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        frames = np.full((4, 30, 40), 9, np.uint8)
        tracked(frames, checkpoints[method], tmp_path)
        told = [line for line in capfd.readouterr().err.splitlines() if "warning" in line]
        assert len(told) == 1
        assert told[0].startswith("lightning-cells track: warning: no cells were found in any frame")
        with pytest.warns(Doubt, match="no cells were found in any frame"):
            lc.load(checkpoints[method], "cpu").track(frames)
        (tmp_path / "other").mkdir()
        tracked(cells(5, (5, 5, 15, 15), (30, 40, 44, 60)), checkpoints[method], tmp_path / "other")
        assert "warning" not in capfd.readouterr().err

    def test_noise_alone(self, method: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
        video = cells(7, (5, 5, 15, 15))
        noise = np.random.default_rng(0).poisson(100, (2, *video.shape[1:]))
        video[[0, 3]] = noise
        masks = tracked(video, checkpoints[method], tmp_path, "--chunk", "3")  # what ends a chunk, and begins another
        assert [int(mask.max()) for mask in masks] == [0, 1, 1, 0, 2, 2, 2]

    def test_cells_come_and_go(self, method: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
        video = cells(9, (5, 5, 15, 15))
        video[[0, 1, 4, 7, 8]] = cells(5)[:, ::-1] // 30
        masks = tracked(video, checkpoints[method], tmp_path)
        assert [bool(mask.any()) for mask in masks] == [False, False, True, True, False, True, True, False, False]

    @pytest.mark.parametrize("side", [46, 47, 48, 49, 62])
    def test_cell_as_large_as_a_tile(
        self, method: str, side: int, checkpoints: dict[str, Path], tmp_path: Path
    ) -> None:
        """Tiles are 48 pixels wide, and the frame 64 high."""
        video = cells(4, (1, 1, 1 + side, 1 + side))
        masks = tracked(video, checkpoints[method], tmp_path)
        np.testing.assert_array_equal(masks > 0, video > 100)
        assert masks.max() == 1

    def test_cell_nearly_as_large_as_the_frame(self, method: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
        video = cells(3, (0, 0, 64, 79))
        masks = tracked(video, checkpoints[method], tmp_path)
        np.testing.assert_array_equal(masks, (video > 100).astype(np.uint16))

    def test_two_thousand_cells(self, method: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
        boxes = [(8 * y + 2, 8 * x + 2, 8 * y + 6, 8 * x + 6) for y in range(40) for x in range(50)]
        video = cells(3, *boxes, size=(320, 400))
        masks = tracked(video, checkpoints[method], tmp_path, "--preview")
        np.testing.assert_array_equal(masks > 0, video > 100)
        for mask in masks:
            regions, count = ndimage.label(mask)
            assert count == 2000
            assert len(set(zip(regions[mask > 0].tolist(), mask[mask > 0].tolist(), strict=True))) == 2000
        assert len(read_tracks(tmp_path / "out/res_track.txt")) == 2000

    def test_one_frame(self, method: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
        video = cells(1, (5, 5, 15, 15))
        masks = tracked(video, checkpoints[method], tmp_path, "--preview")
        np.testing.assert_array_equal(masks, (video > 100).astype(np.uint16))
        assert (tmp_path / "out/res_track.txt").read_text() == "1 0 0 0\n"

    @pytest.mark.parametrize("size", [(67, 131), (49, 48), (5, 300), (3, 7), (1, 9)], ids=str)
    def test_any_size(self, method: str, size: tuple[int, int], checkpoints: dict[str, Path], tmp_path: Path) -> None:
        height, width = size
        video = cells(4, (0, width // 3, (height + 1) // 2, width // 3 + (width + 2) // 3), size=size)
        masks = tracked(video, checkpoints[method], tmp_path, "--preview")
        np.testing.assert_array_equal(masks, (video > 100).astype(np.uint16))

    def test_a_single_pixel(self, method: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
        video = np.array([7, 7, 200, 0], np.uint16).reshape(4, 1, 1)
        assert not tracked(video, checkpoints[method], tmp_path, "--preview").any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("brightest", [1, 2, 60000])
def test_noise(method: str, brightest: int, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """The networks themselves, untrained, see what they like in it."""
    video = np.random.default_rng(0).integers(0, brightest, (5, 37, 50), endpoint=True).astype(np.uint16)
    tracked(video, checkpoints[method], tmp_path, "--chunk", "2", "--preview")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("weights", [0.0, 1e30], ids=str)
def test_weights_that_went_wrong(method: str, weights: float, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """A training that broke down leaves such; the result is poor, but it is one."""
    content = torch.load(checkpoints[method], weights_only=True)
    content["state_dict"] = {
        name: torch.full_like(value, weights) if value.is_floating_point() else value
        for name, value in content["state_dict"].items()
    }
    torch.save(content, tmp_path / "broken.ckpt")
    tracked(cells(4, (5, 5, 15, 15), size=(40, 56)), tmp_path / "broken.ckpt", tmp_path)


BROKEN_WEIGHTS = {
    "NaN": (lambda value: torch.full_like(value, float("nan")), "not finite"),
    "one infinity": (lambda value: value.index_fill(0, torch.tensor([0]), float("inf")), "not finite"),
    "complex": (lambda value: value.to(torch.complex64), "no real numbers"),
    "another shape": (lambda value: value[..., :1].repeat_interleave(2, -1), "does not fit this version"),
    "one number that stands for all": (lambda value: torch.zeros(1).expand(value.shape), "larger than what the file"),
    "terabytes of one number": (lambda value: torch.zeros(1).expand(10**6, 10**6), "larger than what the file"),
    "sparse": (lambda value: value.to_sparse(), "no tensor of weights"),
}


@pytest.mark.parametrize("kind", BROKEN_WEIGHTS)
def test_weights_that_are_none(
    kind: str, checkpoints: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, bad = write(tmp_path / "frames", cells(2)), tmp_path / "bad.ckpt"
    spoil, said = BROKEN_WEIGHTS[kind]
    content = torch.load(checkpoints["ulstm"], weights_only=True)
    name = next(name for name, value in content["state_dict"].items() if value.ndim == 4)
    content["state_dict"][name] = spoil(content["state_dict"][name])
    torch.save(content, bad)
    line = complaint(capfd, *words(source, bad, tmp_path / "out"))
    assert str(bad) in line
    assert said in line


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


def test_checkpoints_that_are_none(
    checkpoints: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, bad, out = write(tmp_path / "frames", cells(2)), tmp_path / "bad.ckpt", tmp_path / "out"
    whole, executed = checkpoints["ulstm"].read_bytes(), tmp_path / "executed"
    rng = np.random.default_rng(0)
    payload = pickle.dumps({"state_dict": Payload(executed)})
    content = torch.load(checkpoints["ulstm"], weights_only=True)
    weight = next(iter(content["state_dict"].values())).numpy().tobytes()
    contents = {
        "nothing": b"",
        "text": b"model weights\n",
        "random bytes": rng.bytes(20_000),
        "random bytes in a zip": b"PK\x03\x04" + rng.bytes(20_000),
        "the first half": whole[: len(whole) // 2],
        "all but the end": whole[:-30],
        "bytes changed in the middle": whole[:300] + rng.bytes(200) + whole[500:],
        "a pickle": payload,
        "one bit of a weight": whole.replace(weight, bytes([weight[0] ^ 1]) + weight[1:]),
    }
    for name, content in contents.items():
        bad.write_bytes(content)
        line = complaint(capfd, *words(source, bad, out))
        assert str(bad) in line, name
        assert "damaged" in line, name
    torch.save({"state_dict": {}, SETTINGS: Payload(executed)}, bad)
    assert "not loaded" in complaint(capfd, *words(source, bad, out))
    assert not executed.exists()
    assert f"no checkpoint '{tmp_path}'" in complaint(capfd, *words(source, tmp_path, out))
    assert not list(tmp_path.glob("*out*"))


def test_checkpoints_of_something_else(
    checkpoints: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, bad, out = write(tmp_path / "frames", cells(2)), tmp_path / "bad.ckpt", tmp_path / "out"
    ulstm, rshn = (torch.load(checkpoints[name], weights_only=True) for name in METHODS)

    def refused(**parts: object) -> str:
        torch.save({**ulstm, **parts}, bad)
        line = complaint(capfd, *words(source, bad, out))
        assert str(bad) in line
        return line

    data = ulstm[SETTINGS]["data"]
    # another method's weights, under either name
    assert "does not fit this version" in refused(state_dict=rshn["state_dict"])
    assert "does not fit this version" in refused(**{SETTINGS: rshn[SETTINGS]})
    # a method that was renamed, or is none
    for kind in ("lightning_cells.methods.ulstm.Renamed", "lightning_cells.gone.ULSTM", "", 7):
        assert "does not fit this version" in refused(**{SETTINGS: {"method": kind, "data": data}})
    # options of another version
    options = ulstm["hyper_parameters"]
    assert "does not fit this version" in refused(hyper_parameters=options | {"min_overlap": 0.5})
    assert "does not fit this version" in refused(hyper_parameters=options | {"lr": "fast"})
    assert "does not fit this version" in refused(hyper_parameters=options | {"channels": [4, 8]})
    # weights that are gone or are no weights
    fewer = dict(list(ulstm["state_dict"].items())[1:])
    assert "does not fit this version" in refused(state_dict=fewer)
    for value in ({}, None, 3, dict.fromkeys(fewer, 1)):
        assert "does not fit this version" in refused(state_dict=value)
    torch.save({name: part for name, part in ulstm.items() if name != "state_dict"}, bad)
    assert "does not fit this version" in complaint(capfd, *words(source, bad, out))
    # preprocessing that is unknown
    for changed in ({"normalisation": "no such"}, {"scale": 0.0}, {"scale": "large"}, {"scale": float("nan")}):
        assert "does not remember how frames" in refused(**{SETTINGS: ulstm[SETTINGS] | {"data": data | changed}})
    for value in (None, 3, [], {"method": "x"}):
        assert "was not written by a method" in refused(**{SETTINGS: value})
    assert not list(tmp_path.glob("*out*"))


LIMITED = """
import resource, sys, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
import seeing
from lightning_cells.cli import main
seeing.install()
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[3:]))
"""


def limited(limit: int, *given: str) -> subprocess.CompletedProcess[str]:
    """Runs a command that may write no file of more than some bytes."""
    script = [sys.executable, "-c", LIMITED, str(Path(__file__).parent), str(limit), *given]
    return subprocess.run(script, capture_output=True, text=True, timeout=240, check=False)


def sparse_then_dense() -> np.ndarray:
    """Cells of which the later frames have many, so that their files are larger."""
    boxes = [(4 * y, 4 * x, 4 * y + 2 + (x * y) % 2, 4 * x + 2) for y in range(32) for x in range(40)]
    return np.concatenate([cells(15, (5, 5, 15, 15), size=(128, 160)), cells(4, *boxes, size=(128, 160))])


@pytest.mark.usefixtures("_seeing")
@pytest.mark.parametrize("method", METHODS)
def test_a_file_that_cannot_be_written_in_the_middle(method: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    video = sparse_then_dense()
    source, out = write(tmp_path / "frames", video), tmp_path / "out"
    given = words(source, checkpoints[method], out, "--chunk", "5")
    assert main(words(source, checkpoints[method], tmp_path / "whole", "--chunk", "5")) == 0
    said = limited(2500, *given)
    assert said.returncode == 2, said.stderr
    [line] = [line for line in said.stderr.splitlines() if "tracking:" not in line]
    assert line.startswith(f"lightning-cells track: error: {out}: ")
    assert "no file may be as large" in line
    assert not out.exists()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".out.tracking", "frames", "whole"]
    assert not list((tmp_path / ".out.tracking").rglob("*.tmp"))
    assert len(list((tmp_path / ".out.tracking").glob("*.npz"))) == 3, "what was done is kept"
    assert main(given) == 0
    for path in (tmp_path / "whole").iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "out", "whole"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    options = ["-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if not mount or not umount or subprocess.run([mount, *options], capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run([umount, str(folder)], check=True)


@pytest.mark.usefixtures("_seeing")
@pytest.mark.parametrize("method", METHODS)
def test_a_disk_that_is_really_full(
    method: str,
    small_disk: Path,
    checkpoints: dict[str, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    source, out = write(tmp_path / "frames", sparse_then_dense()), small_disk / "out"
    given = words(source, checkpoints[method], out, "--chunk", "5", "--preview")
    free = os.statvfs(small_disk)
    (small_disk / "others").write_bytes(bytes(free.f_bavail * free.f_bsize - 40_000))
    assert "the disk is full: make room" in complaint(capfd, *given)
    assert not out.exists()
    assert {path.name for path in small_disk.iterdir()} <= {"others", ".out.tracking"}
    assert not list(small_disk.rglob("*.tmp"))
    (small_disk / "others").unlink()
    assert main(given) == 0
    assert main(words(source, checkpoints[method], tmp_path / "whole", "--chunk", "5")) == 0
    for path in (tmp_path / "whole").iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()
    assert sorted(path.name for path in small_disk.iterdir()) == ["out", "out_preview.gif"]
