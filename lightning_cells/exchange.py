"""Results in the formats of other programs: tables, GEFF, TrackMate, napari, OME-Zarr.

All begin with the cells as nodes of a graph, with an edge from each cell to what becomes of it in a later frame. Places
are in pixels from the centre of the upper left one, times are numbers of frames.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import tifffile

from lightning_cells.data.atomic import beside
from lightning_cells.data.frames import open_frames
from lightning_cells.errors import InputError
from lightning_cells.result import Result


def export(result: Result, to: str, out: Path) -> Path:
    """Writes a result for another program; what is there under that name is replaced.

    Args:
        result: the tracked cells.
        to: one of `FORMATS`.
        out: the file or folder to write.

    Returns:
        `out`.

    Raises:
        InputError: if a package is missing that writes the format, or `out` is something else than an earlier export.
    """
    if out.is_dir() and not (out / _MARK).is_file() and any(out.iterdir()):
        raise InputError(f"{out}: is a folder with something else in it: give another name by --out")
    write, _ = FORMATS[to]
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(out)
    try:
        write(result, temporary)
        if temporary.is_dir():
            (temporary / _MARK).write_text(f"{to}\n")
        if out.is_dir():
            shutil.rmtree(out)
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.unlink(missing_ok=True)
    return out


_MARK = ".lightning-cells-export"


def nodes(result: Result) -> pd.DataFrame:
    """The cells, a row each, as ``Result.cells`` has them, with ``id`` from 0 and ``parent``, 0 for none."""
    cells = result.cells.sort_values(["frame", "track"], ignore_index=True)
    parents = {track.label: track.parent for track in result.lineage.values()}
    cells.insert(0, "id", np.arange(len(cells)))
    cells.insert(3, "parent", cells["track"].map(parents).fillna(0).astype(np.int64))
    return cells


def edges(cells: pd.DataFrame) -> np.ndarray:
    """Pairs of ids, int64 (N, 2): from a cell to itself in the next frame, and from mother to daughters."""
    latest: dict[int, int] = {}
    pairs = []
    for row in _rows(cells.sort_values(["frame", "track"])):
        before = latest.get(row["track"], latest.get(row["parent"]))
        if before is not None:
            pairs.append((before, row["id"]))
        latest[row["track"]] = row["id"]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _rows(cells: pd.DataFrame) -> list[dict[str, Any]]:
    return cells.to_dict("records")  # type: ignore[return-value]  # column names are strings


def _csv(result: Result, out: Path) -> None:
    nodes(result).drop(columns="id").to_csv(out, index=False)


def _geff(result: Result, out: Path) -> None:
    geff, networkx = _package("geff", "geff"), _package("networkx", "geff")
    cells = nodes(result)
    graph = networkx.DiGraph()
    for row in _rows(cells):
        graph.add_node(row["id"], t=row["frame"], **{name: row[name] for name in ("y", "x", "area", "track")})
    graph.add_edges_from(edges(cells).tolist())
    types, units = ["time", "space", "space"], ["frame", "pixel", "pixel"]
    geff.write(graph, str(out), axis_names=["t", "y", "x"], axis_types=types, axis_units=units)


def _trackmate(result: Result, out: Path) -> None:
    cells = nodes(result)
    links = edges(cells)
    height, width = result.labels.shape[1:]
    root = ElementTree.Element("TrackMate", version="7.11.1")
    model = ElementTree.SubElement(root, "Model", spatialunits="pixel", timeunits="frame")
    features = ElementTree.SubElement(model, "FeatureDeclarations")
    for part in ("SpotFeatures", "EdgeFeatures", "TrackFeatures"):
        ElementTree.SubElement(features, part)
    spots = ElementTree.SubElement(model, "AllSpots", nspots=str(len(cells)))
    for frame, group in cells.groupby("frame"):
        inside = ElementTree.SubElement(spots, "SpotsInFrame", frame=str(frame))
        for row in _rows(group):
            spot = {
                "ID": row["id"],
                "name": row["track"],
                "QUALITY": 1.0,
                "POSITION_X": row["x"],
                "POSITION_Y": row["y"],
                "POSITION_Z": 0.0,
                "POSITION_T": float(row["frame"]),
                "FRAME": row["frame"],
                "RADIUS": np.sqrt(row["area"] / np.pi),
                "VISIBILITY": 1,
            }
            ElementTree.SubElement(inside, "Spot", {name: str(value) for name, value in spot.items()})
    tracks = ElementTree.SubElement(model, "AllTracks")
    shown = ElementTree.SubElement(model, "FilteredTracks")
    for number, family in enumerate(_families(len(cells), links)):
        track = ElementTree.SubElement(
            tracks, "Track", {"name": f"Track_{number}", "TRACK_ID": str(number), "TRACK_INDEX": str(number)}
        )
        for source, target in family:
            ends = {"SPOT_SOURCE_ID": str(source), "SPOT_TARGET_ID": str(target)}
            ElementTree.SubElement(track, "Edge", ends)
        ElementTree.SubElement(shown, "TrackID", TRACK_ID=str(number))
    settings = ElementTree.SubElement(root, "Settings")
    frames = {"filename": _name(result), "folder": _folder(result), "width": str(width), "height": str(height)}
    sizes = {"nslices": "1", "nframes": str(len(result)), "pixelwidth": "1.0", "pixelheight": "1.0"}
    ElementTree.SubElement(settings, "ImageData", {**frames, **sizes, "voxeldepth": "1.0", "timeinterval": "1.0"})
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(out, encoding="UTF-8", xml_declaration=True)


def _napari(result: Result, out: Path) -> None:
    out.mkdir()
    labels = result.labels.astype(np.uint16)
    tifffile.imwrite(out / "labels.tif", labels, photometric="minisblack", metadata={"axes": "TYX"})
    data, graph = napari_tracks(result)
    pd.DataFrame(data, columns=["track", "t", "y", "x"]).to_csv(out / "tracks.csv", index=False)
    (out / "graph.json").write_text(json.dumps(graph))


def _ome_zarr(result: Result, out: Path) -> None:
    zarr = _package("zarr", "geff")
    axes = [{"name": "t", "type": "time"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]

    def write(group: Any, array: np.ndarray, name: str) -> None:
        keys = {"name": "v2", "separator": "/"}
        group.create_array("0", data=array, chunks=(1, *array.shape[1:]), chunk_key_encoding=keys)
        datasets = [{"path": "0", "coordinateTransformations": scale}]
        group.attrs["multiscales"] = [{"version": "0.4", "name": name, "axes": axes, "datasets": datasets}]

    root = zarr.open_group(str(out), mode="w", zarr_format=2)
    if result.frames is not None:
        with open_frames(result.frames) as frames:
            write(root, np.stack([frames.read(index) for index in range(len(frames))]), "frames")
    labels = root.create_group("labels")
    labels.attrs["labels"] = ["cells"]
    cells = labels.create_group("cells")
    write(cells, result.labels.astype(np.uint16), "cells")
    cells.attrs["image-label"] = {"version": "0.4", "source": {"image": "../../"}}


def napari_tracks(result: Result) -> tuple[np.ndarray, dict[int, list[int]]]:
    """What napari's layer of tracks takes: float64 (N, 4) of track, t, y, x, and the mothers of each track."""
    cells = nodes(result).sort_values(["track", "frame"])
    data = cells[["track", "frame", "y", "x"]].to_numpy(np.float64)
    data[:, 1] -= result.first_frame
    graph = {track.label: [track.parent] for track in result.lineage.values() if track.parent}
    return data, graph


def view(result: Result) -> None:
    """Opens napari on frames, cells and tracks, until its window is closed.

    Raises:
        InputError: if napari is not installed.
    """
    napari = _package("napari", "napari")
    viewer = napari.Viewer(title="lightning_cells")
    if result.frames is not None:
        with open_frames(result.frames) as frames:
            viewer.add_image(np.stack([frames.read(index) for index in range(len(frames))]), name="frames")
    viewer.add_labels(result.labels, name="cells")
    data, graph = napari_tracks(result)
    if len(data):
        viewer.add_tracks(data, graph=graph, name="tracks")
    napari.run()


FORMATS: Mapping[str, tuple[Callable[[Result, Path], None], str]] = {
    "csv": (_csv, ".csv"),
    "geff": (_geff, ".geff"),
    "trackmate": (_trackmate, ".xml"),
    "napari": (_napari, "_napari"),
    "ome-zarr": (_ome_zarr, ".ome.zarr"),
}
"""What writes each format, and how the names of its files end."""


def _package(name: str, extra: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError:
        raise InputError(f"{name} is not installed: pip install 'lightning-cells[{extra}]'") from None


def _families(count: int, links: np.ndarray) -> list[list[tuple[int, int]]]:
    """The edges of each connected part of the graph that has any."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    matrix = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), (count, count))
    _, part = connected_components(matrix, directed=False)
    families: dict[int, list[tuple[int, int]]] = {}
    for source, target in links.tolist():
        families.setdefault(int(part[source]), []).append((source, target))
    return list(families.values())


def _name(result: Result) -> str:
    return result.frames.name if isinstance(result.frames, Path) else ""


def _folder(result: Result) -> str:
    return str(result.frames.resolve().parent) if isinstance(result.frames, Path) else ""
