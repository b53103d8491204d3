"""What all methods share: how videos are evaluated, tracked and scored."""

import inspect
import io
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MetricCollection

from lightning_cells.data.cell_sizes import typical_diameter
from lightning_cells.data.clips import Chunk, Target
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.data.sequence import Sequence
from lightning_cells.data.tracks import Lineage, clip_lineage
from lightning_cells.data.voxels import CUBE, Order, Voxel
from lightning_cells.errors import InputError
from lightning_cells.instances.linkers import Linker
from lightning_cells.methods.loading import PREPARATION, SETTINGS
from lightning_cells.methods.optimisation import Optimization
from lightning_cells.methods.short_options import complete
from lightning_cells.metrics.ctc_measures import CTCMatcher
from lightning_cells.metrics.measures import video_measures
from lightning_cells.trust import check_names


class Tracked(NamedTuple):
    """Result of an evaluation step.

    Attributes:
        start: index in the video of the first frame that came out.
        labels: one int32 (H, W) image, or (Z, H, W) volume, per frame at original size: 0 background, else track id.
        lineage: rows of the tracks in the frames that came out so far; final with the last chunk of a video.
    """

    start: int
    labels: list[np.ndarray]
    lineage: Lineage


class Video(Protocol):
    """A method at work on one video: frames go in as they come, tracked cells come out.

    Finding cells takes nearly all of the time, so it can be done apart from linking them: what `instances` returned
    can be kept, and be given to `link` of a new video later.

    Attributes:
        state: what `instances` remembers of the frames before: None, tensors, and tuples of these. A video that is
            given the state of another goes on where that one would.
    """

    state: Any

    @property
    def lineage(self) -> Lineage:
        """Rows of the tracks in the frames returned so far."""

    def instances(self, frames: Tensor) -> list[np.ndarray]:
        """Finds cells in the next frames, float32 (T, 1, h, w), or volumes, (T, Z, h, w).

        Returns:
            T integer arrays with the cells that came with each frame, in the form that `link` takes.
        """

    def link(self, found: list[np.ndarray]) -> list[np.ndarray]:
        """Links the cells of the next frames, and returns the frames that are done, which may lag behind.

        Returns:
            int32 track labels, (H, W) or (Z, H, W) at original size, of the frames that follow those returned before.
        """

    def push(self, frames: Tensor) -> list[np.ndarray]:
        """Takes the next frames, as `instances`, and returns those that are done, as `link`."""
        return self.link(self.instances(frames))

    def finish(self) -> Iterable[np.ndarray]:
        """Returns the frames that are left when the video has ended; `lineage` is whole then."""


class CellMethod(LightningModule, ABC):
    """Base of the methods: a subclass builds its network and loss, trains, and opens videos.

    Attributes:
        network: what is trained.
        optimization: how.
        clip_target: turns the labels of a training clip, int32 (T, H, W), into what the loss compares with; called by
            the loader's workers, so it must be picklable. None where the loss takes the labels themselves.
        linker: cells of consecutive frames -> tracks; None for a method that links by means of its own.
        paper: where the method was published, for the record of a run.
    """

    network: nn.Module
    optimization: Optimization
    clip_target: Target | None = None
    linker: Linker | None = None
    paper: str = ""

    @property
    def first_chunk(self) -> int:
        """How many frames the first chunk of a video needs, if the video has as many."""
        return 1

    def __init__(self) -> None:
        super().__init__()
        self.val_measures, self.test_measures = video_measures(), video_measures()
        self._video: Video | None = None
        self._matcher = CTCMatcher()
        self._returned = 0  # frames of the video under way that came out
        self._scored: Sequence | None = None  # the video under way, if some of its frames are in the matcher

    def remember(self) -> None:
        """Saves the constructor's arguments in `hparams` and so in checkpoints, as plain values only.

        To be called in the constructor of a method.
        """
        self.save_hyperparameters(frame=inspect.currentframe().f_back, logger=False)  # type: ignore[union-attr]
        self.hparams.update({name: plain(part) for name, part in self.hparams.items()})
        # `load_from_checkpoint` then makes the dataclasses of them again, as it does for the command line's checkpoints
        self.hparams["_instantiator"] = "lightning.pytorch.cli.instantiate_module"

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """As Lightning's own, also with a checkpoint of an earlier version.

        Raises:
            InputError: if it names classes of a package that nobody allowed.
        """
        checkpoint = torch.load(checkpoint_path, map_location="cpu", weights_only=True)
        options = checkpoint.get("hyper_parameters", {})
        check_names([value for name, value in options.items() if not name.startswith("_")], "the checkpoint")
        checkpoint["hyper_parameters"] = complete(cls, options)
        copy = io.BytesIO()
        torch.save(checkpoint, copy)
        copy.seek(0)
        return super().load_from_checkpoint(copy, *args, **kwargs)

    def check(self, data: SequenceDataModule, stage: str) -> None:
        """Refuses data that do not fit the method, before a run is logged; by default none.

        Args:
            data: after its `setup`.
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            InputError: naming the file or the video.
        """

    def setup(self, stage: str) -> None:
        """Checks the data."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, SequenceDataModule):
            self.check(data, stage)

    @abstractmethod
    def open_video(self, size: tuple[int, int], first_frame: int = 0) -> Video:
        """Returns a fresh state for a video whose frames are (H, W) `size` on disk, numbered from `first_frame`."""

    def open_volumes(
        self, size: tuple[int, int, int], first_frame: int = 0, voxel: Voxel = CUBE, sequence: Order = "time"
    ) -> Video:
        """Returns a fresh state for a video of volumes, (T, Z, h, w), whose planes are seen one by one.

        Args:
            size: (Z, H, W) on disk.
            first_frame: number of the first volume.
            voxel: its sides.
            sequence: what a recurrent network goes through: each plane over time, or each volume from plane to plane.

        Raises:
            InputError: if the method has no way to take them.
        """
        raise InputError(
            f"{type(self).__name__}: takes 2-D videos, and these frames are volumes of {size[0]} planes: choose a "
            "method that segments frames (ULSTM, GRUUNet, Adversarial, BrightField), or give one plane or a projection"
        )

    def picture(self, frames: Tensor) -> np.ndarray | None:
        """Draws what the network says of the last of some consecutive frames; None where there is nothing to draw.

        Args:
            frames: float32 (T, 1, h, w), that frame and some before it.

        Returns:
            uint8 (h, w, 3).
        """
        return None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remembers the method and its preprocessing, so that a checkpoint is enough to use it."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        checkpoint[SETTINGS] = {
            "method": f"{type(self).__module__}.{type(self).__qualname__}",
            "data": {} if data is None else {name: getattr(data, name) for name in PREPARATION},
            "diameter": self._cell_diameter,
        }

    @cached_property
    def _cell_diameter(self) -> float | None:
        """The typical diameter of the cells of the training, measured with the first checkpoint."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        return typical_diameter(data.sequences.get("train", [])) if isinstance(data, SequenceDataModule) else None

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The network's optimiser, with a learning rate that changes with every step."""
        return self.optimization.scheduled(self.network, self.trainer.estimated_stepping_batches)

    def validation_step(self, chunk: Chunk, batch_idx: int) -> Tracked:  # type: ignore[override]
        """Tracks a chunk and compares it with the truth."""
        return self._score(chunk, self.val_measures)

    def test_step(self, chunk: Chunk, batch_idx: int) -> Tracked:  # type: ignore[override]
        """Tracks a chunk and compares it with the truth."""
        return self._score(chunk, self.test_measures)

    def predict_step(self, chunk: Chunk, batch_idx: int) -> Tracked:
        """Tracks a chunk.

        Raises:
            InputError: if the first chunk of a longer video has too few frames for the method's start: the result would
                depend on the size of chunks.
        """
        needed = self.first_chunk
        if chunk.first and 0 < len(chunk.frames) < min(needed, len(chunk.sequence)):
            raise InputError(
                f"data.chunk={len(chunk.frames)}: {type(self).__name__} starts with {needed} frames: set data.chunk to "
                "as many or more"
            )
        if chunk.first or self._video is None:
            self._video = self._opened(chunk.sequence)
            self._returned = 0
        labels = self._video.push(chunk.frames) if len(chunk.frames) else []
        if chunk.last:
            labels = [*labels, *self._video.finish()]
        start = self._returned
        self._returned += len(labels)
        return Tracked(start, labels, self._video.lineage)

    def _opened(self, video: Sequence) -> Video:
        *depth, height, width = video.size
        if not depth:
            return self.open_video((height, width), video.numbers[0])
        return self.open_volumes((depth[0], height, width), video.numbers[0], video.voxel, video.order)

    def on_validation_epoch_end(self) -> None:
        """Logs all measures, pooled over all validation videos and processes."""
        self._log_measures("val", self.val_measures)

    def on_test_epoch_end(self) -> None:
        """Logs all measures, pooled over all test videos and processes."""
        self._log_measures("test", self.test_measures)

    def _score(self, chunk: Chunk, measures: MetricCollection) -> Tracked:
        if chunk.first:
            self._matcher = CTCMatcher()
        tracked = self.predict_step(chunk, 0)
        for index, labels in enumerate(tracked.labels, tracked.start):
            self._matcher.update(chunk.sequence.numbers[index], labels, *chunk.sequence.truth(index))
            self._scored = chunk.sequence
        if chunk.last:
            self._close(measures)
        return tracked

    def _close(self, measures: MetricCollection) -> None:
        """Adds the video under way to the measures, as far as it was seen."""
        if self._scored is None or self._video is None:
            return
        numbers = self._scored.numbers
        truth = clip_lineage(self._scored.lineage, numbers[0], numbers[self._returned - 1] + 1)
        counts = self._matcher.compute(self._video.lineage, truth)
        measures.update(counts=counts, detections=self._matcher.detections, result=self._video.lineage, truth=truth)
        self._scored = None

    def _log_measures(self, stage: str, measures: MetricCollection) -> None:
        self._close(measures)  # limit_val_batches may have cut it short
        if not self.trainer.sanity_checking:
            for name, value in measures.compute().items():
                self.log(f"{stage}/{name}", value, prog_bar=name == "SEG", sync_dist=True)
        measures.reset()


def plain(part: Any) -> Any:
    """A dataclass as the command line writes it, all the way down."""
    if not is_dataclass(part):
        return part
    arguments = {field.name: plain(getattr(part, field.name)) for field in fields(part)}
    return {"class_path": f"{type(part).__module__}.{type(part).__qualname__}", "init_args": arguments}
