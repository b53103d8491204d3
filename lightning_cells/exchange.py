"""Results in the formats of other programs: tables, GEFF, TrackMate, napari, OME-Zarr.

All begin with the cells as nodes of a graph, with an edge from each cell to what becomes of it in a later frame. Places
are in pixels from the centre of the first one, times are numbers of frames. Of volumes each format has the sides of a
voxel beside them; TrackMate, which has no scale of axes, has places in these units.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import tifffile

from lightning_cells.data.frames import open_frames
from lightning_cells.data.locking import reserved
from lightning_cells.data.voxels import CUBE, check_voxel
from lightning_cells.errors import InputError
from lightning_cells.result import Result


def export(result: Result, to: str, out: Path, voxel: tuple[float, ...] | None = None) -> Path:
    """Writes a result for another program; what is there under that name is replaced.

    Args:
        result: the tracked cells.
        to: one of `FORMATS`.
        out: the file or folder to write.
        voxel: depth, height and width of a voxel of volumes, in micrometres; None takes what the frames say, else 1.

    Returns:
        `out`.

    Raises:
        InputError: if a package is missing that writes the format, `out` is something else than an earlier export, or a
            voxel is given to a result of images.
    """
    if out.is_dir() and not (out / _MARK).is_file() and any(out.iterdir()):
        raise InputError(f"{out}: is a folder with something else in it: give another name by --out")
    write, _ = FORMATS[to]
    space = _space(result, voxel)
    with reserved(out.with_name(f".{out.name}.exporting")) as hidden:
        write(result, hidden, space)
        if hidden.is_dir():
            (hidden / _MARK).write_text(f"{to}\n")
        if out.is_dir():
            shutil.rmtree(out)
        hidden.replace(out)
    return out


_MARK = ".lightning-cells-export"


class _Space(NamedTuple):
    """What places are measured in.

    Attributes:
        axes: ``y`` and ``x``, and before them ``z`` of volumes.
        sides: of a pixel or voxel along each.
        unit: of the sides.
    """

    axes: list[str]
    sides: list[float]
    unit: str

    @property
    def scale(self) -> list[float]:
        """The sides, and before them the step of time."""
        return [1.0, *self.sides]


def _space(result: Result, said: tuple[float, ...] | None) -> _Space:
    voxel = check_voxel(said)
    if result.labels.ndim == 3:
        if voxel is not None:
            raise InputError("--voxel: is for volumes, and the result is images: leave it out")
        return _Space(["y", "x"], [1.0, 1.0], "pixel")
    if voxel is None and isinstance(result.frames, Path):
        with open_frames(result.frames, result.pattern, result.channel, result.axes) as frames:
            voxel = frames.voxel
    return _Space(["z", "y", "x"], list(voxel or CUBE), "pixel" if voxel is None else "micrometer")


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


def _csv(result: Result, out: Path, _: _Space) -> None:
    nodes(result).drop(columns="id").to_csv(out, index=False)


def _geff(result: Result, out: Path, space: _Space) -> None:
    geff, networkx = _package("geff", "geff"), _package("networkx", "geff")
    cells = nodes(result)
    graph = networkx.DiGraph()
    for row in _rows(cells):
        graph.add_node(row["id"], t=row["frame"], **{name: row[name] for name in (*space.axes, "area", "track")})
    graph.add_edges_from(edges(cells).tolist())
    count = len(space.axes)
    types, units = ["time", *["space"] * count], ["frame", *["pixel"] * count]
    scaled = {"axis_scales": space.scale, "scaled_units": ["frame", *[space.unit] * count]} if count == 3 else {}
    geff.write(graph, str(out), axis_names=["t", *space.axes], axis_types=types, axis_units=units, **scaled)


def _trackmate(result: Result, out: Path, space: _Space) -> None:
    cells = nodes(result)
    links = edges(cells)
    height, width = result.labels.shape[-2:]
    sides = dict(zip(space.axes, space.sides, strict=True))
    root = ElementTree.Element("TrackMate", version="7.11.1")
    model = ElementTree.SubElement(root, "Model", spatialunits=space.unit, timeunits="frame")
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
                **{f"POSITION_{axis.upper()}": row[axis] * sides[axis] if axis in sides else 0.0 for axis in "xyz"},
                "POSITION_T": float(row["frame"]),
                "FRAME": row["frame"],
                "RADIUS": _radius(row["area"], space),
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
    planes = result.labels.shape[1] if "z" in sides else 1
    sizes = {"nslices": str(planes), "nframes": str(len(result))}
    sizes |= {"pixelwidth": str(sides["x"]), "pixelheight": str(sides["y"]), "voxeldepth": str(sides.get("z", 1.0))}
    ElementTree.SubElement(settings, "ImageData", {**frames, **sizes, "timeinterval": "1.0"})
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(out, encoding="UTF-8", xml_declaration=True)


def _radius(area: float, space: _Space) -> float:
    """Of the disc of so many pixels, or the ball of so many voxels."""
    if len(space.axes) == 2:
        return float(np.sqrt(area / np.pi))
    return float(np.cbrt(3 / (4 * np.pi) * area * np.prod(space.sides)))


def _napari(result: Result, out: Path, space: _Space) -> None:
    out.mkdir()
    labels = result.labels.astype(np.uint16)
    axes = "".join(["t", *space.axes])
    tifffile.imwrite(out / "labels.tif", labels, photometric="minisblack", metadata={"axes": axes.upper()})
    data, graph = napari_tracks(result)
    pd.DataFrame(data, columns=["track", *axes]).to_csv(out / "tracks.csv", index=False)
    (out / "graph.json").write_text(json.dumps(graph))
    if "z" in space.axes:
        (out / "scale.json").write_text(json.dumps(space.scale))


def _ome_zarr(result: Result, out: Path, space: _Space) -> None:
    zarr = _package("zarr", "geff")
    micrometres = {"unit": space.unit} if space.unit != "pixel" else {}
    axes = [{"name": "t", "type": "time"}, *({"name": name, "type": "space", **micrometres} for name in space.axes)]
    scale = [{"type": "scale", "scale": space.scale}]

    def write(group: Any, array: np.ndarray, name: str) -> None:
        keys = {"name": "v2", "separator": "/"}
        group.create_array("0", data=array, chunks=(1, *array.shape[1:]), chunk_key_encoding=keys)
        datasets = [{"path": "0", "coordinateTransformations": scale}]
        group.attrs["multiscales"] = [{"version": "0.4", "name": name, "axes": axes, "datasets": datasets}]

    root = zarr.open_group(str(out), mode="w", zarr_format=2)
    if result.frames is not None:
        write(root, np.stack(result.images()), "frames")
    labels = root.create_group("labels")
    labels.attrs["labels"] = ["cells"]
    cells = labels.create_group("cells")
    write(cells, result.labels.astype(np.uint16), "cells")
    cells.attrs["image-label"] = {"version": "0.4", "source": {"image": "../../"}}


def napari_tracks(result: Result) -> tuple[np.ndarray, dict[int, list[int]]]:
    """What napari's layer of tracks takes: float64 (N, 4) of track, t, y, x, and the mothers of each track.

    Of volumes it is (N, 5), with z before y.
    """
    cells = nodes(result).sort_values(["track", "frame"])
    places = [axis for axis in ("z", "y", "x") if axis in cells]
    data = cells[["track", "frame", *places]].to_numpy(np.float64)
    data[:, 1] -= result.first_frame
    graph = {track.label: [track.parent] for track in result.lineage.values() if track.parent}
    return data, graph


def view(result: Result, voxel: tuple[float, ...] | None = None) -> None:
    """Opens napari on frames, cells and tracks, until its window is closed.

    Args:
        result: the tracked cells.
        voxel: sides of a voxel, see `export`.

    Raises:
        InputError: if napari is not installed, or a voxel is given to a result of images.
    """
    scale = _space(result, voxel).scale
    napari = _package("napari", "napari")
    viewer = napari.Viewer(title="lightning_cells")
    if result.frames is not None:
        viewer.add_image(np.stack(result.images()), name="frames", scale=scale)
    viewer.add_labels(result.labels, name="cells", scale=scale)
    data, graph = napari_tracks(result)
    if len(data):
        viewer.add_tracks(data, graph=graph, name="tracks", scale=scale)
    napari.run()


FORMATS: Mapping[str, tuple[Callable[[Result, Path, _Space], None], str]] = {
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
