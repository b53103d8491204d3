"""Nucleus and cytoplasm in bright-field images by semantic segmentation (MIDL 2019 submission; paper 004)."""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import MeanMetric

from lightning_cells.data.clips import Chunk, Clip
from lightning_cells.data.ctc import merge_identities
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.data.sequence import Sequence
from lightning_cells.data.targets import Contour, ThreeClassTarget, three_class
from lightning_cells.errors import InputError
from lightning_cells.instances.components import Decoder
from lightning_cells.instances.linkers import Linker, Overlap
from lightning_cells.instances.nuclei import NucleusDecoder
from lightning_cells.losses.cross_entropy import ThreeClassLoss
from lightning_cells.methods.base import Tracked
from lightning_cells.methods.frame_method import FrameMethod
from lightning_cells.methods.optimisation import Schedule, optimiser
from lightning_cells.methods.video import SegmentedVideo
from lightning_cells.metrics.dice import Dice
from lightning_cells.networks.architectures import Architecture, DeepLab

_NAMES = {
    "classes": ("background", "nucleus", "cytoplasm"),
    "three_class": ("background", "interior", "contour"),
}

_EPSILON = 1e-7  # Keras': smallest probability in the cross entropy


class BrightField(FrameMethod):
    """Tells background, nucleus and cytoplasm apart, makes a cell of each nucleus, and leaves tracking to a linker.

    The frames of a clip are a batch like any other: ``data.clip_length`` is 1 unless several of a video are wanted.
    Measured are Dice's coefficients of the classes at the frames' size on disk, and the measures of all methods where
    there are instance labels.

    Args:
        network: which network to train; the paper compares `UNet`, `Tiramisu` and `DeepLab`.
        target: what is learnt: the data's own ``classes`` (0 background, 1 nucleus, 2 cytoplasm), or the
            ``three_class`` map (background, interior, contour) of data with instance labels.
        contour: ``inner`` or ``outer`` single-pixel contour of the three-class map.
        lr: peak learning rate of Adam.
        l2: the sum of squares of all convolution kernels, times this, is part of the loss. That is how Keras counts;
            torch's ``weight_decay`` with the same effect is twice as large.
        schedule: course of the learning rate.
        warm_up: share of the training in which the learning rate rises.
        tile: side of the overlapping tiles into which larger frames are cut at inference, in pixels; None takes
            whole frames.
        decoder: class probabilities -> cells.
        linker: cells of consecutive frames -> tracks.

    Raises:
        InputError: for a value out of range.
    """

    paper = "MIDL 2019 submission"

    def __init__(
        self,
        network: Architecture = DeepLab(),  # noqa: B008 - frozen
        target: Literal["classes", "three_class"] = "classes",
        contour: Contour = "inner",
        lr: float = 1e-3,
        l2: float = 1e-4,
        schedule: Schedule = "halving",
        warm_up: float = 0.0,
        tile: int | None = None,
        decoder: Decoder = NucleusDecoder(),  # noqa: B008 - frozen
        linker: Linker = Overlap(),  # noqa: B008 - frozen
    ) -> None:
        if l2 < 0:
            raise InputError(f"model.l2={l2}: must be 0 or more")
        names = _NAMES[target]
        super().__init__(network, len(names), decoder, linker, tile)
        self.remember(network=network, decoder=decoder, linker=linker)
        if target == "three_class":
            self.clip_target = ThreeClassTarget(contour)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster
        self.loss = ThreeClassLoss()
        self.val_dice, self.test_dice = Dice(names), Dice(names)
        self.val_loss, self.test_loss = MeanMetric(), MeanMetric()

    def check(self, data: SequenceDataModule, stage: str) -> None:
        """Refuses data without semantic classes to learn from, and data with a class that the network lacks."""
        if self.hparams["target"] != "classes":
            return
        train = data.sequences["train"]
        if stage == "fit" and all(sequence.classes is None for sequence in train):
            raise InputError(
                f"data.train: no semantic classes for {', '.join(s.name for s in train[:12])}: set "
                "data.label_kind=classes if the labels are classes, or model.target=three_class to learn from instances"
            )
        used = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(stage, ())
        for sequence in (sequence for part in used for sequence in data.sequences[part]):
            _check_classes(sequence, len(_NAMES["classes"]))

    def training_step(self, clip: Clip, batch_idx: int) -> Tensor:
        """One batch of frames."""
        truth = clip.target.get("classes", clip.classes)
        assert truth is not None  # `check` has seen to it
        logits = self.network(clip.frames.flatten(0, 1)).unflatten(0, clip.frames.shape[:2])
        loss = self.loss(logits, truth)
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(clip.frames))
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam with L2 on convolution kernels alone, and a learning rate that changes with every step."""
        kernels = [p for p in self.network.parameters() if p.ndim == 4]
        others = [p for p in self.network.parameters() if p.ndim != 4]
        decay = 2 * self.hparams["l2"]  # the gradient of l2 w^2 is 2 l2 w
        groups = [{"params": kernels, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
        return self.scheduled(optimiser(groups, "adam", self.hparams["lr"]))

    def open_video(self, size: tuple[int, int], first_frame: int = 0) -> "SemanticVideo":
        """Returns a fresh state for a video whose frames are (H, W) `size` on disk, numbered from `first_frame`."""

        def probabilities(frames: Tensor, state: Any) -> tuple[Tensor, Any]:
            return self(frames), None

        return SemanticVideo(probabilities, size, self.decoder, self.linker.start(first_frame))

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
        """Adds the class probabilities of a chunk's frames to the measures."""
        if not len(chunk.frames):  # an idle process takes part in what is summed over all
            return
        assert isinstance(self._video, SemanticVideo)
        for probabilities, classes in zip(self._video.probabilities, self._truth(chunk), strict=True):
            truth = classes.to(probabilities.device)
            dice.update(probabilities.argmax(0), truth)
            known = truth >= 0
            right = probabilities.gather(0, truth.clamp(min=0)[None])[0][known]
            loss.update(-right.clamp(min=_EPSILON).log().sum() / max(1, len(right)), len(right))

    def _truth(self, chunk: Chunk) -> Iterator[Tensor]:
        """Classes of a chunk's frames, int64 (H, W) at the size on disk, -1 unknown."""
        for index in range(chunk.start, chunk.start + len(chunk.frames)):
            if self.hparams["target"] == "classes":
                classes = chunk.sequence.class_truth(index)
            else:
                seg, tra = chunk.sequence.truth(index)
                known = seg is not None or tra is not None
                classes = three_class(merge_identities(tra, seg), self.hparams["contour"]) if known else None
            if classes is None:
                classes = np.full(chunk.sequence.size, -1)
            yield torch.from_numpy(classes.astype(np.int64))

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


def _check_classes(sequence: Sequence, count: int) -> None:
    """Raises InputError, with the name of the file, for a class that is not among the first `count`."""
    if sequence.classes is None or sequence.classes.max() < count:
        return
    for number, classes in zip(sequence.numbers, sequence.classes, strict=True):
        if classes.max() >= count:
            raise InputError(
                f"{sequence.files.classes[number]}: holds class {classes.max()}, but the network has only 0 to "
                f"{count - 1} ({', '.join(_NAMES['classes'])}): relabel it, or set data.label_kind=instances"
            )
