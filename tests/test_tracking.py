"""Tracking anyone's frames with nothing but a checkpoint: same result as `predict`, to be continued after a kill."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from lightning_cells import tracking as engine
from lightning_cells.cli import main
from lightning_cells.data import spool
from lightning_cells.data.cell_sizes import typical_diameter
from lightning_cells.data.frames import Frames, open_frames
from lightning_cells.data.sequence import open_sequence
from lightning_cells.instances.linkers import Lap
from lightning_cells.methods.building import load_method
from lightning_cells.methods.loading import SETTINGS

TINY = {
    "ulstm": ["--model.channels", "[4, 6]"],
    "rshn": ["--model.features", "4", "--model.levels", "2", "--model.window", "3"],
}


@pytest.fixture(scope="module")
def checkpoints(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each method after some steps: enough for it to find something."""
    made = {}
    for method, options in TINY.items():
        home = tmp_path_factory.mktemp(method)
        words = ["fit", "-c", f"conf/method/{method}/tiny.yaml", "--data.root", str(simulated), *options]
        words += ["--data.train", "['01', '02']", "--data.val", "[]", "--data.scale", "0.75"]
        words += ["--data.batches_per_epoch", "30" if method == "ulstm" else "3", "--data.augmentation.crop", "32"]
        words += ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.max_epochs", "1"]
        words += ["--trainer.enable_progress_bar", "false", "--output_dir", str(home)]
        assert main(words) == 0
        (made[method],) = home.glob("checkpoints/*/last.ckpt")
    return made


@pytest.fixture(params=list(TINY))
def checkpoint(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> Path:
    return checkpoints[request.param]


def track(source: Path, checkpoint: Path, out: Path, *options: str) -> int:
    words = ["track", source, "--checkpoint", checkpoint, "--out", out, "--device", "cpu", *options]
    return main([str(word) for word in words])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def complaint(capfd: pytest.CaptureFixture[str], source: Path, checkpoint: Path, out: Path, *options: str) -> str:
    capfd.readouterr()
    assert track(source, checkpoint, out, *options) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("lightning-cells track: error: ")
    return err


def stack(folder: Path) -> np.ndarray:
    return np.stack([tifffile.imread(path) for path in sorted(folder.glob("*.tif"))])


def test_masks_are_those_of_predict(simulated: Path, checkpoint: Path, tmp_path: Path, home: Path) -> None:
    words = ["predict", "--ckpt_path", checkpoint, "--data.root", simulated, "--data.predict", "['03']"]
    words += ["--data.chunk", "5", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    assert main([str(word) for word in [*words, "--results.folder", tmp_path]]) == 0
    assert track(simulated / "03", checkpoint, tmp_path / "mine", "--chunk", "5") == 0
    assert contents(tmp_path / "mine") == contents(tmp_path / "03_RES")
    assert stack(tmp_path / "mine").any()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["03_RES", "mine"]


def test_scale_in_place_of_the_checkpoints(simulated: Path, checkpoint: Path, tmp_path: Path, home: Path) -> None:
    words = ["predict", "--ckpt_path", checkpoint, "--data.root", simulated, "--data.predict", "['03']"]
    words += ["--data.chunk", "5", "--data.scale", "0.5", "--trainer.accelerator", "cpu"]
    words += ["--trainer.enable_progress_bar", "false", "--results.folder", tmp_path]
    assert main([str(word) for word in words]) == 0
    assert track(simulated / "03", checkpoint, tmp_path / "half", "--chunk", "5", "--scale", "0.5") == 0
    assert contents(tmp_path / "half") == contents(tmp_path / "03_RES")
    assert track(simulated / "03", checkpoint, tmp_path / "trained", "--chunk", "5") == 0
    assert contents(tmp_path / "trained") != contents(tmp_path / "half")


def test_the_scale_follows_from_the_size_of_cells(
    simulated: Path, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    known = load_method(checkpoint)[1].diameter
    assert known == pytest.approx(typical_diameter([open_sequence(simulated, n, "zscore", 0.75) for n in ("01", "02")]))
    size = 2 * known
    assert track(simulated / "03", checkpoint, tmp_path / "sized", "--chunk", "5", "--diameter", str(size)) == 0
    assert f"cells of about {size:.0f} px: frames are scaled by 0.50\n" in capfd.readouterr().err
    options = ["--chunk", "5", "--scale", "0.5"]
    if "ulstm" in str(checkpoint):  # its decoder has 10 and 5 for cells 1.5 times as small
        options += ["--decoder.min_size", "22", "--decoder.seed_size=11"]
    assert track(simulated / "03", checkpoint, tmp_path / "half", *options) == 0
    assert contents(tmp_path / "sized") == contents(tmp_path / "half")


def test_the_size_is_estimated_by_default(
    simulated: Path,
    checkpoints: dict[str, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint = checkpoints["ulstm"]
    known = load_method(checkpoint)[1].diameter
    assert track(simulated / "03", checkpoint, tmp_path / "training", "--diameter", "training") == 0
    looked: list[tuple] = []
    for name, size, said in (("alike", 0.85 * known / 0.75, ""), ("larger", 2 * known, "scaled by 0.50; --diameter")):
        capfd.readouterr()
        looked.clear()
        monkeypatch.setattr(engine, "estimate_diameter", lambda *given, size=size: looked.append(given) or size)
        assert track(simulated / "03", checkpoint, tmp_path / name) == 0
        assert said in capfd.readouterr().err
        ((_, _, frames, trained),) = looked
        assert (len(frames), trained) == (3, known)
        assert (contents(tmp_path / name) == contents(tmp_path / "training")) == (name == "alike")
    looked.clear()
    options = ["--decoder.min_size", "22", "--decoder.seed_size", "11"]
    assert track(simulated / "03", checkpoint, tmp_path / "half", "--scale", "0.5", *options) == 0
    assert not looked
    assert contents(tmp_path / "half") == contents(tmp_path / "larger")


def test_a_size_that_cannot_be_told(
    simulated: Path, checkpoints: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint, source, out = checkpoints["ulstm"], simulated / "03", tmp_path / "out"
    assert "does not go with --scale" in complaint(capfd, source, checkpoint, out, "--diameter", "9", "--scale", "1")
    assert "--diameter -1.0: must be" in complaint(capfd, source, checkpoint, out, "--diameter", "-1")
    assert "--diameter" in complaint(capfd, source, checkpoint, out, "--diameter", "large")
    (tmp_path / "empty").mkdir()
    for number in range(3):
        tifffile.imwrite(tmp_path / f"empty/t{number:03d}.tif", np.full((64, 64), 9, np.uint8))
    capfd.readouterr()
    assert track(tmp_path / "empty", checkpoint, tmp_path / "none") == 0
    assert re.search(
        r"^lightning-cells track: warning: no cells of one size .*--diameter", capfd.readouterr().err, re.M
    )
    assert track(tmp_path / "empty", checkpoint, tmp_path / "none", "--diameter", "training") == 0
    assert "no cells of one size" not in capfd.readouterr().err
    older = torch.load(checkpoint, weights_only=True)
    del older[SETTINGS]["diameter"]
    torch.save(older, tmp_path / "older.ckpt")
    assert "does not remember the size" in complaint(capfd, source, tmp_path / "older.ckpt", out, "--diameter", "9")
    assert track(source, tmp_path / "older.ckpt", tmp_path / "kept") == 0
    assert "cells of" not in capfd.readouterr().err
    assert track(source, checkpoint, tmp_path / "training", "--diameter", "training") == 0
    assert contents(tmp_path / "kept") == contents(tmp_path / "training")
    assert not out.exists()


def test_multi_page_equals_folder(simulated: Path, checkpoint: Path, tmp_path: Path) -> None:
    pixels = stack(simulated / "01")
    for name, options in {
        "pages": {"compression": "zlib"},
        "plain": {},
        "imagej": {"imagej": True, "metadata": {"axes": "TYX"}},
        "big_endian": {"byteorder": ">", "compression": "lzw", "metadata": None},
    }.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric="minisblack", **options)
        assert track(tmp_path / f"{name}.tif", checkpoint, tmp_path / name) == 0
    assert track(simulated / "01", checkpoint, tmp_path / "folder") == 0
    expected = contents(tmp_path / "folder")
    assert all(contents(tmp_path / name) == expected for name in ("pages", "plain", "imagej", "big_endian"))


def test_looking_ahead_changes_nothing(
    simulated: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where the next chunk is seen while cells of the one before are linked and written."""
    video = tmp_path / "video.tif"  # one file, of which two read at once
    tifffile.imwrite(video, stack(simulated / "01"))
    assert track(video, checkpoint, tmp_path / "plain", "--chunk", "3", "--preview") == 0
    plain = engine.Tracker.__init__

    def looking(tracker: engine.Tracker, *args: object, **options: object) -> None:
        plain(tracker, *args, **options)  # type: ignore[arg-type]
        tracker._looks_ahead = True

    monkeypatch.setattr(engine.Tracker, "__init__", looking)
    assert track(video, checkpoint, tmp_path / "ahead", "--chunk", "3", "--preview") == 0
    assert contents(tmp_path / "ahead") == contents(tmp_path / "plain")


def test_first_page_of_imagej_describes_all(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 60000, (5, 7, 9)).astype(">u2")
    description = "ImageJ=1.53t\nimages=5\nframes=5\n"
    with (tmp_path / "a.tif").open("wb") as file:
        tifffile.imwrite(file, pixels[0], byteorder=">", description=description, metadata=None)
        file.seek(0, os.SEEK_END)
        file.write(pixels[1:].tobytes())
    with open_frames(tmp_path / "a.tif") as frames:
        assert [len(frames), frames.size] == [5, (7, 9)]
        np.testing.assert_array_equal([frames.read(i) for i in range(5)], pixels)


def test_one_chunk_is_in_memory(
    simulated: Path, checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    tifffile.imwrite(tmp_path / "a.tif", stack(simulated / "01"), photometric="minisblack")
    read, write = Frames.read, engine.ResultWriter.write
    monkeypatch.setattr(Frames, "read", lambda self, index: events.append("read") or read(self, index))
    monkeypatch.setattr(engine.ResultWriter, "write", lambda self, *a: events.append("write") or write(self, *a))
    monkeypatch.setattr(tifffile, "imread", None)
    monkeypatch.setattr(tifffile.TiffFile, "asarray", None)
    options = ["--chunk", "5", "--diameter", "training"]
    assert track(tmp_path / "a.tif", checkpoints["ulstm"], tmp_path / "out", *options) == 0
    expected = [kind for n in (5, 5, 2) for kind in ["read"] * n + ["write"] * n]
    assert events == expected


def test_names_in_natural_order_and_own_numbers(simulated: Path, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    free, kept = tmp_path / "free", tmp_path / "kept"
    free.mkdir(), kept.mkdir()
    for i, path in enumerate(sorted((simulated / "01").iterdir())):
        shutil.copy(path, free / f"Cells_{i + 1}.TIF")
        shutil.copy(path, kept / f"t{i + 40:04d}.tif")
    (free / "notes.txt").write_text("no frame")
    (free / "._Cells_1.TIF").write_text("no frame either")
    for name, source in {"a": free, "b": kept, "c": simulated / "01"}.items():
        assert track(source, checkpoints["ulstm"], tmp_path / name) == 0
    np.testing.assert_array_equal(stack(tmp_path / "a"), stack(tmp_path / "c"))
    np.testing.assert_array_equal(stack(tmp_path / "b"), stack(tmp_path / "c"))
    assert (tmp_path / "a" / "mask000.tif").exists()
    assert [min(contents(tmp_path / "b")), "mask0051.tif" in contents(tmp_path / "b")] == ["mask0040.tif", True]


def test_pattern_and_channel(
    simulated: Path, checkpoints: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pixels, folder, checkpoint = stack(simulated / "01"), tmp_path / "frames", checkpoints["ulstm"]
    folder.mkdir()
    for number, frame in enumerate(pixels):
        tifffile.imwrite(folder / f"img_t{number}_c0.tif", frame // 2)
        tifffile.imwrite(folder / f"img_t{number}_c1.tif", frame)
    both, grey = np.stack([pixels // 2, pixels], 1), {"photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "both.ome.tif", both, metadata={"axes": "TCYX"}, **grey)
    assert "--pattern" in complaint(capfd, folder, checkpoint, tmp_path / "a")
    assert track(folder, checkpoint, tmp_path / "a", "--pattern", "img_t{t}_c1.tif") == 0
    assert "--channel 0 to 1" in complaint(capfd, tmp_path / "both.ome.tif", checkpoint, tmp_path / "b")
    assert track(tmp_path / "both.ome.tif", checkpoint, tmp_path / "b", "--channel", "1") == 0
    assert track(simulated / "01", checkpoint, tmp_path / "c") == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")
    tracker = engine.Tracker(checkpoint, "cpu")
    result = tracker.track(folder, progress=False, pattern="img_t{t}_c1.tif")
    np.testing.assert_array_equal(result.labels, stack(tmp_path / "c"))
    other = tracker.track(tmp_path / "both.ome.tif", progress=False, channel=1)
    assert result.cells.equals(other.cells)  # with the intensities of what was tracked


def test_another_channel_is_not_gone_on_with(
    simulated: Path, checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, path = stack(simulated / "01"), tmp_path / "both.ome.tif"
    tifffile.imwrite(path, np.stack([pixels, pixels], 1), metadata={"axes": "TCYX"}, photometric="minisblack")
    tracker = engine.Tracker(checkpoints["ulstm"], "cpu", chunk=5)
    with open_frames(path, channel=0) as first, open_frames(path, channel=1) as second:
        keys = {tracker._key(frames, [n], tracker.preprocessing, "") for n, frames in enumerate((first, second))}
    assert len(keys) == 2


KILLED = """
import os, signal, sys
from pathlib import Path
import torch; torch.set_num_threads(1)
from lightning_cells import tracking as engine
from lightning_cells.data.result_folder import ResultWriter
write = ResultWriter.write
def last(self, frame, labels):
    write(self, frame, labels)
    if frame == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
ResultWriter.write = last
source, checkpoint, out = map(Path, sys.argv[1:4])
engine.Tracker(checkpoint, "cpu", (sys.argv[5:] or [None])[0], chunk=5).track_to(source, out, interval=0.0)
"""


def test_continues_after_a_kill(
    simulated: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = simulated / "02", tmp_path / "out"
    assert track(source, checkpoint, tmp_path / "whole", "--chunk", "5") == 0
    # RSHN's frames come late: all after frame 0 are out only at the end
    words = [sys.executable, "-c", KILLED, source, checkpoint, out, "6" if "ulstm" in str(checkpoint) else "0"]
    assert subprocess.run([str(word) for word in words], timeout=300).returncode == -signal.SIGKILL
    work = tmp_path / ".out.tracking"
    assert not out.exists()
    assert any((work / "masks").iterdir())
    done = len(list(work.glob("*.npz")))
    assert done > 0

    seen: list[int] = []
    read = Frames.read
    monkeypatch.setattr(Frames, "read", lambda self, index: seen.append(index) or read(self, index))
    assert track(source, checkpoint, out, "--chunk", "5") == 0
    assert seen == [0, 6, 11, *range(5 * done, 12)]  # three to see how large cells are
    assert contents(out) == contents(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


@pytest.fixture
def loose(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """A checkpoint whose own linker links nothing, as no overlap is more than all."""
    content = torch.load(checkpoints["ulstm"], weights_only=True)
    linker = {"class_path": "lightning_cells.instances.linkers.Overlap", "init_args": {"min_overlap": 1.0}}
    content["hyper_parameters"]["linker"] = linker
    torch.save(content, tmp_path / "loose.ckpt")
    return tmp_path / "loose.ckpt"


def test_checkpoint_keeps_the_thresholds_of_its_linker(simulated: Path, loose: Path, tmp_path: Path) -> None:
    for words in ([], ["--linker", "overlap"]):
        assert track(simulated / "01", loose, tmp_path / "out", *words) == 0
        rows = np.loadtxt(tmp_path / "out/res_track.txt", int)
        assert (rows[:, 1] == rows[:, 2]).all()


def test_linker_in_place_of_the_checkpoints(
    simulated: Path, loose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("laptrack")
    source, whole, out = simulated / "02", tmp_path / "whole", tmp_path / "out"
    assert track(source, loose, tmp_path / "cells") == 0
    linker = Lap().start()
    for labels in stack(tmp_path / "cells").astype(np.int32):
        linker.push(labels)
    expected = np.stack(list(linker.finish()))
    assert track(source, loose, whole, "--linker", "laptrack", "--chunk", "5") == 0
    np.testing.assert_array_equal(stack(whole), expected)
    rows = np.loadtxt(whole / "res_track.txt", int)
    assert (rows[:, 2] > rows[:, 1] + 5).any()

    words = [sys.executable, "-c", KILLED, source, loose, out, "6", "laptrack"]
    assert subprocess.run([str(word) for word in words], timeout=300).returncode == -signal.SIGKILL
    assert not out.exists()
    with monkeypatch.context() as patch:
        patch.setattr(Frames, "read", None)  # all cells were found
        options = ["--linker", "laptrack", "--chunk", "5", "--diameter", "training"]
        assert track(source, loose, out, *options) == 0
    assert contents(out) == contents(whole)


def test_linkers_that_cannot_be_had(
    simulated: Path,
    checkpoints: dict[str, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("overlap", "laptrack"):
        line = complaint(capfd, simulated / "01", checkpoints["rshn"], tmp_path / "out", "--linker", name)
        assert f"--linker {name}: RSHN links cells by its own embeddings" in line
    monkeypatch.setitem(sys.modules, "laptrack", None)
    line = complaint(capfd, simulated / "01", checkpoints["ulstm"], tmp_path / "out", "--linker", "laptrack")
    assert "pip install laptrack" in line
    assert not list(tmp_path.iterdir())


def interrupted(source: Path, checkpoint: Path, out: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Fails while the third chunk is kept."""
    saved = np.savez_compressed

    def save(file, *arrays: np.ndarray) -> None:
        if "000002" in file.name:
            file.write(b"a part")
            raise OSError(code, os.strerror(code))
        saved(file, *arrays)

    with monkeypatch.context() as patch:
        patch.setattr(spool.np, "savez_compressed", save)
        engine.Tracker(checkpoint, "cpu", chunk=5).track_to(source, out, interval=0.0)


def test_full_disk(
    simulated: Path, checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out, checkpoint = simulated / "01", tmp_path / "out", checkpoints["ulstm"]
    assert track(simulated / "02", checkpoint, out) == 0
    before = contents(out)
    with pytest.raises(engine.InputError, match=r"the disk is full: make room .* goes on") as told:
        interrupted(source, checkpoint, out, monkeypatch, errno.ENOSPC)
    assert "\n" not in str(told.value)
    assert contents(out) == before
    kept = sorted(path.name for path in (tmp_path / ".out.tracking").iterdir())
    assert kept == ["000000.npz", "000001.npz", "key", "state.pt"]
    assert track(source, checkpoint, out, "--chunk", "5") == 0
    assert track(source, checkpoint, tmp_path / "whole", "--chunk", "5") == 0
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("change", ["checkpoint", "frames", "chunk", "scale", "decoder", "damage"])
def test_work_on_something_else_is_not_taken(
    change: str, simulated: Path, checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out, checkpoint = tmp_path / "frames", tmp_path / "out", tmp_path / "a.ckpt"
    options = ["--chunk", "5"]
    shutil.copytree(simulated / "01", source)
    shutil.copy(checkpoints["ulstm"], checkpoint)
    with pytest.raises(engine.InputError):
        interrupted(source, checkpoint, out, monkeypatch, errno.ENOSPC)
    if change == "checkpoint":
        content = torch.load(checkpoint, weights_only=True)
        content["state_dict"] = {name: -value for name, value in content["state_dict"].items()}
        torch.save(content, checkpoint)
    elif change == "frames":
        shutil.copy(simulated / "02" / "t000.tif", source / "t000.tif")
    elif change == "chunk":
        options = ["--chunk", "6"]
    elif change == "scale":
        options += ["--scale", "0.5"]
    elif change == "decoder":
        options += ["--decoder.seed_threshold", "0.7"]
    else:
        file = tmp_path / ".out.tracking" / "000001.npz"
        file.write_bytes(file.read_bytes()[:-1])
    seen: list[int] = []
    read = Frames.read
    monkeypatch.setattr(Frames, "read", lambda self, index: seen.append(index) or read(self, index))
    assert track(source, checkpoint, out, *options) == 0
    assert seen[-12:] == list(range(12))


def test_preview(simulated: Path, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert track(simulated / "01", checkpoint, tmp_path / "out", "--preview") == 0
    assert str(tmp_path / "out_preview.gif") in capfd.readouterr().out
    with Image.open(tmp_path / "out_preview.gif") as picture:
        assert (picture.size, picture.n_frames, picture.info["loop"]) == ((512, 512), 12, 0)
        colours = []
        for index in range(12):
            picture.seek(index)
            pixels = np.asarray(picture.convert("RGB")).astype(int)
            colours.append(np.ptp(pixels, axis=-1).max() > 60)
    # outlines where there are cells, and grey where there are none
    assert colours == [bool(mask.any()) for mask in stack(tmp_path / "out")]


def test_single_and_constant_frames(simulated: Path, checkpoint: Path, tmp_path: Path) -> None:
    one = tmp_path / "one.tif"
    shutil.copy(simulated / "01" / "t000.tif", one)
    assert track(one, checkpoint, tmp_path / "one", "--preview") == 0
    assert sorted(contents(tmp_path / "one")) == ["mask000.tif", "res_track.txt"]
    tifffile.imwrite(tmp_path / "flat.tif", np.full((7, 33, 20), 9, np.uint8), photometric="minisblack")
    assert track(tmp_path / "flat.tif", checkpoint, tmp_path / "flat", "--preview") == 0
    assert stack(tmp_path / "flat").shape == (7, 33, 20)


def test_bad_frames(checkpoints: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    frame = np.random.default_rng(0).integers(0, 255, (3, 24, 24), dtype=np.uint8)

    def told(name: str, *images: np.ndarray, **options) -> str:
        folder = tmp_path / name
        folder.mkdir()
        for number, image in enumerate(images):
            tifffile.imwrite(folder / f"{number}.tif", image, **options)
        out = tmp_path / "out"
        line = complaint(capfd, folder / "0.tif" if name.startswith("file") else folder, checkpoints["ulstm"], out)
        assert not out.exists()
        return line

    grey = {"photometric": "minisblack"}
    assert "holds no TIFF" in told("empty")
    assert "is 24x20 pixels, 0.tif is 24x24" in told("sizes", frame[0], frame[1, :, :20])
    assert "float32 pixels" in told("float", frame[0].astype(np.float32))
    assert "float32 pixels" in told("file_float", frame.astype(np.float32), **grey)
    assert "colour" in told("rgb", np.stack([frame[0]] * 3, -1), photometric="rgb")
    assert "colour" in told("file_rgb", np.stack([frame] * 3, -1), photometric="rgb")
    assert "is one file of 3 images: give it itself as a video" in told("stacks", frame, **grey)
    assert "3x2x24x24" in told("file_4d", np.stack([frame, frame], 1), **grey)
    assert "channels" in told("file_channels", frame, imagej=True, metadata={"axes": "CYX"})

    text = tmp_path / "text.tif"
    text.write_text("no image")
    assert "not a readable image (not a TIFF file" in complaint(capfd, text, checkpoints["ulstm"], tmp_path / "out")
    assert "no such folder" in complaint(capfd, tmp_path / "none", checkpoints["ulstm"], tmp_path / "out")
    whole = tmp_path / "whole.tif"
    tifffile.imwrite(whole, frame, compression="lzw", metadata=None, **grey)
    (tmp_path / "cut.tif").write_bytes(whole.read_bytes()[:-300])
    assert "cut.tif" in complaint(capfd, tmp_path / "cut.tif", checkpoints["ulstm"], tmp_path / "out")
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as file:
        file.write(frame[0], **grey)
        file.write(frame[1, :20], **grey)
    assert "2 series of images" in complaint(capfd, tmp_path / "mixed.tif", checkpoints["ulstm"], tmp_path / "out")


def test_bad_checkpoints(
    simulated: Path, checkpoints: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, out, bad = simulated / "01", tmp_path / "out", tmp_path / "bad.ckpt"
    assert "no checkpoint" in complaint(capfd, source, bad, out)
    bad.write_bytes(checkpoints["ulstm"].read_bytes()[:5000])
    assert "bad.ckpt is damaged" in complaint(capfd, source, bad, out)
    torch.save({"state_dict": {}}, bad)
    assert "was not written by a method" in complaint(capfd, source, bad, out)
    torch.save([1, 2], bad)
    assert "was not written by a method" in complaint(capfd, source, bad, out)

    def changed(**parts) -> str:
        torch.save({**torch.load(checkpoints["ulstm"], weights_only=True), **parts}, bad)
        return complaint(capfd, source, bad, out)

    data = {"normalisation": "zscore", "scale": 1.0}
    assert "does not fit" in changed(state_dict={})
    assert "give --allow torch" in changed(**{SETTINGS: {"method": "torch.nn.Linear", "data": data}})
    assert "give --allow nowhere" in changed(**{SETTINGS: {"method": "nowhere.Method", "data": data}})
    assert "does not remember how frames" in changed(
        **{SETTINGS: {"method": "lightning_cells.methods.ulstm.ULSTM", "data": {}}}
    )
    assert not out.exists()


def test_bad_options(
    simulated: Path, checkpoints: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, checkpoint = tmp_path / "frames", checkpoints["ulstm"]
    shutil.copytree(simulated / "01", source)
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "notes.txt").write_text("no folder")
    (other / "thesis.docx").write_text("years")
    assert "holds 'thesis.docx'" in complaint(capfd, source, checkpoint, other)
    assert (other / "thesis.docx").read_text() == "years"
    assert "notes.txt" in complaint(capfd, source, checkpoint, tmp_path / "notes.txt" / "deep" / "out")
    assert "holds the frames" in complaint(capfd, source, checkpoint, source)
    assert len(list(source.iterdir())) == 12
    assert "--chunk 0" in complaint(capfd, source, checkpoint, tmp_path / "out", "--chunk", "0")
    assert "there is no option 'decode.seed_size'" in complaint(
        capfd, source, checkpoint, tmp_path / "out", "--decode.seed_size", "3"
    )
    assert "--decoder.seed_sise: there is no such setting: did you mean 'seed_size'?" in complaint(
        capfd, source, checkpoint, tmp_path / "out", "--decoder.seed_sise", "3"
    )
    assert "--min-size 2.0: must be" in complaint(capfd, source, checkpoint, tmp_path / "out", "--min-size", "2")
    assert "--scale 0.0" in complaint(capfd, source, checkpoint, tmp_path / "out", "--scale", "0")
    if not torch.cuda.is_available():
        assert "no usable CUDA" in complaint(capfd, source, checkpoint, tmp_path / "out", "--device", "cuda")
    if not torch.backends.mps.is_available():
        assert "no usable MPS" in complaint(capfd, source, checkpoint, tmp_path / "out", "--device", "mps")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "notes.txt", "other"]


def test_method_comes_ready(checkpoints: dict[str, Path]) -> None:
    method, preprocessing = load_method(checkpoints["rshn"])
    assert not any(module.training for module in method.modules())
    assert preprocessing[:2] == ("percentile", 0.75)
    assert 4 < preprocessing.diameter < 40
    saved = torch.load(checkpoints["rshn"], weights_only=True)["state_dict"]
    assert all(torch.equal(value, saved[name]) for name, value in method.state_dict().items())
