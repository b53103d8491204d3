"""Nucleus and cytoplasm in bright-field images by semantic segmentation (MIDL 2019 submission)."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MeanMetric

from lightning_cells.data.clips import Chunk
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.data.sequence import Sequence
from lightning_cells.data.voxels import CUBE, Order, Voxel
from lightning_cells.errors import InputError
from lightning_cells.instances.components import Decoder
from lightning_cells.instances.linkers import Linker, Overlap
from lightning_cells.instances.nuclei import NucleusDecoder
from lightning_cells.methods.base import Tracked
from lightning_cells.methods.frame_method import FrameMethod
from lightning_cells.methods.objectives import NucleusCytoplasm, Objective
from lightning_cells.methods.optimisation import Optimization
from lightning_cells.methods.segmented import SegmentedVideo, VolumeVideo
from lightning_cells.metrics.dice import Dice
from lightning_cells.networks.architectures import Architecture, DeepLab

_EPSILON = 1e-7  # Keras': smallest probability in the cross entropy


class BrightField(FrameMethod):
    """Tells background, nucleus and cytoplasm apart, makes a cell of each nucleus, and leaves tracking to a linker.

    Measured are Dice's coefficients of the classes at the frames' size on disk, and the measures of all methods where
    there are instance labels.

    Args:
        network: which network to train; the paper compares `UNet`, `Tiramisu` and `DeepLab`.
        loss: what it is trained for: the data's own classes 0 background, 1 nucleus, 2 cytoplasm
            (`NucleusCytoplasm`), or what an objective such as `ThreeClass` makes of instance labels.
        optimization: how it is trained; the paper's ``l2`` of Keras is half the ``weight_decay``.
        tile: side of the overlapping tiles into which larger frames are cut at inference, in pixels; None takes
            whole frames.
        decoder: class probabilities -> cells.
        linker: cells of consecutive frames -> tracks.
    """

    paper = "MIDL 2019 submission"

    def __init__(
        self,
        network: Architecture = DeepLab(),  # noqa: B008 - frozen
        loss: Objective = NucleusCytoplasm(),  # noqa: B008 - frozen
        optimization: Optimization = Optimization(schedule="halving", weight_decay=2e-4),  # noqa: B008 - frozen
        tile: int | None = None,
        decoder: Decoder = NucleusDecoder(),  # noqa: B008 - frozen
        linker: Linker = Overlap(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(network, loss, optimization, decoder, linker, tile)
        self.remember()
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster
        self.names = loss.names
        self.val_dice, self.test_dice = Dice(self.names), Dice(self.names)
        self.val_loss, self.test_loss = MeanMetric(), MeanMetric()

    def check(self, data: SequenceDataModule, stage: str) -> None:
        """Refuses data without semantic classes to learn from, or with a class that the network lacks."""
        if self.clip_target is not None:
            return
        train = data.sequences["train"]
        if stage == "fit" and all(sequence.classes is None for sequence in train):
            raise InputError(
                f"data.train: no semantic classes for {', '.join(s.name for s in train[:12])}: set "
                "data.label_kind=classes if the labels are classes, or model.loss=ThreeClass to learn from instances"
            )
        used = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(stage, ())
        for sequence in (sequence for part in used for sequence in data.sequences[part]):
            _check_classes(sequence, self.names)

    def open_video(self, size: tuple[int, int], first_frame: int = 0) -> "SemanticVideo":
        """Returns a fresh state for a video whose frames are (H, W) `size` on disk, numbered from `first_frame`."""
        return SemanticVideo(self.of_frames, size, self.decoder, self.linker.start(first_frame))

    def open_volumes(
        self, size: tuple[int, int, int], first_frame: int = 0, voxel: Voxel = CUBE, sequence: Order = "time"
    ) -> "SemanticVolumes":
        """Returns a fresh state for a video of volumes; see `CellMethod.open_volumes`."""
        return SemanticVolumes(self, size, self.linker.start(first_frame, voxel), voxel, sequence)

    def validation_step(self, chunk: Chunk, batch_idx: int) -> Tracked:  # type: ignore[override]
        """Segments and tracks a chunk, and compares both with the truth."""
        tracked = super().validation_step(chunk, batch_idx)
        self._compare(chunk, self.val_dice, self.val_loss)
        return tracked

    def test_step(self, chunk: Chunk, batch_idx: int) -> Tracked:  # type: ignore[override]
        """Segments and tracks a chunk, and compares both with the truth."""
        tracked = super().test_step(chunk, batch_idx)
        self._compare(chunk, self.test_dice, self.test_loss)
        return tracked

    def on_validation_epoch_end(self) -> None:
        """Logs the measures of all methods, Dice's coefficients and the cross entropy."""
        super().on_validation_epoch_end()
        self._log_dice("val", self.val_dice, self.val_loss)

    def on_test_epoch_end(self) -> None:
        """Logs the measures of all methods, Dice's coefficients and the cross entropy."""
        super().on_test_epoch_end()
        self._log_dice("test", self.test_dice, self.test_loss)

    def _compare(self, chunk: Chunk, dice: Dice, loss: MeanMetric) -> None:
        """Adds the class probabilities of a chunk's frames, or of their planes, to the measures."""
        if not len(chunk.frames):  # an idle process takes part in what is summed over all
            return
        assert isinstance(self._video, SemanticVideo | SemanticVolumes)
        for probabilities, classes in zip(self._video.probabilities, self._truth(chunk), strict=True):
            probabilities, truth = probabilities.to(self.device), classes.to(self.device)
            dice.update(probabilities.argmax(0), truth)
            known = truth >= 0
            right = probabilities.gather(0, truth.clamp(min=0)[None])[0][known]
            loss.update(-right.clamp(min=_EPSILON).log().sum() / max(1, len(right)), len(right))

    def _truth(self, chunk: Chunk) -> Iterator[Tensor]:
        """Classes of a chunk's frames, or of their planes, int64 (H, W) at the size on disk, -1 unknown."""
        for index in range(chunk.start, chunk.start + len(chunk.frames)):
            if self.clip_target is None:
                classes = chunk.sequence.class_truth(index)
            else:
                labels = chunk.sequence.merged_truth(index)
                classes = None if labels is None else self.clip_target(labels[None])["classes"][0]
            if classes is None:
                classes = np.full(chunk.sequence.size, -1)
            yield from torch.from_numpy(classes.astype(np.int64)).view(-1, *classes.shape[-2:])

    def _log_dice(self, stage: str, dice: Dice, loss: MeanMetric) -> None:
        if not self.trainer.sanity_checking:
            for name, value in dice.compute().items():
                self.log(f"{stage}/{name}", value, prog_bar=name == "Dice", sync_dist=True)
            self.log(f"{stage}/loss", loss.compute(), sync_dist=True)
        dice.reset()
        loss.reset()


class SemanticVideo(SegmentedVideo):
    """A video whose class probabilities are of interest, too.

    Attributes:
        probabilities: float32 (T, C, H, W) at original size, of the frames that came last.
    """

    probabilities: Tensor

    def segment(self, frames: Tensor) -> Tensor:
        """Class probabilities, float32 (T, C, H, W) at original size, of the next frames, float32 (T, 1, h, w)."""
        self.probabilities = super().segment(frames)
        return self.probabilities


class SemanticVolumes(VolumeVideo):
    """The same for a video of volumes.

    Attributes:
        probabilities: float32 (C, H, W) at original size, of each plane of the volumes that came last.
    """

    probabilities: list[Tensor]

    def instances(self, frames: Tensor) -> list[np.ndarray]:
        """Finds the cells of the next volumes; see `VolumeVideo.instances`."""
        self.probabilities = []
        return super().instances(frames)

    def _planes(self, volume: Tensor, said: Iterable[Tensor]) -> Iterator[np.ndarray]:
        for one in super()._planes(volume, said):
            self.probabilities.append(torch.from_numpy(one))
            yield one


def _check_classes(sequence: Sequence, names: tuple[str, ...]) -> None:
    """Raises InputError, with the name of the file, for a class that has no name."""
    count = len(names)
    if sequence.classes is None or sequence.classes.max() < count:
        return
    for number, classes in zip(sequence.numbers, sequence.classes, strict=True):
        if classes.max() >= count:
            raise InputError(
                f"{sequence.files.classes[number]}: holds class {classes.max()}, but the network has only 0 to "
                f"{count - 1} ({', '.join(names)}): relabel it, or set data.label_kind=instances"
            )
