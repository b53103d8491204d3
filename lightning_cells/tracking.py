"""A trained method over anyone's frames: read, find cells, link, write; in constant memory, and to be continued."""

import errno
import hashlib
import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lightning_cells import __version__
from lightning_cells.ahead import ahead
from lightning_cells.data.cache import stamp
from lightning_cells.data.frames import Frames, open_frames, voxel_of
from lightning_cells.data.locking import exclusive
from lightning_cells.data.result_folder import ResultWriter
from lightning_cells.data.room import check_room
from lightning_cells.data.spool import Spool
from lightning_cells.data.voxels import CUBE, Order, Voxel
from lightning_cells.errors import Doubt, InputError
from lightning_cells.instances.doubts import Doubts
from lightning_cells.instances.volumes import ball
from lightning_cells.methods.base import CellMethod, Video
from lightning_cells.methods.building import Preprocessing, load_method
from lightning_cells.methods.cell_size import ALIKE, estimate_diameter, most_to_see
from lightning_cells.methods.decoding import LinkerName, decode_by, drop_smaller, link_by, resized
from lightning_cells.methods.segmented import SegmentedVideo
from lightning_cells.progress import Progress
from lightning_cells.result import Result
from lightning_cells.visualization.video import Preview

Device = Literal["auto", "cpu", "cuda", "mps"]

_FULL = {
    errno.ENOSPC: "the disk is full: make room",
    errno.EDQUOT: "your share of the disk is full: make room",
    errno.EFBIG: "no file may be as large as is needed: raise the limit (ulimit -f)",
}

_BYTES, _BYTES_OF_EACH = 26, 8
"""What a voxel takes while a volume is tracked, and of each volume of a chunk; measured without the network."""

_NO_SIZE = (
    "no cells of one size were found in the frames, which are taken at the scale of the training: if cells are larger "
    "or smaller than there, give the diameter of one in pixels (--diameter PX)"
)


class Tracker:
    """A trained method, ready to track.

    Args:
        checkpoint: weights, method and preprocessing.
        device: ``auto`` takes a CUDA device if there is one; ``mps`` is a Mac's (nobody has tried it yet).
        linker: links cells in place of the checkpoint's linker. One of the same kind keeps the checkpoint's
            thresholds, another has its defaults.
        scale: factor on both sides of the frames that the network sees, in place of the checkpoint's: for cells of
            another size than those of the training. The result has the size of the frames.
        chunk: frames in memory at a time; more where the method's start needs them.
        diameter: of a typical cell, in pixels of the frames, from which the scale follows. ``"auto"`` estimates it from
            some of the frames, and keeps the checkpoint's scale where cells are about as large as those of its
            training; ``"training"`` keeps that scale in any case. With the scale, sizes and distances in pixels that
            the decoder works with are brought to the size of the cells.
        min_size: pieces smaller than this share of a typical cell's area are dropped; 0 keeps all. None leaves it to
            the decoder.
        decoder: other settings of the decoder by their names, such as ``{"seed_threshold": 0.7}``; those in pixels are
            for cells of the training's size.
        flips: whether frames are seen mirrored, too, and probabilities averaged: somewhat better outlines in four times
            the time.
        sequence: what a recurrent network goes through in volumes: each plane over ``time``, or each volume from plane
            to plane, ``z``. None takes what it went through in its training.

    Raises:
        InputError: for a checkpoint or an option that cannot be used.

    Attributes:
        method: the method, on its device and in evaluation mode.
        preprocessing: what is done to each frame before the method sees it.
        digest: of the checkpoint's contents.
    """

    def __init__(
        self,
        checkpoint: Path,
        device: Device = "auto",
        linker: LinkerName | None = None,
        scale: float | None = None,
        chunk: int = 8,
        diameter: float | Literal["auto", "training"] = "auto",
        min_size: float | None = None,
        decoder: Mapping[str, Any] | None = None,
        flips: bool = False,
        sequence: Order | None = None,
    ) -> None:
        if chunk < 1:
            raise InputError(f"--chunk {chunk}: must be at least 1")
        if scale is not None and not 0 < scale < float("inf"):
            raise InputError(f"--scale {scale}: must be a positive number, such as 0.5")
        if scale is not None and not isinstance(diameter, str):
            raise InputError("--diameter: does not go with --scale: give one of them")
        fits = diameter in ("auto", "training") if isinstance(diameter, str) else 0 < diameter < float("inf")
        if not fits:
            raise InputError(f"--diameter {diameter}: must be a positive number of pixels, auto, or training")
        self._device = _device(device)
        self._looks_ahead = self._device.type != "cpu"  # which is busy in any case, and a volume fills the memory
        self.method, self.preprocessing = load_method(checkpoint)
        if scale is not None:
            self.preprocessing = self.preprocessing._replace(scale=scale)
        if not isinstance(diameter, str) and self.preprocessing.diameter is None:
            raise InputError(f"--diameter: {checkpoint} does not remember the size of its cells: give --scale instead")
        self._diameter = "training" if scale is not None else diameter
        self._flips = flips
        if sequence is not None:
            self.preprocessing = self.preprocessing._replace(sequence=sequence)
        decode_by(self.method, decoder or {})
        if min_size is not None:
            if self.preprocessing.diameter is None:
                raise InputError(f"--min-size: {checkpoint} does not remember the size of its cells: leave it out")
            drop_smaller(self.method, min_size, self.preprocessing.diameter, self.preprocessing.scale)
        if linker is not None:
            link_by(self.method, linker)
        self.method.to(self._device)
        self._chunk = max(chunk, self.method.first_chunk)
        with checkpoint.open("rb") as file:
            self.digest = hashlib.file_digest(file, "blake2b").hexdigest()

    def track(
        self,
        frames: np.ndarray | str | Path,
        progress: bool = True,
        pattern: str | None = None,
        channel: int | None = None,
        axes: str | None = None,
        voxel: tuple[float, ...] | None = None,
    ) -> Result:
        """Tracks the cells of a video in memory.

        Args:
            frames: (T, H, W), or (T, Z, H, W) of volumes, whole numbers from 0 to 65535, or the path of a folder of
                grey 8- or 16-bit TIFFs or of a multi-page TIFF; see `open_frames`.
            progress: whether to show a bar at a terminal.
            pattern: which files of a folder are frames, such as ``img_{t}_c0.tif``; see `frames_in_order`.
            channel: which of several channels to take, from 0.
            axes: what the images of files are, such as ``ZYX``, where their metadata say nothing or are wrong.
            voxel: depth, height and width of a voxel of volumes; only the ratios count. None takes what the files say,
                else cubes.

        Raises:
            InputError: for frames that cannot be used.
        """
        source = Path(frames) if isinstance(frames, str) else frames
        with open_frames(source, pattern, channel, axes) as opened, torch.inference_mode():
            sides = voxel_of(opened, voxel, progress)
            preprocessing, method = self._fitted(opened, progress)
            video = self._opened(method, opened, sides)
            labels, doubts = [], Doubts(_typical(preprocessing, opened, sides))
            for found in self._tracked(video, opened, preprocessing, None, progress):
                doubts.see(found)
                labels.append(found)
            _warn(doubts.said(video.lineage))
            return Result(np.stack(labels), video.lineage, opened.numbers[0], source, pattern, channel, axes)

    def track_to(
        self,
        source: Path,
        out: Path,
        preview: bool = False,
        interval: float = 20.0,
        pattern: str | None = None,
        channel: int | None = None,
        axes: str | None = None,
        voxel: tuple[float, ...] | None = None,
    ) -> tuple[int, int]:
        """Tracks a video of any length and writes ``maskNNN.tif`` and ``res_track.txt``.

        The cells that were found are kept in a hidden folder beside `out` until the result is whole: if the process is
        killed, the same call goes on where it was and gives the same result. `out` appears, or is replaced, at the end.

        Args:
            source: folder of grey 8- or 16-bit TIFFs, or one multi-page TIFF; see `open_frames`.
            out: result folder; an earlier result in it is replaced.
            preview: whether to write a GIF beside `out`, named ``<out>_preview.gif``.
            interval: seconds between two states to go on from, beyond which work may be lost.
            pattern: which files of a folder are frames, such as ``img_{t}_c0.tif``; see `frames_in_order`.
            channel: which of several channels to take, from 0.
            axes: what the images of files are, as in `track`.
            voxel: of volumes, as in `track`.

        Returns:
            How many frames there are, and how many tracks were found.

        Raises:
            InputError: for frames or a result folder that cannot be used, and for a full disk.
        """
        out = out.resolve()
        work = out.with_name(f".{out.name}.tracking")
        with open_frames(source, pattern, channel, axes) as frames:
            if any(path.resolve().parent == out for path in frames.files):
                raise InputError(f"{out}: holds the frames: give another result folder")
            writer = ResultWriter(out, frames.digits, temporary=work / "masks")  # refuses before anything is computed
            sides = voxel_of(frames, voxel)
            self._opened(self.method, frames, sides)  # and so does a linker not installed
            try:
                out.parent.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise InputError(f"{error.filename}: is in the way of a folder: give another result folder") from None
            with _explained(out, work), exclusive(out.with_name(f".{out.name}.lock")), torch.inference_mode():
                preprocessing, method = self._fitted(frames)
                video = self._opened(method, frames, sides)
                decoder = repr(getattr(method, "decoder", None))
                spool = Spool(work, self._key(frames, [channel, axes, sides], preprocessing, decoder), interval)
                _remove_masks(work)
                pictures = Preview(len(frames)) if preview else None
                doubts = Doubts(_typical(preprocessing, frames, sides))
                with writer:
                    for index, labels in enumerate(self._tracked(video, frames, preprocessing, spool)):
                        writer.write(frames.numbers[index], labels)
                        doubts.see(labels)
                        if pictures is not None and index in pictures.chosen:
                            pictures.add(frames.read(index), labels, frames.numbers[index], video.lineage)
                    if pictures is not None:
                        pictures.save(preview_path(out))
                    writer.finish(video.lineage)
                spool.remove()
            _warn(doubts.said(video.lineage))
            return len(frames), len(video.lineage)

    def _tracked(
        self,
        video: Video,
        frames: Frames,
        preprocessing: Preprocessing,
        spool: Spool | None = None,
        progress: bool = True,
    ) -> Iterator[np.ndarray]:
        """Yields the track labels of all frames: first those whose cells were kept, then others as they are found."""
        done, chunk = 0, self._chunk
        if len(frames.size) > 2:  # a volume is large, and its planes are enough to go through a network at once
            chunk = self.method.first_chunk if preprocessing.sequence == "time" else 1
            check_room("frames", frames.size, _BYTES + chunk * _BYTES_OF_EACH)
        if spool is not None:
            done = min(spool.done * chunk, len(frames))
            for found in spool.chunks():
                yield from video.link(found)
            video.state = _to(spool.state, self._device)
        with Progress("tracking", len(frames), shown=progress, initial=done) as bar:

            def see(indices: range) -> tuple[list[np.ndarray], Any]:
                with torch.inference_mode():  # which holds for a thread
                    found = video.instances(preprocessing.prepare(map(frames.read, indices)).to(self._device))
                return found, video.state

            chunks = [range(start, min(start + chunk, len(frames))) for start in range(done, len(frames), chunk)]
            each = ahead if self._looks_ahead and len(frames.size) == 2 else map
            for indices, (found, state) in zip(chunks, each(see, chunks), strict=True):
                if spool is not None:
                    spool.append(found, state)
                yield from video.link(found)
                bar.update(len(indices))
        yield from video.finish()

    def _fitted(self, frames: Frames, progress: bool = True) -> tuple[Preprocessing, CellMethod]:
        """The preprocessing that brings cells to the size of the training's, and the method for cells of that size."""
        trained, diameter = self.preprocessing.diameter, self._diameter
        as_trained = self.preprocessing, self.method
        if diameter == "training" or trained is None:
            return as_trained
        if diameter == "auto":
            some = [most_to_see(frames.read(index)) for index in sorted({0, len(frames) // 2, len(frames) - 1})]
            estimate = estimate_diameter(self.method, self.preprocessing, some, trained)
            if estimate is None:
                _warn([_NO_SIZE])
                return as_trained
            if 1 / ALIKE < estimate * self.preprocessing.scale / trained < ALIKE:
                return as_trained
            diameter = estimate
        scale = trained / diameter
        if progress:
            remedy = "; --diameter PX if that is wrong" if self._diameter == "auto" else ""
            tqdm.write(f"cells of about {diameter:.0f} px: frames are scaled by {scale:.2f}{remedy}", file=sys.stderr)
        return self.preprocessing._replace(scale=scale), resized(self.method, self.preprocessing.scale / scale)

    def _opened(self, method: CellMethod, frames: Frames, voxel: Voxel = CUBE) -> Video:
        """A fresh video for these frames."""
        *depth, height, width = frames.size
        if depth:
            video = method.open_volumes(
                (depth[0], height, width), frames.numbers[0], voxel, self.preprocessing.sequence
            )
        else:
            video = method.open_video((height, width), frames.numbers[0])
        if self._flips:
            if not isinstance(video, SegmentedVideo):
                raise InputError(f"--flips: {type(method).__name__} has no probabilities to average: leave it out")
            video.flips = True
        return video

    def _key(self, frames: Frames, taken: list[Any], preprocessing: Preprocessing, decoder: str) -> str:
        """All that found cells depend on."""
        versions = [__version__, torch.__version__, np.__version__]
        source = [stamp(frames.files), frames.size, frames.numbers[0], *taken]
        settings = [self._device.type, self._chunk, self._flips]
        return json.dumps([versions, self.digest, source, preprocessing, decoder, *settings])


def _typical(preprocessing: Preprocessing, frames: Frames, voxel: Voxel) -> float | None:
    """Pixels, or voxels, of a typical cell."""
    area = preprocessing.cell_area
    return area if area is None or len(frames.size) == 2 else ball(area, voxel)


def preview_path(out: Path) -> Path:
    """Where the preview of a result folder goes."""
    return out.with_name(f"{out.name}_preview.gif")


def _warn(doubts: Iterable[str]) -> None:
    for doubt in doubts:
        warnings.warn(doubt, Doubt, stacklevel=3)


def _device(device: Device) -> torch.device:
    usable = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not usable.get(device, True):
        raise InputError(f"--device {device}: there is no usable {device.upper()} device: give --device cpu or auto")
    if device == "auto":
        return torch.device("cuda" if usable["cuda"] else "cpu")
    return torch.device(device)


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
