"""Which clip comes next, and where it is cropped."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from torch.utils.data import DistributedSampler

from lightning_cells.data.deformation import UNKNOWN
from lightning_cells.errors import InputError

Balance = Literal["uniform", "foreground", "classes"]
Point = tuple[float, float]
Predicate = Callable[[np.ndarray], np.ndarray]

TRIES = 256  # random pixels looked at before a whole frame is searched


def crop_centre(frame: np.ndarray, balance: Balance, rng: np.random.Generator) -> Point | None:
    """Draws the pixel on which to centre a crop.

    Args:
        frame: (H, W) instance labels in the label convention, or int8 semantic classes. Instance labels count
            as two classes, background and cell; a marker is a cell.
        balance: "uniform": anywhere. "foreground": with probability 1/2 a random pixel of a cell. "classes":
            a random pixel of a class that is drawn evenly among those present, background included
            (bright-field nuclei, MIDL 2019).
        rng: where the draws come from.

    Returns:
        Row and column, or None for anywhere.
    """
    if balance == "uniform" or (balance == "foreground" and rng.random() < 0.5):
        return None
    if balance == "foreground":
        return _random_pixel(frame, _is_cell, rng)
    kinds: list[Predicate] = [partial(np.equal, 0), _is_cell]
    if frame.dtype == np.int8:
        kinds = [partial(np.equal, number) for number in range(int(frame.max()) + 1)]
    present = [kind for kind in kinds if kind(frame).any()]
    return _random_pixel(frame, present[rng.integers(len(present))], rng) if present else None


def _is_cell(values: np.ndarray) -> np.ndarray:
    """Segmented pixels and markers."""
    return (values > 0) | (values < UNKNOWN)


def _random_pixel(frame: np.ndarray, wanted: Predicate, rng: np.random.Generator) -> Point | None:
    """A pixel drawn evenly among those wanted; None if there is none."""
    flat = frame.reshape(-1)
    # The first hit among random pixels is as even as a search of all of them, and reads little of the file.
    positions = rng.integers(flat.size, size=TRIES)
    positions = positions[wanted(flat[positions])][:1]
    if not len(positions):
        positions = np.flatnonzero(wanted(flat))
        if not len(positions):
            return None
        positions = rng.choice(positions, 1)
    row, column = divmod(int(positions[0]), frame.shape[1])
    return float(row), float(column)


@dataclass(frozen=True)
class ClipRequest:
    """One clip of one sequence.

    Attributes:
        sequence: position in the list of sequences.
        frames: indices of the clip's frames, in the order wanted (they may run backwards or skip frames).
        anchor: index of the frame whose labels decide where the crop goes.
        seed: decides everything random about the clip: crop, geometry, intensities. The clips that one lane streams
            from one pass over a sequence share it.
        first: no clip of the same pass came before, so recurrent state starts from zero.
    """

    sequence: int
    frames: tuple[int, ...]
    anchor: int
    seed: int
    first: bool = True


@dataclass(frozen=True)
class ChunkRequest:
    """Frames ``start <= index < stop`` of one sequence; an empty range asks for nothing but keeps processes in step."""

    sequence: int
    start: int
    stop: int


class ClipSampler(DistributedSampler):
    """Draws batches of clips for training.

    With `streaming`, each lane of the batch runs through a sequence in consecutive clips (truncated
    backpropagation through time, Arbelle & Riklin Raviv 2019): clip `n + 1` of a lane continues clip `n`, and a tail
    shorter than a clip is dropped. Without it, every clip stands alone.

    Args:
        annotated: one boolean array of shape (T,) per sequence: which frames have segmentation truth.
        length: frames per clip.
        batch_size: clips per batch on each process.
        batches: batches per epoch on each process.
        stride: largest temporal stride; each pass draws one from 1 to it (as far as the sequence is long enough).
        reverse: play half of the passes backwards.
        streaming: clips of a lane follow each other.
        annotated_share: probability that a stand-alone clip is placed around an annotated frame, and else anywhere.
        seed: together with the epoch and the lane decides all draws.
        rank: index of this process.
        world: number of processes.

    Raises:
        InputError: if a sequence is shorter than a clip.
    """

    def __init__(
        self,
        annotated: Sequence[np.ndarray],
        length: int,
        batch_size: int,
        batches: int,
        stride: int = 1,
        reverse: bool = False,
        streaming: bool = False,
        annotated_share: float = 0.5,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        super().__init__(range(batches), num_replicas=world, rank=rank, shuffle=True, seed=seed)  # type: ignore[arg-type]
        shortest = min((len(a) for a in annotated), default=0)
        if shortest < length:
            raise InputError(
                f"a training sequence has {shortest} frame(s), fewer than data.clip_length={length}: "
                "set a shorter clip or leave the sequence out"
            )
        self.annotated = annotated
        self.length = length
        self.batch_size = batch_size
        self.batches = batches
        self.stride = stride
        self.reverse = reverse
        self.streaming = streaming
        self.annotated_share = annotated_share
        self.position = 0
        lengths = np.array([len(a) for a in annotated])
        self._probability = lengths / lengths.sum()
        self._annotated_frames = [(s, int(t)) for s, a in enumerate(annotated) for t in np.flatnonzero(a)]

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[ClipRequest]]:
        """Yields the epoch's batches from `position` on, and sets `position` back."""
        lanes = range(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        draw = self._stream if self.streaming else self._single_clips
        streams = [draw(np.random.default_rng([self.seed, self.epoch, lane])) for lane in lanes]
        start, self.position = self.position, 0
        for batch in range(self.batches):
            requests = [next(stream) for stream in streams]
            if batch >= start:
                yield requests

    def _single_clips(self, rng: np.random.Generator) -> Iterator[ClipRequest]:
        while True:
            if self._annotated_frames and rng.random() < self.annotated_share:
                sequence, anchor = self._annotated_frames[rng.integers(len(self._annotated_frames))]
            else:
                sequence = int(rng.choice(len(self.annotated), p=self._probability))
                anchor = int(rng.integers(len(self.annotated[sequence])))
            frames = self._window(rng, len(self.annotated[sequence]), anchor)
            yield ClipRequest(sequence, frames, anchor, int(rng.integers(2**31)))

    def _window(self, rng: np.random.Generator, total: int, anchor: int) -> tuple[int, ...]:
        """A run of `length` frames that contains `anchor`."""
        stride = self._draw_stride(rng, total)
        before_least = max(0, -((total - 1 - anchor) // stride) + self.length - 1)
        before_most = min(self.length - 1, anchor // stride)
        if before_least > before_most:  # this stride does not fit around the anchor
            stride = 1
            before_least = max(0, anchor + self.length - total)
            before_most = min(self.length - 1, anchor)
        first = anchor - stride * int(rng.integers(before_least, before_most + 1))
        return self._direct(rng, range(first, first + stride * self.length, stride))

    def _stream(self, rng: np.random.Generator) -> Iterator[ClipRequest]:
        inside = True  # an epoch joins its first pass somewhere, so that short epochs see all of a video
        while True:
            sequence = int(rng.choice(len(self.annotated), p=self._probability))
            total = len(self.annotated[sequence])
            stride = self._draw_stride(rng, total)
            frames = self._direct(rng, range(int(rng.integers(stride)), total, stride))
            if len(frames) < self.length:
                frames = self._direct(rng, range(total))
            clips = len(frames) // self.length
            seed = int(rng.integers(2**31))
            anchor = self._anchor(rng, sequence, frames)
            start = int(rng.integers(clips)) if inside else 0
            for clip in range(start, clips):
                chosen = frames[clip * self.length : (clip + 1) * self.length]
                yield ClipRequest(sequence, chosen, anchor, seed, first=clip == start)
            inside = False

    def _anchor(self, rng: np.random.Generator, sequence: int, frames: tuple[int, ...]) -> int:
        with_truth = [f for f in frames if self.annotated[sequence][f]] or frames
        return int(with_truth[rng.integers(len(with_truth))])

    def _draw_stride(self, rng: np.random.Generator, total: int) -> int:
        return int(rng.integers(1, max(1, min(self.stride, (total - 1) // max(1, self.length - 1))) + 1))

    def _direct(self, rng: np.random.Generator, frames: range) -> tuple[int, ...]:
        backwards = self.reverse and rng.random() < 0.5
        return tuple(reversed(frames)) if backwards else tuple(frames)


class ChunkSampler(DistributedSampler):
    """Walks through whole videos in chunks, in order; each video belongs to one process and none comes twice.

    A process without a video gets one empty request: the first evaluation step of each process takes part in a
    collective operation (distributed training broadcasts its buffers), so none may be left out.

    Args:
        lengths: frames of each sequence.
        chunk: most frames per request.
        rank: index of this process.
        world: number of processes.
    """

    def __init__(self, lengths: Sequence[int], chunk: int, rank: int = 0, world: int = 1) -> None:
        load = [0] * world
        mine: list[int] = []
        for sequence in sorted(range(len(lengths)), key=lambda s: -lengths[s]):
            lightest = load.index(min(load))
            load[lightest] += lengths[sequence]
            if lightest == rank:
                mine.append(sequence)
        self.requests = [
            ChunkRequest(sequence, start, min(start + chunk, lengths[sequence]))
            for sequence in sorted(mine)
            for start in range(0, lengths[sequence], chunk)
        ] or [ChunkRequest(0, 0, 0)]
        super().__init__(self.requests, num_replicas=world, rank=rank, shuffle=False)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.requests)

    def __iter__(self) -> Iterator[ChunkRequest]:
        """Yields this process's requests."""
        return iter(self.requests)
