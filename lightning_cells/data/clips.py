"""Requests -> tensors: the data sets behind the training and evaluation loaders."""

import time
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Seq
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_cells.data.augment import ClipAugmentation
from lightning_cells.data.sampling import Balance, ChunkRequest, ClipRequest, ClipSampler, crop_centre
from lightning_cells.data.sequence import Sequence

Target = Callable[[np.ndarray], Mapping[str, np.ndarray]]


class Clip(NamedTuple):
    """A batch of training clips.

    Attributes:
        frames: float32 (B, T, 1, H, W), normalised.
        labels: int32 (B, T, H, W) instance labels; negative where nothing is segmented (see `data.targets`). None if
            no training video has truth; a video without truth among others is unknown everywhere.
        classes: int8 (B, T, H, W) semantic classes of data sets that have them, -1 unknown.
        target: what the method's loss compares with, from its ``clip_target``; arrays (B, ...), those of clips that
            have fewer rows filled up with -1, or 0 where they are no whole numbers.
        first: bool (B,), whether recurrent state starts anew.
    """

    frames: Tensor
    labels: Tensor | None
    classes: Tensor | None
    target: dict[str, Tensor]
    first: Tensor


class Chunk(NamedTuple):
    """Consecutive whole frames of one video, for evaluation.

    Attributes:
        frames: float32 (T, 1, H, W), normalised, at the data module's scale; float16 (T, Z, H, W) of volumes. T is 0 in
            an empty chunk.
        labels: int32 (T, H, W) or (T, Z, H, W) instance labels at the same scale, or None.
        classes: int8 semantic classes, or None.
        sequence: the video, from which name, frame numbers, size on disk and truth can be asked.
        start: index of the first of these frames in the sequence.
        first: whether the video begins here.
        last: whether the video ends here.
    """

    frames: Tensor
    labels: Tensor | None
    classes: Tensor | None
    sequence: Sequence
    start: int
    first: bool
    last: bool

    @property
    def numbers(self) -> tuple[int, ...]:
        """Frame numbers on disk."""
        return self.sequence.numbers[self.start : self.start + len(self.frames)]

    def truth(self) -> Iterator[tuple[np.ndarray | dict[int, np.ndarray] | None, np.ndarray | None]]:
        """Yields the SEG and TRA masks of each frame as they are on disk, at original size."""
        for index in range(self.start, self.start + len(self.frames)):
            yield self.sequence.truth(index)


class ClipDataset(Dataset):
    """Lists of `ClipRequest` -> `Clip`.

    Args:
        sequences: the training videos.
        augmentation: turns frames and labels of a request into an augmented crop.
        balance: where crops are centred.
        target: makes the loss's targets from the labels of a clip, int32 (T, H, W).
    """

    def __init__(
        self,
        sequences: Seq[Sequence],
        augmentation: ClipAugmentation,
        balance: Balance = "uniform",
        target: Target | None = None,
    ) -> None:
        self.sequences = sequences
        self.augmentation = augmentation
        self.balance = balance
        self.target = target
        self._with_labels = any(s.labels is not None for s in sequences)
        self._with_classes = any(s.classes is not None for s in sequences)

    def __getitem__(self, requests: list[ClipRequest]) -> Clip:
        """Returns the batch that the requests describe."""
        frames, labels, classes, targets = zip(*map(self._clip, requests), strict=True)
        return Clip(
            frames=torch.from_numpy(np.stack(frames)[:, :, None]),
            labels=_stack(labels),
            classes=_stack(classes),
            target={key: _of_one_length([target[key] for target in targets]) for key in targets[0]},
            first=torch.tensor([request.first for request in requests]),
        )

    def _clip(self, request: ClipRequest) -> tuple[Any, Any, Any, Mapping[str, np.ndarray]]:
        sequence = self.sequences[request.sequence]
        centre = None
        if self.balance != "uniform":
            rng = np.random.default_rng(request.seed)
            guide = sequence.labels if sequence.classes is None else sequence.classes
            centre = None if guide is None else crop_centre(guide[request.anchor], self.balance, rng)
        frames, labels, classes = self.augmentation(
            sequence.frames, sequence.labels, sequence.classes, request.frames, centre, request.seed
        )
        if labels is None and self._with_labels:
            labels = np.full(frames.shape, -1, np.int32)
        if classes is None and self._with_classes:
            classes = np.full(frames.shape, -1, np.int8)
        target = self.target(labels) if self.target is not None and labels is not None else {}
        return frames, labels, classes, target


class ChunkDataset(Dataset):
    """`ChunkRequest` -> `Chunk`."""

    def __init__(self, sequences: Seq[Sequence]) -> None:
        self.sequences = sequences

    def __getitem__(self, request: ChunkRequest) -> Chunk:
        """Returns the chunk that the request describes."""
        sequence = self.sequences[request.sequence]
        part = slice(request.start, request.stop)
        frames = sequence.frames[part]
        return Chunk(
            frames=torch.from_numpy(frames[:, None].astype(np.float32) if frames.ndim == 3 else np.array(frames)),
            labels=None if sequence.labels is None else torch.from_numpy(np.array(sequence.labels[part])),
            classes=None if sequence.classes is None else torch.from_numpy(np.array(sequence.classes[part])),
            sequence=sequence,
            start=request.start,
            first=request.start == 0,
            last=request.stop == len(sequence),
        )


class ClipLoader(DataLoader):
    """A loader that can go on in the middle of an epoch: the Trainer saves and restores its position.

    Attributes:
        waited: seconds that were spent in waiting for batches so far.
    """

    sampler: ClipSampler
    waited = 0.0
    _epoch = 0
    _delivered = 0

    def __iter__(self) -> Iterator[Clip]:  # type: ignore[override]
        """Yields batches, counting those delivered."""
        # After a checkpoint at the end of an epoch the Trainer goes on with the next one, from its beginning.
        if self.sampler.epoch != self._epoch:
            self.sampler.position = 0
        self._epoch, self._delivered = self.sampler.epoch, self.sampler.position
        batches = super().__iter__()
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - began
            if batch is None:
                return
            self._delivered += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Position within the epoch, for the checkpoint."""
        return {"epoch": self._epoch, "delivered": self._delivered}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Makes the next pass over the saved epoch begin where the saved one stood."""
        self._epoch, self._delivered = state["epoch"], state["delivered"]
        self.sampler.position = self._delivered


def _of_one_length(arrays: Seq[np.ndarray]) -> Tensor:
    """Arrays of the clips of a batch as one; shorter ones are filled up: whole numbers with -1, others with 0."""
    longest = max(len(array) for array in arrays)
    if all(len(array) == longest for array in arrays):  # as nearly all are: written once
        return torch.from_numpy(np.stack(arrays))
    out = np.full(
        (len(arrays), longest, *arrays[0].shape[1:]), 0 if arrays[0].dtype.kind == "f" else -1, arrays[0].dtype
    )
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(out)


def _stack(arrays: Seq[np.ndarray | None]) -> Tensor | None:
    return None if arrays[0] is None else torch.from_numpy(np.stack(arrays))  # type: ignore[arg-type]
