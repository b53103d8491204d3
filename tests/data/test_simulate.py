"""Simulated data sets as they lie on disk."""

import hashlib
import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from ctc_metrics import validate_sequence
from scipy import ndimage
from skimage.measure import regionprops

from lightning_cells.data import simulate as module
from lightning_cells.data.intensity import noise
from lightning_cells.data.simulate import simulate
from lightning_cells.data.simulation.looks import Specimen
from lightning_cells.data.simulation.nuclei import nuclei as nuclei_video
from lightning_cells.data.simulation.shapes import SimulatedFrame
from lightning_cells.data.simulation.varied import varied as varied_video
from lightning_cells.errors import InputError

SIZE = (96, 112)
FRAMES = 30
SEQUENCES = {"nuclei": 3, "brightfield": 2, "fibres": 1, "varied": 4}


@pytest.fixture(scope="module", params=["nuclei", "brightfield", "fibres", "varied"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A data set of each kind; the frames are as many as show every event of a cell's life."""
    out = tmp_path_factory.mktemp("simulated") / request.param
    frames = FRAMES if request.param != "fibres" else 4
    assert simulate(out, request.param, SEQUENCES[request.param], frames, SIZE, seed=5) == out
    return request.param, out


@pytest.fixture(scope="module")
def nuclei(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("nuclei") / "out", sequences=2, frames=FRAMES, size=SIZE, seed=8)


def stack(out: Path, folder: str) -> np.ndarray:
    return np.stack([tifffile.imread(path) for path in sorted((out / folder).glob("*.tif"))])


def rows_of(out: Path, name: str = "01") -> np.ndarray:
    return np.loadtxt(out / f"{name}_GT/TRA/man_track.txt", dtype=int, ndmin=2)


def digests(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def at_border(mask: np.ndarray) -> bool:
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def test_layout(made: tuple[str, Path]) -> None:
    kind, out = made
    names = [f"{k:02d}" for k in range(1, SEQUENCES[kind] + 1)]
    assert sorted(os.listdir(out)) == sorted(names + [f"{name}_GT" for name in names])
    frames = stack(out, "01")
    assert frames.dtype == np.uint16
    assert frames.shape[1:] == SIZE
    numbers = [f"{t:03d}.tif" for t in range(len(frames))]
    assert sorted(os.listdir(out / "01")) == [f"t{n}" for n in numbers]
    truth = {"SEG": "man_seg", "TRA": "man_track"}
    if kind == "brightfield" or (kind == "varied" and (out / "01_GT" / "SEM").exists()):  # if nuclei are in bodies
        truth["SEM"] = "man_sem"
    assert sorted(os.listdir(out / "01_GT")) == sorted(truth)
    for folder, prefix in truth.items():
        files = sorted(p for p in os.listdir(out / "01_GT" / folder) if p.endswith(".tif"))
        assert files == [f"{prefix}{n}" for n in numbers]
    assert np.array_equal(stack(out, "01_GT/SEG"), stack(out, "01_GT/TRA"))
    assert not list(out.parent.glob(".*")), "temporary folders are left"


def test_each_track_is_where_its_row_says(made: tuple[str, Path]) -> None:
    _, out = made
    for name in sorted(p.name for p in out.glob("??")):
        labels, rows = stack(out, f"{name}_GT/TRA"), rows_of(out, name)
        present = [set(np.unique(frame)) - {0} for frame in labels]
        assert set.union(*present) == set(rows[:, 0])
        assert len(set(rows[:, 0])) == len(rows)
        for label, begin, end, parent in rows:
            assert [t for t, ids in enumerate(present) if label in ids] == list(range(begin, end + 1))
            if parent:
                mother = rows[rows[:, 0] == parent]
                assert len(mother) == 1
                assert mother[0, 2] == begin - 1


def test_each_cell_is_one_piece_of_some_pixels(made: tuple[str, Path]) -> None:
    _, out = made
    for frame in stack(out, "01_GT/SEG")[::3]:
        for label in np.unique(frame[frame > 0]):
            mask = frame == label
            assert mask.sum() >= 10
            assert ndimage.label(mask)[1] == 1


def test_the_truth_is_a_valid_result_for_the_challenge(made: tuple[str, Path], tmp_path: Path) -> None:
    _, out = made
    result = tmp_path / "01_RES"
    result.mkdir()
    for path in (out / "01_GT/TRA").glob("*"):
        name = path.name.replace("man_track.txt", "res_track.txt").replace("man_track", "mask")
        os.link(path, result / name)
    assert validate_sequence(str(result))["Valid"] == 1


@pytest.mark.parametrize("made", ["nuclei", "brightfield"], indirect=True)
def test_every_end_and_beginning_has_a_reason(made: tuple[str, Path]) -> None:
    _, out = made
    divisions = entered = left = 0
    for name in sorted(p.name for p in out.glob("??")):
        labels, rows = stack(out, f"{name}_GT/TRA"), rows_of(out, name)
        children = {parent: int((rows[:, 3] == parent).sum()) for parent in rows[rows[:, 3] > 0, 3]}
        assert set(children.values()) <= {1, 2}
        assert sum(n == 2 for n in children.values()) >= 0.7 * len(children)
        divisions += sum(n == 2 for n in children.values())
        for label, begin, end, parent in rows:
            if begin > 0 and not parent:
                assert at_border(labels[begin] == label), "a cell appears out of nothing"
                entered += 1
            if end < FRAMES - 1 and label not in children:
                last = labels[end] == label
                if at_border(last):
                    left += 1
                else:  # it died: shrunk to a fraction of what it was
                    assert last.sum() < 0.6 * max((labels[t] == label).sum() for t in range(begin, end))
    assert divisions >= 4
    assert entered >= 2
    assert left >= 1


@pytest.mark.parametrize("made", ["nuclei", "brightfield"], indirect=True)
def test_cells_move_and_change_smoothly(made: tuple[str, Path]) -> None:
    _, out = made
    labels = stack(out, "01_GT/TRA")
    overlaps, areas = [], []
    for before, after in itertools.pairwise(labels):
        for label in np.intersect1d(before, after)[1:]:
            a, b = before == label, after == label
            if at_border(a) or at_border(b):
                continue
            overlaps.append((a & b).sum() / (a | b).sum())
            areas.append(b.sum() / a.sum())
    assert 0.6 < np.median(overlaps) < 0.98, "they move, but not far"
    assert np.quantile(overlaps, 0.02) > 0.25
    assert 0.7 < np.quantile(areas, 0.01) <= np.quantile(areas, 0.99) < 1.4


def test_daughters_are_small_beside_their_mothers_and_grow(nuclei: Path) -> None:
    labels, rows = stack(nuclei, "01_GT/TRA"), rows_of(nuclei)
    for label, begin, end, parent in rows[rows[:, 3] > 0]:
        born, mother = labels[begin] == label, labels[begin - 1] == parent
        if at_border(mother) or at_border(born):
            continue
        assert born.sum() < 0.75 * mother.sum()
        assert (ndimage.binary_dilation(mother, iterations=4) & born).sum() > 0.8 * born.sum()
        late = labels[min(begin + 9, end)] == label
        if end >= begin + 9 and not at_border(late):
            assert late.sum() > 1.3 * born.sum()


def test_nuclei_touch_and_shine(nuclei: Path) -> None:
    frames, labels = stack(nuclei, "01").astype(float), stack(nuclei, "01_GT/SEG")
    touching = total = 0
    brightness, contrast = [], []
    for frame, truth in zip(frames[::5], labels[::5], strict=True):
        far = ndimage.binary_dilation(truth > 0, iterations=2)
        for label in np.unique(truth)[1:]:
            mask = truth == label
            near = ndimage.binary_dilation(mask, np.ones((3, 3)))
            touching += bool(set(np.unique(truth[near])) - {0, label})
            total += 1
            around = ndimage.binary_dilation(mask, iterations=6) & ~far
            if around.sum() > 20:
                contrast.append((frame[mask].mean() - frame[around].mean()) / frame[around].std())
                brightness.append(frame[mask].mean() - frame[around].mean())
    assert touching > 0.3 * total
    assert np.mean(np.array(contrast) > 3) > 0.97, "every nucleus can be seen"
    assert np.std(brightness) > 0.25 * np.mean(brightness), "and they differ"


@pytest.mark.parametrize("made", ["brightfield"], indirect=True)
def test_brightfield_classes(made: tuple[str, Path]) -> None:
    _, out = made
    frames, labels, classes = (stack(out, f) for f in ("01", "01_GT/SEG", "01_GT/SEM"))
    assert set(np.unique(classes)) == {0, 1, 2}
    assert np.array_equal(classes > 0, labels > 0)
    assert 2 < (classes == 2).sum() / (classes == 1).sum() < 6
    for label in np.unique(labels[0])[1:]:
        mask = labels[0] == label
        if not at_border(mask):
            assert (classes[0][mask] == 1).any()
            assert (classes[0][mask] == 2).any()
    empty = frames[classes == 0].mean()
    assert 20000 < empty < 45000, "a grey background"
    # local contrast of cells is far above that of the background away from them
    rough = np.abs(frames[0] - ndimage.uniform_filter(frames[0].astype(float), 7))
    away = ~ndimage.binary_dilation(labels[0] > 0, iterations=4)
    assert rough[labels[0] > 0].mean() > 1.5 * rough[away].mean()


@pytest.mark.parametrize("made", ["fibres"], indirect=True)
def test_fibres_are_unrelated_images_of_packed_cells(made: tuple[str, Path]) -> None:
    _, out = made
    frames, labels, rows = stack(out, "01"), stack(out, "01_GT/SEG"), rows_of(out)
    assert (rows[:, 1] == rows[:, 2]).all()
    assert (rows[:, 3] == 0).all()
    assert 0.55 < (labels > 0).mean() < 0.92
    for frame, truth in zip(frames, labels, strict=True):
        assert len(np.unique(truth)) - 1 == pytest.approx(45 * SIZE[0] * SIZE[1] / 128**2, rel=0.5)
        walls = frame[truth == 0].mean() / frame[truth > 0].mean()
        assert walls > 1.15, "walls are brighter than fibres in either stain"
    assert not np.allclose(labels[0] > 0, labels[1] > 0)


def test_varied_videos_differ_in_all_that_a_model_shall_not_rely_on() -> None:
    size, brightness, density, noisy, shape = [], [], [], [], []
    for seed in range(40):
        (frame,) = varied_video(np.random.default_rng([9, seed]), 1, (144, 144), None)
        cells = [cell for cell in regionprops(frame.labels, frame.image) if cell.area > 40]
        density.append((frame.labels > 0).mean())
        noisy.append(noise(frame.image) / max(np.ptp(frame.image), 1))
        size += [np.median([cell.equivalent_diameter_area for cell in cells])] if cells else []
        brightness += [np.std(np.log([cell.intensity_mean for cell in cells]))] if len(cells) > 2 else []
        shape += [np.median([cell.solidity for cell in cells])] if cells else []
    assert min(density) < 0.05
    assert max(density) > 0.4
    assert max(size) > 1.6 * min(size)
    assert max(brightness) > 3 * min(brightness)
    assert max(noisy) > 10 * min(noisy)
    assert min(shape) < 0.9 < 0.95 < np.median(shape), "some have arms, most are round"


def test_faint_bodies_around_nuclei_are_cytoplasm() -> None:
    frames = [next(varied_video(np.random.default_rng([5, seed]), 1, (144, 144), None)) for seed in range(40)]
    with_bodies = [frame for frame in frames if frame.classes is not None and (frame.classes == 2).any()]
    assert 5 < len(with_bodies) < 30
    for frame in with_bodies:
        np.testing.assert_array_equal(frame.classes == 1, frame.labels > 0)
    brighter = [
        frame.image[frame.classes == 2].mean() > frame.image[frame.classes == 0].mean() for frame in with_bodies
    ]
    dimmer = [frame.image[frame.classes == 2].mean() < frame.image[frame.classes == 1].mean() for frame in with_bodies]
    assert np.mean(brighter) > 0.8
    assert all(dimmer)


def test_cells_that_are_thick_in_the_middle_are_dark_at_the_rim(monkeypatch: pytest.MonkeyPatch) -> None:
    def rim_to_middle(flat_light: float) -> float:
        draw = Specimen.draw.__func__
        known = {"arms": 1.0, "dome": 0.0, "flat_light": flat_light, "middle": 0.5, "coverage": 0.1}
        ratios = []
        with monkeypatch.context() as patch:
            patch.setattr(Specimen, "draw", classmethod(lambda cls, rng: replace(draw(cls, rng), **known)))
            for seed in range(12):
                (frame,) = varied_video(np.random.default_rng([7, seed]), 1, (144, 144), None)
                ground = frame.image[~ndimage.binary_dilation(frame.labels > 0, iterations=6)].mean()
                for cell in regionprops(frame.labels, frame.image - ground):
                    depth = ndimage.distance_transform_edt(np.pad(cell.image, 1))[1:-1, 1:-1][cell.image]
                    light = cell.image_intensity[cell.image][np.argsort(depth, kind="stable")]
                    few = 1 + len(light) // 5
                    ratios.append(light[:few].mean() / light[-few:].mean())
        return float(np.median(ratios))

    assert rim_to_middle(0.1) < 0.7 * rim_to_middle(1.0)


def test_some_varied_videos_show_no_cell() -> None:
    assert any(
        not next(varied_video(np.random.default_rng(seed), 1, (64, 64), None)).labels.any() for seed in range(120)
    )


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for kind in SEQUENCES:
        short = {"kind": kind, "size": (64, 64), "seed": 3}
        first = simulate(tmp_path / kind, sequences=1, frames=3, **short)
        code = "import sys; from lightning_cells.data.simulate import simulate; " + (
            f"simulate(sys.argv[1], {kind!r}, sequences=2, frames=5, size=(64, 64), seed=3)"
        )
        other = tmp_path / f"{kind}-more"
        subprocess.run([sys.executable, "-c", code, str(other)], check=True, timeout=300)
        wanted, found = digests(first), digests(other)
        wanted.pop("01_GT/TRA/man_track.txt")  # ends later in the longer video
        assert wanted.items() <= found.items()
        assert found["01/t000.tif"] != found["02/t000.tif"]
        seed = simulate(tmp_path / f"{kind}-seed", kind, 1, 1, (64, 64), seed=4)
        assert digests(seed)["01/t000.tif"] != wanted["01/t000.tif"]


def test_number_of_cells(tmp_path: Path) -> None:
    def start(name: str, **options: object) -> int:
        out = simulate(tmp_path / name, sequences=1, frames=1, seed=1, **options)
        return len(np.unique(stack(out, "01_GT/SEG"))) - 1

    assert 10 <= start("default") <= 19
    assert 48 <= start("large", size=(256, 256)) <= 75
    assert 1 <= start("one", cells=1) <= 3
    assert 28 <= start("many", cells=30) <= 38
    assert start("fibres", kind="fibres", cells=20) < start("packed", kind="fibres", cells=80)


def test_long_videos_have_longer_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blank = np.zeros((32, 32), int)
    frame = SimulatedFrame(blank.astype(np.uint16), blank.astype(np.int32), {})
    monkeypatch.setitem(module.SIMULATORS, "nuclei", lambda rng, frames, size, cells: [frame] * frames)
    out = simulate(tmp_path / "long", sequences=1, frames=1001, size=(32, 32))
    assert len(os.listdir(out / "01")) == 1001
    assert (out / "01/t0000.tif").exists()
    assert (out / "01_GT/TRA/man_track1000.tif").exists()
    assert (out / "01_GT/TRA/man_track.txt").read_text() == "", "nothing was to be seen"


def test_long_videos_neither_die_out_nor_fill_up() -> None:
    video = nuclei_video(np.random.default_rng(0), 300, (64, 64), None)
    covered = [(frame.labels > 0).mean() for frame in video]
    assert 0.1 < np.mean(covered[-100:]) < 0.9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "bacteria"}, "nuclei, brightfield, fibres, varied"),
        ({"sequences": 0}, "sequences"),
        ({"sequences": 1000}, "1 to 999"),
        ({"frames": 0}, "frames"),
        ({"size": (31, 128)}, "31 x 128"),
        ({"size": (128,)}, "size"),
        ({"seed": -1}, "seed"),
        ({"cells": 0}, "cells"),
        ({"cells": 1000}, "room for 1 to 65"),
    ],
)
def test_what_cannot_be_simulated(tmp_path: Path, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        simulate(tmp_path / "out", **options)
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty: choose another"):
        simulate(tmp_path, frames=1)
    assert os.listdir(tmp_path) == ["mine.txt"]
    for place in (tmp_path / "mine.txt", tmp_path / "mine.txt" / "below"):
        with pytest.raises(InputError, match=r"mine\.txt"):
            simulate(place, frames=1)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    out = tmp_path / "empty"
    out.mkdir()
    simulate(out, sequences=1, frames=1, size=(32, 32))
    assert sorted(os.listdir(out)) == ["01", "01_GT"]


@pytest.mark.parametrize("exists", [False, True])
def test_what_a_killed_process_left_is_removed(tmp_path: Path, exists: bool) -> None:
    out = tmp_path / "out"
    if exists:
        out.mkdir()
    code = (
        "import os, sys; from pathlib import Path; import lightning_cells.data.simulate as module\n"
        "module.write_tracks = lambda *_: os.kill(os.getpid(), 9)\n"
        "module.simulate(Path(sys.argv[1]), sequences=1, frames=1, size=(32, 32))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(out)], check=False).returncode == -9
    assert list(tmp_path.rglob("t000.tif")), "it had begun"
    simulate(out, sequences=1, frames=1, size=(32, 32))
    assert os.listdir(tmp_path) == ["out"]
    assert sorted(os.listdir(out)) == ["01", "01_GT"]


@pytest.mark.parametrize("exists", [False, True])
def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    if exists:
        out.mkdir()
    monkeypatch.setattr(module, "write_tracks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulate(out, sequences=1, frames=1, size=(32, 32))
    assert list(tmp_path.rglob("*")) == ([out] if exists else [])
