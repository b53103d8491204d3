"""Methods that segment frame by frame and leave tracking to a linker, and their videos."""

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cells.data.room import check_room
from lightning_cells.data.tracks import Lineage
from lightning_cells.data.voxels import CUBE, Order, Voxel
from lightning_cells.instances.components import Decoder
from lightning_cells.instances.emptiness import is_empty
from lightning_cells.instances.linkers import FrameLinker, Linker
from lightning_cells.methods.base import CellMethod, Video

_VIEWS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))  # axes along which frames are mirrored
_THREADS = min(4, os.cpu_count() or 1)  # that cut cells out of frames; each needs memory
_PIXELS = 2**20  # that go through a network at once: enough to keep a GPU busy, and memory does not grow with frames
_NO_MEMORY = "let it go through each volume from plane to plane (sequence z), or cut volumes into parts"


def few_at_once(frames: Tensor, axis: int = 0) -> tuple[Tensor, ...]:
    """Splits frames, (..., H, W), along an axis into parts of so few that a network's layers need little memory."""
    return frames.split(max(1, _PIXELS * frames.shape[axis] // max(1, frames.numel())), axis)


class SegmentedVideo(Video):
    """Class probabilities -> cells -> tracks.

    Args:
        probabilities: float32 (T, 1, h, w) frames and the state after the frames before, None at the start -> (T, C,
            h, w) class probabilities and the new state.
        size: (H, W) on disk; probabilities are resampled to it before cells are cut out, which keeps outlines smooth.
        decoder: probabilities of a frame -> cells.
        linker: cells of consecutive frames -> tracks.

    Attributes:
        flips: whether probabilities are averaged over the frames and their mirror images, which takes four times as
            long; to be set before the first frame.
    """

    flips = False

    def __init__(
        self,
        probabilities: Callable[[Tensor, Any], tuple[Tensor, Any]],
        size: tuple[int, int],
        decoder: Decoder,
        linker: FrameLinker,
    ) -> None:
        self._probabilities = probabilities
        self._size = size
        self._decoder = decoder
        self._linker = linker
        self.state: Any = None

    @property
    def lineage(self) -> Lineage:
        """Rows of the tracks in the frames returned so far."""
        return self._linker.lineage

    def instances(self, frames: Tensor) -> list[np.ndarray]:
        """Finds the cells of the next frames, float32 (T, 1, h, w): int32 (H, W) each, 0 background."""
        probabilities = self.segment(frames).cpu().numpy()  # of all, as the next ones build on them
        empty = [is_empty(frame) for (frame,) in frames.cpu()]
        shown = [said for said, nothing in zip(probabilities, empty, strict=True) if not nothing]
        with ThreadPoolExecutor(_THREADS) as pool:
            cells = pool.map(self._decoder, shown)
            return [np.zeros(self._size, np.int32) if nothing else next(cells) for nothing in empty]

    @torch.no_grad()
    def segment(self, frames: Tensor) -> Tensor:
        """Class probabilities, float32 (T, C, H, W) at original size, of the next frames, float32 (T, 1, h, w)."""
        if self.flips:
            probabilities, self.state = self._averaged(frames, self.state)
        else:
            probabilities, self.state = self._probabilities(frames, self.state)
        return _resampled(probabilities, self._size)

    def _averaged(self, frames: Tensor, states: Any) -> tuple[Tensor, Any]:
        """Probabilities of the frames, each view of which has a state of its own."""
        total, after = torch.zeros(()), []
        for axes, state in zip(_VIEWS, states or [None] * len(_VIEWS), strict=True):
            probabilities, state = self._probabilities(frames.flip(axes), state)
            total = probabilities.float().flip(axes) + total.to(probabilities.device)
            after.append(state)
        return total / len(_VIEWS), tuple(after)

    def link(self, found: list[np.ndarray]) -> list[np.ndarray]:
        """Links the cells of the next frames: int32 (H, W) track labels of the frames that are done."""
        return [done for labels in found for done in self._linker.push(labels)]

    def finish(self) -> Iterable[np.ndarray]:
        """Returns the frames that the linker held back."""
        return self._linker.finish()


class VolumeVideo(SegmentedVideo):
    """Class probabilities of the planes of volumes -> cells in 3-D -> tracks.

    Some planes at a time go through the network, and their probabilities through the decoder as they come, so that
    memory holds those of few planes; where the network goes from plane to plane, of one volume.

    Args:
        method: says what it sees in planes.
        size: (Z, H, W) on disk.
        linker: cells of consecutive volumes -> tracks.
        voxel: sides of a voxel.
        sequence: what a recurrent network goes through: each plane over time, or each volume from plane to plane.
    """

    def __init__(
        self,
        method: "SegmentingMethod",
        size: tuple[int, int, int],
        linker: FrameLinker,
        voxel: Voxel = CUBE,
        sequence: Order = "time",
    ) -> None:
        super().__init__(method.probabilities, (size[1], size[2]), method.decoder, linker)
        self._warmed = method.warmed
        self._voxel = voxel
        self._sequence = sequence

    def instances(self, frames: Tensor) -> list[np.ndarray]:
        """Finds the cells of the next volumes, floating point (T, Z, h, w): int32 (Z, H, W) each, 0 background."""
        if self._sequence == "time" and self.state is None:
            self._warm_up(frames)
        see = self._over_time if self._sequence == "time" else self._over_planes
        return [self._decoder.volume(self._planes(volume, see(volume)), self._voxel) for volume in frames]

    def _planes(self, volume: Tensor, said: Iterable[Tensor]) -> Iterator[np.ndarray]:
        """Class probabilities, (C, H, W), of each plane at original size; an empty one is background."""
        planes = iter(volume)
        for probabilities in said:
            for one in _resampled(probabilities, self._size).cpu().numpy():
                if is_empty(next(planes)):
                    one[0], one[1:] = 1, 0
                yield one

    @torch.no_grad()
    def _warm_up(self, volumes: Tensor) -> None:
        """Prepares the states of all planes for the first of some volumes."""
        states: list[Any] = []
        for part in volumes.split([len(part) for part in few_at_once(volumes[0])], 1):
            lanes = part.transpose(0, 1).unsqueeze(2)
            state = (
                tuple(self._warmed(lanes.flip(axes).float()) for axes in _VIEWS)
                if self.flips
                else self._warmed(lanes.float())
            )
            states.append(state)
            if len(states) == 1:  # told before memory is taken for that of all planes
                each = _bytes_of(state) / part[0].numel()
                check_room("what the network remembers", tuple(volumes.shape[1:]), each, _NO_MEMORY)
        self.state = tuple(states)

    @torch.no_grad()
    def _over_time(self, volume: Tensor) -> Iterator[Tensor]:
        """Class probabilities, (N, C, h, w), of the planes of the next volume, as of a video each."""
        states, self.state = list(self.state), None  # nobody else holds one, so each makes room for the next
        for index, part in enumerate(few_at_once(volume)):
            probabilities, states[index] = self._seen(part.float()[:, None, None], states[index])
            yield probabilities[:, 0]
        self.state = tuple(states)

    @torch.no_grad()
    def _over_planes(self, volume: Tensor) -> Iterator[Tensor]:
        """Class probabilities, (Z, C, h, w), of the planes of a volume, as of the frames of a video."""
        yield self._seen(volume.float()[None, :, None], None)[0][0]

    def _seen(self, lanes: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self._averaged(lanes, state) if self.flips else self._probabilities(lanes, state)


class SegmentingMethod(CellMethod):
    """Base of the methods whose network gives class probabilities: of the frames of a video, or of planes of volumes.

    Attributes:
        decoder: class probabilities -> cells.
        linker: cells of consecutive frames -> tracks.
    """

    decoder: Decoder
    linker: Linker

    @abstractmethod
    def probabilities(self, frames: Tensor, state: Any) -> tuple[Tensor, Any]:
        """What the network says.

        Args:
            frames: float32 (B, T, 1, h, w), the next frames of some videos.
            state: after the frames before, None at the start.

        Returns:
            Class probabilities, float32 (B, T, C, h, w), and the new state.
        """

    def warmed(self, frames: Tensor) -> Any:
        """The state with which to begin, for videos whose first frames are (B, T, 1, h, w); None if there is none."""
        return None

    def open_video(self, size: tuple[int, int], first_frame: int = 0) -> SegmentedVideo:
        """Returns a fresh state for a video whose frames are (H, W) `size` on disk, numbered from `first_frame`."""
        return SegmentedVideo(self.of_frames, size, self.decoder, self.linker.start(first_frame))

    def open_volumes(
        self, size: tuple[int, int, int], first_frame: int = 0, voxel: Voxel = CUBE, sequence: Order = "time"
    ) -> VolumeVideo:
        """Returns a fresh state for a video of volumes; see `CellMethod.open_volumes`."""
        return VolumeVideo(self, size, self.linker.start(first_frame, voxel), voxel, sequence)

    def of_frames(self, frames: Tensor, state: Any) -> tuple[Tensor, Any]:
        """`probabilities` of one video: (T, C, h, w) of its next frames, (T, 1, h, w)."""
        probabilities, state = self.probabilities(frames[None], state)
        return probabilities[0], state


def _bytes_of(state: Any) -> int:
    """That a state takes."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    return sum(map(_bytes_of, state)) if isinstance(state, tuple) else 0


def _resampled(probabilities: Tensor, size: tuple[int, int]) -> Tensor:
    """Probabilities, (N, C, h, w), in full precision and at original size."""
    probabilities = probabilities.float()
    if probabilities.shape[-2:] == size:
        return probabilities
    return F.interpolate(probabilities, size, mode="bilinear", align_corners=False)
