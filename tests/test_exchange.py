"""Results for other programs, read back by what reads them; all parts are worked out by hand."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import tifffile

from lightning_cells.cli import main
from lightning_cells.data.simulate import simulate
from lightning_cells.data.tracks import Track
from lightning_cells.errors import InputError
from lightning_cells.exchange import FORMATS, edges, export, nodes, view
from lightning_cells.result import Result


@pytest.fixture
def result() -> Result:
    """Three frames from number 5 on: cell 1 divides into 3 and 4 after two frames, cell 2 stays."""
    labels = np.zeros((3, 12, 16), np.int32)
    labels[:2, 1:4, 1:4] = 1
    labels[:, 8:10, 10:14] = 2
    labels[2, 0:2, 0:2] = 3
    labels[2, 4:6, 4:7] = 4
    rows = [Track(1, 5, 6, 0), Track(2, 5, 7, 0), Track(3, 7, 7, 1), Track(4, 7, 7, 1)]
    return Result(labels, {row.label: row for row in rows}, 5, np.full((3, 12, 16), 7, np.uint8))


def test_the_graph(result: Result) -> None:
    cells = nodes(result)
    assert cells[["id", "frame", "track", "parent"]].to_numpy().tolist() == [
        [0, 5, 1, 0],
        [1, 5, 2, 0],
        [2, 6, 1, 0],
        [3, 6, 2, 0],
        [4, 7, 2, 0],
        [5, 7, 3, 1],
        [6, 7, 4, 1],
    ]
    assert {tuple(edge) for edge in edges(cells).tolist()} == {(0, 2), (1, 3), (3, 4), (2, 5), (2, 6)}


def test_a_gap_in_a_track_is_bridged() -> None:
    labels = np.zeros((3, 8, 8), np.int32)
    labels[[0, 2], 2:4, 2:4] = 1
    gap = Result(labels, {1: Track(1, 0, 2, 0)})
    assert edges(nodes(gap)).tolist() == [[0, 1]]


def test_csv(result: Result, tmp_path: Path) -> None:
    table = pd.read_csv(export(result, "csv", tmp_path / "cells.csv"))
    assert list(table.columns) == ["frame", "track", "parent", "y", "x", "area", "mean_intensity"]
    assert table.iloc[1].tolist() == [5, 2, 0, 8.5, 11.5, 8, 7]


def test_geff_is_read_by_its_own_package(result: Result, tmp_path: Path) -> None:
    geff = pytest.importorskip("geff")
    out = export(result, "geff", tmp_path / "cells.geff")
    graph, metadata = geff.read(out)
    assert [axis.name for axis in metadata.axes] == ["t", "y", "x"]
    assert metadata.directed
    assert set(graph.edges) == {(0, 2), (1, 3), (3, 4), (2, 5), (2, 6)}
    assert graph.nodes[1] == {"t": 5, "y": 8.5, "x": 11.5, "area": 8, "track": 2}
    geff.validate_structure(out)


def test_trackmate(result: Result, tmp_path: Path) -> None:
    root = ElementTree.parse(export(result, "trackmate", tmp_path / "cells.xml")).getroot()
    spots = {spot.get("ID"): spot for spot in root.iter("Spot")}
    assert root.find("Model/AllSpots").get("nspots") == "7" == str(len(spots))
    assert (spots["1"].get("POSITION_X"), spots["1"].get("POSITION_Y"), spots["1"].get("FRAME")) == ("11.5", "8.5", "5")
    assert float(spots["1"].get("RADIUS")) == pytest.approx((8 / np.pi) ** 0.5)
    families = [
        {(int(edge.get("SPOT_SOURCE_ID")), int(edge.get("SPOT_TARGET_ID"))) for edge in track}
        for track in root.iter("Track")
    ]
    assert families == [{(0, 2), (2, 5), (2, 6)}, {(1, 3), (3, 4)}]
    assert [track.get("TRACK_ID") for track in root.iter("TrackID")] == ["0", "1"]


def test_napari_files(result: Result, tmp_path: Path) -> None:
    out = export(result, "napari", tmp_path / "out")
    np.testing.assert_array_equal(tifffile.imread(out / "labels.tif"), result.labels)
    assert json.loads((out / "graph.json").read_text()) == {"3": [1], "4": [1]}
    assert pd.read_csv(out / "tracks.csv").iloc[0].tolist() == [1, 0, 2, 2]


def test_ome_zarr(result: Result, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    root = zarr.open_group(str(export(result, "ome-zarr", tmp_path / "cells.ome.zarr")), mode="r")
    np.testing.assert_array_equal(root["0"][:], result.frames)
    np.testing.assert_array_equal(root["labels/cells/0"][:], result.labels)
    (scales,) = root["labels/cells"].attrs["multiscales"]
    assert [axis["name"] for axis in scales["axes"]] == ["t", "y", "x"]
    assert root["labels"].attrs["labels"] == ["cells"]


@pytest.mark.parametrize("to", ["csv", "trackmate", "napari"])
def test_empty_results_and_twice(to: str, tmp_path: Path) -> None:
    empty = Result(np.zeros((2, 8, 8), np.int32), {})
    out = tmp_path / f"out{FORMATS[to][1]}"
    assert export(empty, to, out) == export(empty, to, out)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_what_a_killed_export_left_is_removed(result: Result, tmp_path: Path) -> None:
    (tmp_path / ".cells.csv.exporting").write_text("half")
    (tmp_path / ".cells.exporting").mkdir()
    (tmp_path / ".cells.exporting" / "half.tif").write_bytes(b"half")
    export(result, "csv", tmp_path / "cells.csv")
    out = export(result, "napari", tmp_path / "cells")
    assert {path.name for path in tmp_path.iterdir()} == {"cells.csv", "cells"}
    assert "half.tif" not in {path.name for path in out.iterdir()}


def test_a_folder_of_someone_else_is_left_alone(result: Result, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").touch()
    with pytest.raises(InputError, match="with something else in it"):
        export(result, "napari", tmp_path / "mine")


def test_the_verb(result: Result, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result.save(tmp_path / "01_RES")
    assert main(["export", str(tmp_path / "01_RES"), "--to", "csv"]) == 0
    assert capfd.readouterr().out == f"{tmp_path / '01_RES.csv'}\n"
    assert len(pd.read_csv(tmp_path / "01_RES.csv")) == 7


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict:
    """What a viewer in napari's place is given, by the name of the call: data and options."""
    given = {}

    class Viewer:
        def __init__(self, title: str) -> None:
            pass

        def __getattr__(self, name: str):
            return lambda data, **options: given.update({name: (data, options)})

    monkeypatch.setitem(sys.modules, "napari", SimpleNamespace(Viewer=Viewer, run=lambda: None))
    return given


def test_view_shows_three_layers(result: Result, tmp_path: Path, shown: dict) -> None:
    result.save(tmp_path / "01_RES")
    tifffile.imwrite(tmp_path / "frames.tif", result.frames, photometric="minisblack")
    assert main(["view", str(tmp_path / "01_RES"), str(tmp_path / "frames.tif")]) == 0
    np.testing.assert_array_equal(shown["add_image"][0], result.frames)
    np.testing.assert_array_equal(shown["add_labels"][0], result.labels)
    tracks, options = shown["add_tracks"]
    assert tracks.shape == (7, 4)
    assert options["graph"] == {3: [1], 4: [1]}


def test_without_napari_the_remedy_is_told(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "napari", None)
    result.save(tmp_path / "01_RES")
    assert main(["view", str(tmp_path / "01_RES")]) == 2
    assert "pip install 'lightning-cells[napari]'" in capfd.readouterr().err


@pytest.fixture
def deep() -> Result:
    """Two frames of four planes: cell 1 moves down by a plane, cell 2 is new."""
    labels = np.zeros((2, 4, 6, 8), np.int32)
    labels[0, 0:2, 1:3, 2:4] = labels[1, 1:3, 1:3, 2:4] = 1
    labels[1, 3, 5, 7] = 2
    lineage = {1: Track(1, 0, 1, 0), 2: Track(2, 1, 1, 0)}
    return Result(labels, lineage, 0, np.full(labels.shape, 7, np.uint8))


def test_volumes_as_a_table(deep: Result, tmp_path: Path) -> None:
    table = pd.read_csv(export(deep, "csv", tmp_path / "cells.csv"))
    assert list(table.columns) == ["frame", "track", "parent", "z", "y", "x", "area", "mean_intensity"]
    assert table.to_numpy().tolist() == [
        [0, 1, 0, 0.5, 1.5, 2.5, 8, 7],
        [1, 1, 0, 1.5, 1.5, 2.5, 8, 7],
        [1, 2, 0, 3, 5, 7, 1, 7],
    ]


def test_volumes_as_geff(deep: Result, tmp_path: Path) -> None:
    geff = pytest.importorskip("geff")
    graph, metadata = geff.read(export(deep, "geff", tmp_path / "cells.geff", (5, 1, 0.5)))
    assert [(axis.name, axis.scale) for axis in metadata.axes] == [("t", 1), ("z", 5), ("y", 1), ("x", 0.5)]
    assert [axis.scaled_unit for axis in metadata.axes] == ["frame", *["micrometer"] * 3]
    assert graph.nodes[1] == {"t": 1, "z": 1.5, "y": 1.5, "x": 2.5, "area": 8, "track": 1}
    assert set(graph.edges) == {(0, 1)}


def test_volumes_for_trackmate_are_in_micrometres(deep: Result, tmp_path: Path) -> None:
    root = ElementTree.parse(export(deep, "trackmate", tmp_path / "cells.xml", (5, 1, 0.5))).getroot()
    spot = next(root.iter("Spot"))
    assert [float(spot.get(f"POSITION_{axis}")) for axis in "XYZ"] == [1.25, 1.5, 2.5]
    assert 4 / 3 * np.pi * float(spot.get("RADIUS")) ** 3 == pytest.approx(8 * 5 * 1 * 0.5)
    image = root.find("Settings/ImageData")
    assert [image.get(name) for name in ("nslices", "voxeldepth", "pixelheight", "pixelwidth")] == [
        "4",
        "5.0",
        "1.0",
        "0.5",
    ]
    assert root.find("Model").get("spatialunits") == "micrometer"


def test_volumes_for_napari(deep: Result, tmp_path: Path) -> None:
    out = export(deep, "napari", tmp_path / "out", (5, 1, 1))
    np.testing.assert_array_equal(tifffile.imread(out / "labels.tif"), deep.labels)
    with tifffile.TiffFile(out / "labels.tif") as file:
        assert file.series[0].axes == "TZYX"
    table = pd.read_csv(out / "tracks.csv")
    assert list(table.columns) == ["track", "t", "z", "y", "x"]
    assert table.iloc[0].tolist() == [1, 0, 0.5, 1.5, 2.5]
    assert json.loads((out / "scale.json").read_text()) == [1, 5, 1, 1]


def test_volumes_as_ome_zarr(deep: Result, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    root = zarr.open_group(str(export(deep, "ome-zarr", tmp_path / "cells.ome.zarr", (5, 1, 0.5))), mode="r")
    np.testing.assert_array_equal(root["0"][:], deep.frames)
    np.testing.assert_array_equal(root["labels/cells/0"][:], deep.labels)
    for group in (root, root["labels/cells"]):
        (scales,) = group.attrs["multiscales"]
        assert [axis["name"] for axis in scales["axes"]] == ["t", "z", "y", "x"]
        assert [axis.get("unit") for axis in scales["axes"]] == [None, *["micrometer"] * 3]
        assert scales["datasets"][0]["coordinateTransformations"] == [{"type": "scale", "scale": [1, 5, 1, 0.5]}]


def test_the_voxel_of_the_frames_is_taken(tmp_path: Path) -> None:
    videos = simulate(tmp_path / "videos", sequences=1, frames=2, size=(32, 32), depth=3, voxel=(4, 1, 0.5))
    result = tmp_path / "01_RES"
    result.mkdir()
    for path in (videos / "01_GT/TRA").iterdir():
        path.rename(result / path.name.replace("man_track.txt", "res_track.txt").replace("man_track", "mask"))
    assert (
        main(["export", str(result), "--to", "napari", "--frames", str(videos / "01"), "--out", str(tmp_path / "a")])
        == 0
    )
    assert json.loads((tmp_path / "a/scale.json").read_text()) == [1, 4, 1, 0.5]
    assert main(["export", str(result), "--to", "napari", "--out", str(tmp_path / "b"), "--voxel", "2", "1", "1"]) == 0
    assert json.loads((tmp_path / "b/scale.json").read_text()) == [1, 2, 1, 1]
    assert main(["export", str(result), "--to", "napari", "--out", str(tmp_path / "c")]) == 0
    assert json.loads((tmp_path / "c/scale.json").read_text()) == [1, 1, 1, 1]


def test_frames_are_read_as_the_user_says(deep: Result, tmp_path: Path, shown: dict, capfd) -> None:
    deep.save(tmp_path / "01_RES")
    frames = np.arange(deep.labels.size, dtype=np.uint16).reshape(deep.labels.shape)
    tifffile.imwrite(tmp_path / "a.tif", frames, photometric="minisblack")
    of, to = str(tmp_path / "01_RES"), ["--to", "csv", "--frames", str(tmp_path / "a.tif")]
    assert main(["export", of, *to]) == 2
    assert "--axes" in capfd.readouterr().err
    assert main(["export", of, *to, "--axes", "TZYX"]) == 0
    means = pd.read_csv(tmp_path / "01_RES.csv")["mean_intensity"]
    assert sorted(means) == sorted(
        frames[at][deep.labels[at] == track].mean() for at, track in ((0, 1), (1, 1), (1, 2))
    )
    assert main(["view", of, str(tmp_path / "a.tif"), "--axes", "TZYX"]) == 0
    np.testing.assert_array_equal(shown["add_image"][0], frames)
    for words in (["export", of, "--to", "csv"], ["view", of]):
        assert main([*words, "--channel", "1"]) == 2
        assert "--channel 1: says how frames are read: give FRAMES, too" in capfd.readouterr().err


@pytest.mark.parametrize("to", ["csv", "ome-zarr"])
def test_frames_of_another_result_are_told(to: str, deep: Result, tmp_path: Path, capfd) -> None:
    pytest.importorskip("zarr")
    deep.save(tmp_path / "01_RES")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 6, 8), np.uint8), photometric="minisblack", metadata=None)
    assert main(["export", str(tmp_path / "01_RES"), "--to", to, "--frames", str(tmp_path / "a.tif")]) == 2
    assert "are 4 of 6 x 8, which Result(2 frames of 4 x 6 x 8" in capfd.readouterr().err
    assert not list(tmp_path.glob("01_RES.*"))


def test_images_have_no_voxels(result: Result, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--voxel: is for volumes"):
        export(result, "csv", tmp_path / "cells.csv", (5, 1, 1))
    assert not list(tmp_path.iterdir())


def test_view_shows_volumes_to_scale(deep: Result, shown: dict) -> None:
    view(deep, (5, 1, 1))
    assert shown["add_tracks"][0].shape == (3, 5)
    for _, options in shown.values():
        assert options["scale"] == [1, 5, 1, 1]
