"""Volumes from simulated frames to tracks: training on planes, prediction, tracking, and going on after a kill."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from test_tracking import KILLED, complaint, contents, stack, track

from lightning_cells import tracking as engine
from lightning_cells.cli import main
from lightning_cells.data.cell_sizes import typical_diameter
from lightning_cells.data.frames import open_frames
from lightning_cells.data.image_files import read_frame
from lightning_cells.data.sequence import open_sequence
from lightning_cells.data.simulate import simulate
from lightning_cells.methods.building import load_method
from lightning_cells.result import Result

GREY = {"photometric": "minisblack"}


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos 01 and 02 of 7 volumes of 6 x 48 x 56 voxels. Not to be written to."""
    out = tmp_path_factory.mktemp("volumes") / "nuclei"
    return simulate(out, sequences=2, frames=7, size=(48, 56), depth=6, cells=3, seed=1)


@pytest.fixture(scope="module")
def checkpoint(volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("ulstm")
    words = ["fit", "-c", "conf/method/ulstm/tiny.yaml", "--data.root", str(volumes), "--model.channels", "[4, 6]"]
    words += ["--data.train", "['01']", "--data.val", "['02']", "--data.batches_per_epoch", "40"]
    words += ["--data.augmentation.crop", "32", "--trainer.accelerator", "cpu", "--trainer.devices", "1"]
    words += ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false", "--output_dir", str(home)]
    assert main(words) == 0
    (made,) = home.glob("checkpoints/*/last.ckpt")
    return made


def of(folder: Path) -> np.ndarray:
    return np.stack([tifffile.imread(path) for path in sorted(folder.glob("*.tif"))])


def test_masks_are_those_of_predict(volumes: Path, checkpoint: Path, tmp_path: Path) -> None:
    words = ["predict", "--ckpt_path", checkpoint, "--data.root", volumes, "--data.predict", "['02']"]
    words += ["--data.chunk", "5", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    assert main([str(word) for word in [*words, "--results.folder", tmp_path]]) == 0
    assert track(volumes / "02", checkpoint, tmp_path / "mine", "--diameter", "training", "--preview") == 0
    assert (tmp_path / "mine_preview.gif").is_file()
    assert contents(tmp_path / "mine") == contents(tmp_path / "02_RES")
    labels = of(tmp_path / "mine")
    assert labels.shape == (7, 6, 48, 56)
    assert labels.any()


@pytest.mark.slow
def test_tested_and_evaluated_alike(
    volumes: Path, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["test", "--ckpt_path", checkpoint, "--data.root", volumes, "--data.test", "['02']"]
    assert main([*map(str, words), "--data.chunk", "5", "--trainer.accelerator", "cpu"]) == 0
    told = capfd.readouterr().out
    assert track(volumes / "02", checkpoint, tmp_path / "mine", "--diameter", "training") == 0
    capfd.readouterr()
    assert main(["evaluate", str(tmp_path / "mine"), str(volumes / "02_GT")]) == 0
    scores = dict(line.split() for line in capfd.readouterr().out.splitlines() if line)
    for name in ("SEG", "DET", "TRA"):
        assert f"{float(scores[name]):.3f}" in told, (name, scores[name], told)


def test_what_is_remembered_is_the_size_of_sections(volumes: Path, checkpoint: Path) -> None:
    areas = []
    for path in (volumes / "01_GT/SEG").glob("*.tif"):
        for plane in tifffile.imread(path):
            areas += np.bincount(plane[plane > 0])[np.unique(plane[plane > 0])].tolist()
    expected = 2 * np.sqrt(np.median(areas) / np.pi)
    assert typical_diameter([open_sequence(volumes, "01", "zscore")]) == pytest.approx(expected)
    assert load_method(checkpoint)[1].diameter == pytest.approx(expected)


@pytest.mark.slow
def test_goes_on_after_a_kill(volumes: Path, checkpoint: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert track(volumes / "01", checkpoint, whole) == 0
    words = [sys.executable, "-c", KILLED, volumes / "01", checkpoint, out, "5"]
    assert subprocess.run([str(word) for word in words], timeout=300).returncode == -signal.SIGKILL
    assert not out.exists()
    assert list((tmp_path / ".out.tracking").glob("*.npz"))
    engine.Tracker(checkpoint, "cpu", chunk=5).track_to(volumes / "01", out)
    assert contents(out) == contents(whole)


@pytest.mark.parametrize("sequence", ["time", "z"])
def test_in_memory_as_in_files(sequence: str, volumes: Path, checkpoint: Path, tmp_path: Path) -> None:
    options = ["--sequence", sequence, "--voxel", "5", "1", "1"]
    assert track(volumes / "01", checkpoint, tmp_path / "out", *options) == 0
    pixels = of(volumes / "01")
    tracker = engine.Tracker(checkpoint, "cpu", sequence=sequence)  # type: ignore[arg-type]
    result = tracker.track(pixels, progress=False, voxel=(5, 1, 1))
    np.testing.assert_array_equal(result.labels, stack(tmp_path / "out"))
    tifffile.imwrite(tmp_path / "a.tif", pixels, **GREY)
    other = tracker.track(tmp_path / "a.tif", progress=False, axes="TZYX", voxel=(5, 1, 1))
    np.testing.assert_array_equal(other.labels, result.labels)
    tifffile.imwrite(tmp_path / "a.tif", pixels[0], **GREY)
    other = tracker.track(tmp_path / "a.tif", progress=False, axes="ZYX", voxel=(5, 1, 1))
    assert other.labels.shape == (1, *pixels.shape[1:])


@pytest.mark.slow
def test_goes_through_volumes_as_in_the_training(volumes: Path, checkpoint: Path, tmp_path: Path) -> None:
    words = ["fit", "--init", checkpoint, "--data.root", volumes, "--data.train", "['01']", "--data.sequence", "z"]
    words += ["--data.batches_per_epoch", 1, "--data.augmentation.crop", 32, "--output_dir", tmp_path / "home"]
    words += ["--trainer.accelerator", "cpu", "--trainer.max_epochs", 1, "--trainer.enable_progress_bar", "false"]
    assert main([*map(str, words)]) == 0
    (trained,) = tmp_path.glob("home/checkpoints/*/last.ckpt")
    options = ["--diameter", "training"]
    assert track(volumes / "02", trained, tmp_path / "mine", *options) == 0
    for sequence in ("time", "z"):
        assert track(volumes / "02", trained, tmp_path / sequence, "--sequence", sequence, *options) == 0
    assert contents(tmp_path / "mine") == contents(tmp_path / "z") != contents(tmp_path / "time")
    words = ["predict", "--ckpt_path", trained, "--data.root", volumes, "--data.predict", "['02']", "--data.chunk", 5]
    words += ["--trainer.accelerator", "cpu", "--results.folder", tmp_path]
    assert main([str(word) for word in words]) == 0
    assert contents(tmp_path / "mine") == contents(tmp_path / "02_RES")


def test_table_of_cells(volumes: Path, tmp_path: Path) -> None:
    labels = np.zeros((2, 4, 20, 20), np.int32)
    labels[0, 1:3, 4:7, 6:10] = 5
    labels[1, 2:4, 4:7, 6:10] = 5
    frames = np.arange(labels.size, dtype=np.uint16).reshape(labels.shape)
    result = Result(labels, {}, 3, frames)
    assert list(result.cells) == ["frame", "track", "z", "y", "x", "area", "mean_intensity"]
    row = result.cells.iloc[1]
    assert (row.frame, row.track, row.z, row.y, row.x, row.area) == (4, 5, 2.5, 5, 7.5, 24)
    assert row.mean_intensity == frames[1][labels[1] > 0].mean()
    assert "2 frames of 4 x 20 x 20" in repr(result)
    flat = Result(labels[:, 2], {}, 3, frames[:, 2])
    assert list(flat.cells) == ["frame", "track", "y", "x", "area", "mean_intensity"]


def test_cells_are_found_as_the_user_says(volumes: Path, checkpoint: Path, tmp_path: Path) -> None:
    for way in ("stitch", "watershed", "components"):
        assert track(volumes / "01", checkpoint, tmp_path / way, "--decoder.volumes.cells", way) == 0
    assert contents(tmp_path / "stitch") != contents(tmp_path / "watershed") != contents(tmp_path / "components")


class TestWhatNobodySays:
    def test_how_large_voxels_are(
        self, volumes: Path, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        said = "nothing says how large voxels are: they are taken for cubes; give --voxel Z Y X\n"
        assert track(volumes / "01", checkpoint, tmp_path / "a") == 0
        assert said not in capfd.readouterr().err  # the simulated files tell
        (tmp_path / "frames").mkdir()
        for t in range(2):
            frame = read_frame(volumes / f"01/t00{t}.tif")
            tifffile.imwrite(tmp_path / f"frames/t00{t}.tif", frame, metadata=None, **GREY)
        assert track(tmp_path / "frames", checkpoint, tmp_path / "b") == 0
        told = capfd.readouterr().err
        assert told.count(said) == 1
        assert told.count("frames are volumes of 6 planes") == 1
        assert track(tmp_path / "frames", checkpoint, tmp_path / "c", "--voxel", "5", "1", "1", "--axes", "ZYX") == 0
        told = capfd.readouterr().err
        assert said not in told
        assert "frames are volumes" not in told

    def test_one_file(self, volumes: Path, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        stacked = of(volumes / "01")
        tifffile.imwrite(tmp_path / "a.tif", stacked, **GREY)
        assert "7x6x48x56" in (line := complaint(capfd, tmp_path / "a.tif", checkpoint, tmp_path / "out"))
        assert "--axes TZYX" in line
        tifffile.imwrite(tmp_path / "a.tif", stacked[0], imagej=True, metadata={"axes": "ZYX"})
        assert track(tmp_path / "a.tif", checkpoint, tmp_path / "one") == 0
        assert "there is one volume of 6 planes; --axes TYX if they are points in time" in capfd.readouterr().err
        assert track(tmp_path / "a.tif", checkpoint, tmp_path / "video", "--axes", "TYX") == 0
        assert (len(stack(tmp_path / "one")), len(stack(tmp_path / "video"))) == (1, 6)

    def test_a_folder_of_one_stack(
        self, volumes: Path, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        tifffile.imwrite(tmp_path / "movie.tif", of(volumes / "01")[0], **GREY)
        line = complaint(capfd, tmp_path, checkpoint, tmp_path / "out")
        assert "is one file of 6 images: give it itself as a video, or say by --axes ZYX" in line
        assert track(tmp_path, checkpoint, tmp_path / "out", "--axes", "ZYX") == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--axes", "XYZ"], "--axes XYZ: is not known"),
        (["--axes", "TYX"], "pages: give one"),
        (["--voxel", "0", "1", "1"], "--voxel 0 1 1: give three positive numbers"),
        (["--voxel", "nan", "1", "1"], "--voxel nan 1 1: give three positive numbers"),
        (["--decoder.volumes.cells", "glue"], "volumes.cells: glue is not known"),
        (["--decoder.volumes.overlap", "2"], "volumes.overlap: 2 is no share"),
    ],
)
def test_options_that_cannot_be(
    options: list[str], words: str, volumes: Path, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert words in complaint(capfd, volumes / "01", checkpoint, tmp_path / "out", *options)
    assert not list(tmp_path.iterdir())


def test_options_of_volumes_for_images(
    simulated: Path, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = complaint(capfd, simulated / "01", checkpoint, tmp_path / "out", "--voxel", "5", "1", "1")
    assert "--voxel: is for volumes, and the frames are images" in line
    line = complaint(capfd, simulated / "01", checkpoint, tmp_path / "out", "--axes", "ZYX")
    assert "--axes ZYX does not describe" in line
    assert track(simulated / "01", checkpoint, tmp_path / "out", "--axes", "TYX") == 0


def test_volumes_of_several_sizes(
    volumes: Path, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "frames").mkdir()
    for t in range(3):
        frame = read_frame(volumes / f"01/t00{t}.tif")
        tifffile.imwrite(tmp_path / f"frames/t00{t}.tif", frame[: 5 if t == 2 else 6], metadata=None, **GREY)
    line = complaint(capfd, tmp_path / "frames", checkpoint, tmp_path / "out")
    assert "t002.tif: is 5x48x56 pixels, t000.tif is 6x48x56" in line
    tifffile.imwrite(tmp_path / "frames/t002.tif", read_frame(volumes / "01/t002.tif")[0])
    assert "t002.tif: is 48x56 pixels" in complaint(capfd, tmp_path / "frames", checkpoint, tmp_path / "out")


def test_arrays(checkpoint: Path) -> None:
    tracker = engine.Tracker(checkpoint, "cpu")
    for frames, words in (
        (np.zeros((2, 1, 40, 40), np.uint8), "volumes of one plane"),
        (np.zeros((2, 40, 40, 3), np.uint8), "looks like images with channels"),
        (np.zeros((2, 2, 2, 40, 40), np.uint8), "2 x 2 x 2 x 40 x 40"),
    ):
        with pytest.raises(engine.InputError, match=words):
            tracker.track(frames, progress=False)
    with open_frames(np.zeros((4, 40, 40), np.uint8), axes="ZYX") as opened:
        assert (len(opened), opened.size) == (1, (4, 40, 40))


def test_embeddings_refuse_volumes(volumes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "-c", "conf/method/rshn/tiny.yaml", "--data.root", volumes, "--data.train", "['01']"]
    words += ["--trainer.accelerator", "cpu", "--output_dir", tmp_path]
    for val in ("['02']", "[]"):
        assert main([*map(str, words), "--data.val", val]) == 2
        err = capfd.readouterr().err.strip().splitlines()[-1]
        assert "RSHN: takes 2-D videos, and these frames are volumes of 6 planes" in err
    assert not list(tmp_path.glob("checkpoints/*"))
    assert torch.is_grad_enabled()
