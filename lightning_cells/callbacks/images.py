"""Shows in the run what the method makes of a few frames, epoch after epoch."""

import zlib
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from lightning_cells.data.clips import Chunk
from lightning_cells.data.sequence import Sequence
from lightning_cells.errors import InputError
from lightning_cells.methods import CellMethod, Tracked
from lightning_cells.visualization.montage import Sample, montage

Rank = tuple[float, ...]
"""What frames are compared by; the lowest are shown."""
T = TypeVar("T")
_SEEN = 2  # frames that a method is given to draw the last of them: the pass through its network is what pictures cost


@dataclass(eq=False)
class ShownFrame:
    """A frame that may be shown.

    Attributes:
        sequence: the video.
        position: of the frame in it.
        labels: (H, W) track ids of the result.
        seen: uint8 (h, w, 3), what the network says; None before `look`, or without such a picture.
    """

    sequence: Sequence
    position: int
    labels: np.ndarray
    seen: np.ndarray | None = None

    @property
    def number(self) -> int:
        """Number of the frame."""
        return self.sequence.numbers[self.position]

    def look(self, method: CellMethod) -> None:
        """Lets the method draw what its network says, if it has not yet."""
        if self.seen is None:
            frames = self.sequence.frames[max(0, self.position + 1 - _SEEN) : self.position + 1]
            if frames.ndim > 3:  # the plane of most contrast
                frames = frames[:, np.argmax([plane.std(dtype=np.float32) for plane in frames[-1]])]
            frames = frames[:, None]
            with torch.inference_mode():
                self.seen = method.picture(torch.from_numpy(frames.astype(np.float32)).to(method.device))

    def sample(self) -> Sample:
        """Reads what belongs to it. The frame is the one that the method saw."""
        return Sample(
            sequence=self.sequence.name,
            number=self.number,
            frame=self.sequence.frames[self.position],
            result=self.labels,
            truth=self.sequence.merged_truth(self.position),
            seen=self.seen,
            step=self.sequence.voxel[0] / self.sequence.voxel[2],
        )


class Shortlist(Generic[T]):
    """Keeps what ranks lowest.

    Args:
        most: how much is kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[Rank, T] = {}

    def wants(self, rank: Rank) -> bool:
        """Whether something of that rank would be kept."""
        return len(self._kept) < self._most or rank < max(self._kept)

    def add(self, rank: Rank, item: T) -> None:
        """Keeps it in place of what ranks highest, or in place of what has the same rank."""
        self._kept[rank] = item
        if len(self._kept) > self._most:
            del self._kept[max(self._kept)]

    def items(self) -> list[T]:
        """What is kept, lowest rank first."""
        return [self._kept[rank] for rank in sorted(self._kept)]

    def clear(self) -> None:
        """Forgets all."""
        self._kept.clear()


def fixed_ranks(sequence: Sequence) -> list[Rank]:
    """Ranks all frames of a video such that each time the same are shown, and frames of all videos compare.

    Those with segmentation truth come first, from as many videos as possible, spread over each.
    """
    video = zlib.crc32(f"{sequence.name} {sequence.numbers[0]}".encode())
    ranks: dict[int, Rank] = {}
    for without in (False, True):
        group = [
            position
            for position, number in enumerate(sequence.numbers)
            if (number not in sequence.files.seg) == without
        ]
        ranks |= {group[place]: (without, turn, video) for turn, place in enumerate(_spread(len(group)))}
    return [ranks[position] for position in range(len(sequence))]


def _spread(count: int) -> list[int]:
    """The numbers below `count`, first the middle one, then those at the quarters, then at the eighths, and so on."""
    steps = 1 << count.bit_length()
    order = sorted(range(1, steps), key=lambda step: (-(step & -step), step))
    return list(dict.fromkeys(step * count // steps for step in order))


class Pictures(Callback):
    """Logs pictures of a few frames, truth, predictions and errors to MLflow after each validation and test.

    A method that draws what its network says, such as embeddings as colours, has a panel for it.

    They are found in the run under ``val/frame_1``, ``val/frame_2``, ... and ``test/frame_1``, .... The same frames are
    shown each time: those with segmentation truth first, from as many videos as possible, spread over each. Process
    zero shows frames of its own videos. Whatever goes wrong here is only warned of, once.

    Args:
        samples: most frames to show.
        every_n_epochs: during training, validations that fall into other epochs are not shown.

    Raises:
        InputError: if one of them is below 1.
    """

    def __init__(self, samples: int = 3, every_n_epochs: int = 1) -> None:
        for name, value in (("samples", samples), ("every_n_epochs", every_n_epochs)):
            if value < 1:
                raise InputError(f"pictures.{name}={value}: must be at least 1")
        self.samples = samples
        self.every_n_epochs = every_n_epochs
        self._chosen = Shortlist[ShownFrame](samples)
        self._ranked: tuple[Sequence, list[Rank]] | None = None  # the video under way
        self._warned = False
        self._blind = False  # the method could not draw

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets frames of a validation or test that was cut short."""
        self._chosen.clear()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """Keeps the results of frames that are to be shown."""
        self._collect(trainer, pl_module, outputs, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws and logs."""
        self._log(trainer, pl_module, "val/frame")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws and logs."""
        self._log(trainer, pl_module, "test/frame")

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end

    def _collect(self, trainer: Trainer, method: LightningModule, tracked: Tracked, chunk: Chunk) -> None:
        if not self._wanted(trainer):
            return
        try:
            if self._ranked is None or self._ranked[0] is not chunk.sequence:
                self._ranked = chunk.sequence, fixed_ranks(chunk.sequence)
            for position, labels in enumerate(tracked.labels, tracked.start):
                rank = self._ranked[1][position]
                if self._chosen.wants(rank):
                    self._chosen.add(rank, ShownFrame(chunk.sequence, position, labels.copy()))
            if chunk.last:  # not when all is over: averaged weights may be gone by then
                self._look(method)
        except Exception as error:
            self._warn(error)

    def _log(self, trainer: Trainer, method: LightningModule, key: str) -> None:
        if not self._chosen.items():
            return
        try:
            self._look(method)
            images = numbered(key, [candidate.sample() for candidate in self._shown()])
            for logger in mlflow_loggers(trainer):
                for name, image in images.items():
                    logger.experiment.log_image(logger.run_id, image, key=name, step=trainer.global_step)
        except Exception as error:
            self._warn(error)
        finally:
            self._chosen.clear()

    def _look(self, method: LightningModule) -> None:
        """Lets the method draw what its network says of the frames chosen so far; without it the others are shown."""
        if not isinstance(method, CellMethod) or self._blind:
            return
        try:
            for candidate in self._shown():
                candidate.look(method)
        except Exception as error:
            self._blind = True
            self._warn(error)

    def _shown(self) -> list[ShownFrame]:
        return sorted(self._chosen.items(), key=lambda candidate: (candidate.sequence.name, candidate.number))

    def _wanted(self, trainer: Trainer) -> bool:
        if trainer.sanity_checking or not trainer.is_global_zero or not mlflow_loggers(trainer):
            return False
        fitting = trainer.state.fn == TrainerFn.FITTING
        return not fitting or (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            rank_zero_warn(f"A picture of the results could not be drawn or logged: {type(error).__name__}: {error}")
        self._warned = True


def numbered(key: str, samples: list[Sample]) -> dict[str, np.ndarray]:
    """A picture of each sample, by a key of its own: MLflow's grid shows one picture for each run and key."""
    return {f"{key}_{place}": montage([sample], block=True) for place, sample in enumerate(samples, 1)}


def mlflow_loggers(trainer: Trainer) -> list[MLFlowLogger]:
    """Those of the loggers that take pictures and files."""
    return [logger for logger in trainer.loggers if isinstance(logger, MLFlowLogger)]
