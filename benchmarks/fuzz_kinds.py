"""The kinds of inputs that are damaged: a small right one of each, and what is read of it."""

import json
import os
import random
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fuzz_damage import damage_archive, damage_checkpoint, damage_folder, damage_volumes, damage_yaml


class Kind(NamedTuple):
    """A kind of input.

    Attributes:
        count: how many are tried.
        make: writes the right one into a folder.
        damage: changes it.
        read: what is read of it, to be compared.
    """

    count: int
    make: Callable[[Path], None]
    damage: Callable[[Path, random.Random], None]
    read: Callable[[Path], Any]


def video(size: int = 24) -> tuple[Any, Any]:
    import numpy as np

    frames = np.random.default_rng(0).integers(0, 60, (3, size, size)).astype(np.uint16)
    labels = np.zeros((3, size, size), np.uint16)
    for number in range(3):
        labels[number, 3 + number : 9 + number, 3:9] = 1
        if number:
            labels[number, 14:20, 14:20] = 2
    return frames + 100 * (labels > 0).astype(np.uint16), labels


def write(folder: Path, name: str, images: Any, table: str | None = None) -> None:
    import tifffile

    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        tifffile.imwrite(folder / f"{name}{number:03d}.tif", image, compression="zlib" if number else None)
    if table is not None:
        (folder / table).write_text("1 0 2 0\n2 1 2 0\n")


def make_result(folder: Path) -> None:
    write(folder / "RES", "mask", video()[1], "res_track.txt")
    write(folder / "GT" / "TRA", "man_track", video()[1], "man_track.txt")
    write(folder / "GT" / "SEG", "man_seg", video()[1])


def read_result(folder: Path) -> Any:
    from lightning_cells.metrics.evaluate import evaluate

    return evaluate(folder / "RES", folder / "GT").as_dict()


def make_frames(folder: Path) -> None:
    write(folder / "frames", "t", video()[0])


def read_frames(folder: Path) -> Any:
    from lightning_cells.data.frames import open_frames

    with open_frames(next(folder.iterdir(), folder / "gone")) as frames:
        return [frames.read(index).tolist() for index in range(len(frames))]


def make_stack(folder: Path) -> None:
    import tifffile

    tifffile.imwrite(folder / "stack.tif", video()[0], imagej=True, metadata={"axes": "TYX"})


def make_data(folder: Path) -> None:
    write(folder / "01", "t", video()[0])
    write(folder / "01_GT" / "TRA", "man_track", video()[1], "man_track.txt")
    write(folder / "01_GT" / "SEG", "man_seg", video()[1])


def read_data(folder: Path) -> Any:
    from lightning_cells.data.datamodule import SequenceDataModule

    with tempfile.TemporaryDirectory() as home:
        os.environ["LIGHTNING_CELLS_HOME"] = home
        data = SequenceDataModule(root=str(folder), clip_length=1)
        data.setup("fit")
        return [[s.frames.tolist(), s.labels.tolist(), s.lineage, s.voxel] for s in data.sequences["train"]]


def volumes() -> tuple[Any, Any]:
    """Frames and labels of a video of volumes, (3, 4, 24, 24)."""
    import numpy as np

    depth = np.array([1, 2, 2, 1], np.uint16)[:, None, None]
    frames, labels = video()
    return frames[:, None] * depth, labels[:, None] * (depth > 1)


def write_volumes(folder: Path, name: str, images: Any, table: str | None = None) -> None:
    from lightning_cells.data.image_files import write_image

    for number, image in enumerate(images):
        write_image(folder / f"{name}{number:03d}.tif", image, None if number else (4.0, 0.5, 0.5))
    if table is not None:
        (folder / table).write_text("1 0 2 0\n2 1 2 0\n")


def make_volume_truth(folder: Path) -> None:
    import tifffile

    write_volumes(folder / "TRA", "man_track", volumes()[1], "man_track.txt")
    write_volumes(folder / "SEG", "man_seg", volumes()[1][:2])
    for plane in (1, 2):
        tifffile.imwrite(folder / "SEG" / f"man_seg_002_{plane:03d}.tif", volumes()[1][2, plane])


def make_volume_result(folder: Path) -> None:
    write_volumes(folder / "RES", "mask", volumes()[1], "res_track.txt")
    make_volume_truth(folder / "GT")


def make_volume_data(folder: Path) -> None:
    write_volumes(folder / "01", "t", volumes()[0])
    make_volume_truth(folder / "01_GT")


def make_volumes(folder: Path) -> None:
    write_volumes(folder / "images" / "video", "z", volumes()[0])
    (folder / "said.json").write_text('{"axes": null, "voxel": null}')


def make_volume_stack(folder: Path) -> None:
    import tifffile

    (folder / "images").mkdir()
    sides = {f"PhysicalSize{axis}": side for axis, side in zip("ZYX", (4.0, 0.5, 0.5), strict=True)}
    tifffile.imwrite(folder / "images" / "stack.ome.tif", volumes()[0], metadata={"axes": "TZYX", **sides})
    (folder / "said.json").write_text('{"axes": null, "voxel": null}')


def read_volumes(folder: Path) -> Any:
    from lightning_cells.data.frames import open_frames, voxel_of

    said = json.loads((folder / "said.json").read_text())
    with open_frames(next((folder / "images").iterdir(), folder / "gone"), axes=said["axes"]) as frames:
        voxel = voxel_of(frames, said["voxel"], progress=False)
        return [voxel, [frames.read(index).tolist() for index in range(len(frames))]]


def make_checkpoint(folder: Path) -> None:
    import torch

    from lightning_cells.methods import ULSTM

    torch.manual_seed(0)
    method = ULSTM(channels=(4, 6), lstm_kernel=3)
    settings = {"method": "lightning_cells.methods.ulstm.ULSTM", "data": {"normalisation": "zscore", "scale": 1.0}}
    content = {"state_dict": method.state_dict(), "hyper_parameters": dict(method.hparams)}
    content |= {"lightning_cells": settings | {"diameter": 12.0}, "pytorch-lightning_version": "2.6.0"}
    torch.save(content, folder / "best.ckpt")


def read_checkpoint(folder: Path) -> Any:
    from lightning_cells.methods.building import load_method

    method, preprocessing = load_method(next(folder.iterdir(), folder / "best.ckpt"))
    weights = sum(float(value.double().sum()) for value in method.state_dict().values())
    return [dict(method.hparams), preprocessing, weights]


def make_config(folder: Path) -> None:
    import yaml

    from lightning_cells.paths import shipped

    method = yaml.safe_load(shipped("conf/method/ulstm/tiny.yaml").read_text())
    method["data"] |= {"root": "x", "train": ["01", "02"], "val": ["03[0:5]"]}
    (folder / "fit.yaml").write_text(yaml.safe_dump(method))


RESOLVER: list[Any] = []


def read_config(folder: Path) -> Any:
    from lightning_cells.cli.resolving import Resolver

    if not RESOLVER:
        RESOLVER.append(Resolver())
    path = next(folder.iterdir(), folder / "fit.yaml")
    return RESOLVER[0].resolve(["-c", str(path)]).as_dict() | {"config": None}


def make_sweep(folder: Path) -> None:
    from lightning_cells.paths import shipped

    shutil.copy(shipped("sweeps/ulstm_loss.yaml"), folder / "sweep.yaml")


def read_sweep(folder: Path) -> Any:
    from lightning_cells.experiments.tuning.study import make_pruner, make_sampler
    from lightning_cells.experiments.tuning.study_file import StudyFile

    plan = StudyFile.read(next(folder.iterdir(), folder / "sweep.yaml"))
    make_sampler(plan)
    make_pruner(plan)
    written = re.sub(r" at 0x[0-9a-f]+", "", repr(plan))  # some of it is written as where it lies in memory
    return [written.replace(str(folder), ""), plan.words(plan.space.lowest())]


def make_table(folder: Path) -> None:
    from lightning_cells.paths import shipped

    shutil.copy(shipped("conf/reproduce/ulstm-loss.yaml"), folder / "table.yaml")


def read_table(folder: Path) -> Any:
    from lightning_cells.experiments.papers.table import read_table as read

    return repr(read(str(next(folder.iterdir(), folder / "table.yaml")))).replace(str(folder), "")


def make_archive(folder: Path) -> None:
    make_data(folder / "set")
    with zipfile.ZipFile(folder / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((folder / "set").rglob("*.t*")):
            archive.write(path, f"set/{path.relative_to(folder / 'set')}")
    shutil.rmtree(folder / "set")


def read_archive(folder: Path) -> Any:
    from lightning_cells.data.archive import extract

    target = folder / "out"
    extract(folder / "set.zip", target, "set.zip")
    return {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}


KINDS = {
    "result": Kind(2_500, make_result, damage_folder, read_result),
    "frames": Kind(2_000, make_frames, damage_folder, read_frames),
    "stack": Kind(1_000, make_stack, damage_folder, read_frames),
    "data": Kind(1_000, make_data, damage_folder, read_data),
    "volume-result": Kind(600, make_volume_result, damage_folder, read_result),
    "volume-data": Kind(500, make_volume_data, damage_folder, read_data),
    "volumes": Kind(600, make_volumes, damage_volumes, read_volumes),
    "volume-stack": Kind(800, make_volume_stack, damage_volumes, read_volumes),
    "checkpoint": Kind(1_500, make_checkpoint, damage_checkpoint, read_checkpoint),
    "config": Kind(500, make_config, damage_yaml, read_config),
    "sweep": Kind(800, make_sweep, damage_yaml, read_sweep),
    "table": Kind(400, make_table, damage_yaml, read_table),
    "archive": Kind(1_500, make_archive, damage_archive, read_archive),
}
