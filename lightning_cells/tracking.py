"""A trained method over anyone's frames: read, find cells, link, write; in constant memory, and to be continued."""

import errno
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lightning_cells import __version__
from lightning_cells.data.cache import stamp
from lightning_cells.data.ctc import ResultWriter
from lightning_cells.data.frames import Frames, open_frames
from lightning_cells.data.locking import exclusive
from lightning_cells.data.spool import Spool
from lightning_cells.errors import InputError
from lightning_cells.instances.linkers import Lap, Linker, Overlap
from lightning_cells.methods.base import CellMethod, Video
from lightning_cells.methods.building import Preprocessing, load_method
from lightning_cells.visualization.preview import Preview

Device = Literal["auto", "cpu", "cuda"]
LinkerName = Literal["overlap", "laptrack"]

_FULL = {
    errno.ENOSPC: "the disk is full: make room",
    errno.EDQUOT: "your share of the disk is full: make room",
    errno.EFBIG: "no file may be as large as is needed: raise the limit (ulimit -f)",
}


def track(
    source: Path,
    checkpoint: Path,
    out: Path,
    device: Device = "auto",
    chunk: int = 8,
    preview: bool = False,
    linker: LinkerName | None = None,
    scale: float | None = None,
    interval: float = 20.0,
) -> tuple[int, int]:
    """Tracks the cells of a video and writes ``maskNNN.tif`` and ``res_track.txt``.

    The cells that were found are kept in a hidden folder beside `out` until the result is whole: if the process is
    killed, the same call goes on where it was and gives the same result. `out` appears, or is replaced, at the end.

    Args:
        source: folder of grey 8- or 16-bit TIFFs, or one multi-page TIFF; see `open_frames`.
        checkpoint: weights, method and preprocessing.
        out: result folder; an earlier result in it is replaced.
        device: ``auto`` takes a CUDA device if there is one.
        chunk: frames in memory at a time; more where the method's start needs them.
        preview: whether to write a GIF beside `out`, named ``<out>_preview.gif``.
        linker: links cells in place of the checkpoint's linker. One of the same kind keeps the checkpoint's
            thresholds, another has its defaults.
        scale: factor on both sides of the frames that the network sees, in place of the checkpoint's: for cells of
            another size than those of the training. The result has the size of the frames on disk.
        interval: seconds between two states to go on from, beyond which work may be lost.

    Returns:
        How many frames there are, and how many tracks were found.

    Raises:
        InputError: for frames, a checkpoint, a result folder or an option that cannot be used, and for a full disk.
    """
    if chunk < 1:
        raise InputError(f"--chunk {chunk}: must be at least 1")
    if scale is not None and not 0 < scale < float("inf"):
        raise InputError(f"--scale {scale}: must be a positive number, such as 0.5")
    target = _device(device)
    method, preprocessing = load_method(checkpoint)
    if scale is not None:
        preprocessing = preprocessing._replace(scale=scale)
    if linker is not None:
        _link_by(method, linker)
    chunk = max(chunk, method.first_chunk)
    out = out.resolve()
    work = out.with_name(f".{out.name}.tracking")
    with open_frames(source) as frames:
        if any(path.resolve().parent == out for path in frames.files):
            raise InputError(f"{out}: holds the frames: give another result folder")
        writer = ResultWriter(out, frames.digits, temporary=work / "masks")  # refuses before anything is computed
        video = method.open_video(frames.size, frames.numbers[0])  # and so does a linker that is not installed
        key = _key(checkpoint, frames, preprocessing, target.type, chunk)
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise InputError(f"{error.filename}: is in the way of a folder: give another result folder") from None
        with _explained(out, work), exclusive(out.with_name(f".{out.name}.lock")), torch.inference_mode():
            spool = Spool(work, key, interval)
            _remove_masks(work)
            pictures = Preview(len(frames)) if preview else None
            with writer:
                method.to(target)
                finished = _tracked(video, frames, preprocessing, chunk, spool, target)
                for index, labels in enumerate(finished):
                    writer.write(frames.numbers[index], labels)
                    if pictures is not None and index in pictures.chosen:
                        pictures.add(frames.read(index), labels, frames.numbers[index], video.lineage)
                if pictures is not None:
                    pictures.save(preview_path(out))
                writer.finish(video.lineage)
            spool.remove()
        return len(frames), len(video.lineage)


def preview_path(out: Path) -> Path:
    """Where the preview of a result folder goes."""
    return out.with_name(f"{out.name}_preview.gif")


def _tracked(
    video: Video, frames: Frames, preprocessing: Preprocessing, chunk: int, spool: Spool, device: torch.device
) -> Iterator[np.ndarray]:
    """Yields the track labels of all frames: first those whose cells were kept, then the others as they are found."""
    done = min(spool.done * chunk, len(frames))
    for found in spool.chunks():
        yield from video.link(found)
    video.state = _to(spool.state, device)
    with tqdm(total=len(frames), initial=done, desc="tracking", unit="frame", disable=None) as bar:
        for start in range(done, len(frames), chunk):
            indices = range(start, min(start + chunk, len(frames)))
            found = video.instances(preprocessing.prepare(map(frames.read, indices)).to(device))
            spool.append(found, video.state)
            yield from video.link(found)
            bar.update(len(indices))
    yield from video.finish()


def _link_by(method: CellMethod, name: LinkerName) -> None:
    """Gives a method another linker."""
    if method.linker is None:
        raise InputError(f"--linker {name}: {type(method).__name__} links cells by its own embeddings: leave it out")
    kinds: dict[LinkerName, type[Linker]] = {"overlap": Overlap, "laptrack": Lap}
    if not isinstance(method.linker, kinds[name]):
        method.linker = kinds[name]()


def _device(device: Device) -> torch.device:
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: there is no usable CUDA device: give --device cpu or auto")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def _key(checkpoint: Path, frames: Frames, preprocessing: Preprocessing, device: str, chunk: int) -> str:
    """All that found cells depend on."""
    with checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "blake2b").hexdigest()
    versions = [__version__, torch.__version__, np.__version__]
    source = [stamp(frames.files), frames.size, frames.numbers[0]]
    return json.dumps([versions, digest, source, preprocessing, device, chunk])


def _to(state: Any, device: torch.device) -> Any:
    if isinstance(state, Tensor):
        return state.to(device)
    return tuple(_to(part, device) for part in state) if isinstance(state, tuple) else state


def _remove_masks(work: Path) -> None:
    """Removes what a killed process left of its result."""
    folder = work / "masks"
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


@contextmanager
def _explained(out: Path, work: Path) -> Iterator[None]:
    """Says what to do where disk or memory ends."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        remedy = f"{_FULL[error.errno]} and give the same command again, which goes on"
        raise InputError(f"{out}: {remedy}; what is done is kept in {work}") from error
    except torch.cuda.OutOfMemoryError as error:
        raise InputError("--device cuda: its memory is full: give a smaller --chunk, or --device cpu") from error
