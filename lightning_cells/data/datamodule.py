"""The one data module: videos in Cell Tracking Challenge layout, and folders of still images."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from lightning_cells.data.augment import Augmentation, ClipAugmentation
from lightning_cells.data.clips import Chunk, ChunkDataset, Clip, ClipDataset, ClipLoader
from lightning_cells.data.ctc import sequence_names
from lightning_cells.data.intensity import Normalisation
from lightning_cells.data.sampling import Balance, ChunkSampler, ClipSampler
from lightning_cells.data.sequence import Sequence, open_sequence
from lightning_cells.data.splits import fold as split_fold
from lightning_cells.data.splits import keep_annotated, select
from lightning_cells.data.stills import open_images
from lightning_cells.data.voxels import Order, check_voxel
from lightning_cells.errors import InputError
from lightning_cells.paths import find_data

if TYPE_CHECKING:
    from albumentations import BasicTransform


class SequenceDataModule(LightningDataModule):
    """Clips for training, and whole videos in chunks for validation, test and prediction.

    Videos are decoded and normalised once and then read from a memory-mapped cache (`data.sequence`). What each
    batch holds is decided in the main process (`data.sampling`), so results do not depend on the number of workers,
    and training can go on in the middle of an epoch. Loaders draw nothing from torch's global generator.

    Args:
        root: data set folder, or its name under ``$LIGHTNING_CELLS_DATA``.
        layout: ``ctc`` for Cell Tracking Challenge folders, ``images`` for still images in ``images/`` and ``labels/``.
        train: selectors of training data: names or patterns, optionally with a range of frame numbers, such as
            ``01``, ``0*`` or ``01[0:45]`` (see `data.splits.select`). None takes all videos that `val` and `test` do
            not name.
        val: selectors of validation data. None validates on nothing, unless `folds` is set.
        test: selectors of test data. None takes the validation data.
        predict: selectors of data to predict. None takes the test data, or all if there is none.
        folds: number of folds of a cross-validation over the `train` selection; 0 for none.
        fold: index of the fold held out for validation and test.
        truth: ``gold`` or ``silver`` segmentation truth (``NN_GT/SEG`` or ``NN_ST/SEG``).
        label_kind: whether the label images of `layout` ``images`` hold instances or semantic classes.
        normalisation: per frame: ``zscore``, ``log_zscore`` (of log(1 + intensity)), or ``percentile`` (0.1 and 99.9
            to -1 and 1).
        scale: factor by which frames are resampled; results are scaled back.
        smoothing: standard deviation of a Gaussian by which each frame is smoothed after that and before it is
            normalised, in pixels; 1 in Payer et al. 2019.
        channel: which of several channels or colours of the frames to take, from 0; None if there must be just one.
        clip_length: frames per training clip.
        stride: largest temporal stride between the frames of a clip.
        reverse: play half of the clips backwards.
        streaming: the clips of a batch lane follow each other through a video (truncated backpropagation in time).
        annotated_frames: train on the truth of so many frames in all, chosen by the seed; None takes all.
        annotated_share: share of stand-alone clips that are placed around a frame with segmentation truth.
        voxel: depth, height and width of a voxel of volumes, of which only the ratios count; None takes what the frames
            say, else cubes.
        sequence: what clips of volumes, and recurrent networks, go through: each plane over ``time``, or each volume
            from plane to plane, ``z``.
        balance: where crops are centred: anywhere (``uniform``), half of them on cells (``foreground``), or on
            semantic classes in equal shares (``classes``).
        augmentation: crop and random transforms, one per clip.
        transforms: albumentations' own transforms of each clip, after those of `augmentation` but for its intensities,
            such as ``{class_path: albumentations.RandomBrightnessContrast}``; see `data.augment.ClipAugmentation`.
        batch_size: clips per batch and process.
        batches_per_epoch: training batches per epoch and process.
        chunk: frames per evaluation step.
        num_workers: worker processes that prepare training clips; 0 prepares them in the main process.

    Raises:
        InputError: on use, for data that are missing, broken or too short; the message names the file.
    """

    def __init__(
        self,
        root: str = "simulated",
        layout: Literal["ctc", "images"] = "ctc",
        train: list[str] | None = None,
        val: list[str] | None = None,
        test: list[str] | None = None,
        predict: list[str] | None = None,
        folds: int = 0,
        fold: int = 0,
        truth: Literal["gold", "silver"] = "gold",
        label_kind: Literal["instances", "classes"] = "instances",
        normalisation: Normalisation = "zscore",
        scale: float = 1.0,
        smoothing: float = 0.0,
        channel: int | None = None,
        clip_length: int = 5,
        stride: int = 1,
        reverse: bool = True,
        streaming: bool = False,
        annotated_frames: int | None = None,
        annotated_share: float = 0.5,
        voxel: tuple[float, float, float] | None = None,
        sequence: Order = "time",
        balance: Balance = "uniform",
        augmentation: Augmentation = Augmentation(),  # noqa: B008 - frozen
        transforms: "list[BasicTransform] | None" = None,
        batch_size: int = 2,
        batches_per_epoch: int = 100,
        chunk: int = 8,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (
            ("clip_length", clip_length),
            ("stride", stride),
            ("batch_size", batch_size),
            ("batches_per_epoch", batches_per_epoch),
            ("chunk", chunk),
            ("annotated_frames", annotated_frames),
        ):
            if value is not None and value < 1:
                raise InputError(f"data.{name}={value}: must be at least 1")
        if num_workers < 0:
            raise InputError(f"data.num_workers={num_workers}: must be 0 or more")
        if folds < 0 or folds == 1:
            raise InputError(f"data.folds={folds}: must be 2 or more, or 0 for no cross-validation")
        if not 0 <= annotated_share <= 1:
            raise InputError(f"data.annotated_share={annotated_share}: must be between 0 and 1")
        self.save_hyperparameters(ignore=["augmentation", "transforms"], logger=False)
        self.root = root
        self.layout = layout
        self.selectors = {"train": train, "val": val, "test": test, "predict": predict}
        self.folds = folds
        self.fold = fold
        self.truth = truth
        self.label_kind = label_kind
        self.normalisation = normalisation
        self.scale = scale
        self.smoothing = smoothing
        self.channel = channel
        self.clip_length = clip_length
        self.stride = stride
        self.reverse = reverse
        self.streaming = streaming
        self.annotated_frames = annotated_frames
        self.annotated_share = annotated_share
        self.voxel = check_voxel(voxel)
        self.sequence: Order = sequence
        self.balance = balance
        self.augmentation = augmentation
        self.transforms = transforms or []
        self.batch_size = batch_size
        self.batches_per_epoch = batches_per_epoch
        self.chunk = chunk
        self.num_workers = num_workers
        self.sequences: dict[str, list[Sequence]] = {}
        self._learnt: list[Sequence] = []  # those to train on; of volumes their planes

    def prepare_data(self) -> None:
        """Fills the cache, in one process per machine."""
        self._open()

    def setup(self, stage: str) -> None:
        """Opens all sequences and splits them."""
        if getattr(self.trainer, "overfit_batches", 0) > 0:
            raise InputError(
                "trainer.overfit_batches: does not go with drawn clips: choose few frames instead, as by "
                "data.train=['01[0:5]'] and data.val=['01[0:5]']"
            )
        if self.sequences:
            return
        everything = self._open()
        chosen = {
            name: None if selectors is None else select(everything, selectors, f"data.{name}")
            for name, selectors in self.selectors.items()
        }
        val = chosen["val"]
        held_out = {s.name for part in (val, chosen["test"]) for s in part or []}
        train = chosen["train"] or [s for s in everything if s.name not in held_out]
        if self.folds:
            train, val = split_fold(train, self.folds, self.fold)
            train = [s for s in train if len(s) >= self.clip_length] or train  # what lies beside the fold may be short
        if self.annotated_frames is not None:
            train = keep_annotated(train, self.annotated_frames, int(os.environ.get("PL_GLOBAL_SEED", 0)))
        test = chosen["test"] or val
        self.sequences = {
            "train": train,
            "val": val or [],
            "test": test or [],
            "predict": chosen["predict"] or test or everything,
        }
        self._learnt = [plane for video in train for plane in video.planes()]
        try:
            self._check(stage)
        except InputError:
            self.sequences = {}
            raise

    def _check(self, stage: str) -> None:
        """Raises InputError for a selection that does not fit the stage."""
        part = {"validate": "val", "test": "test"}.get(stage)
        if part and not self.sequences[part]:
            raise InputError(
                f"there is nothing to {stage} on: name videos with --data.{part}, such as --data.{part} '[\"02\"]'"
            )
        if stage == "fit":
            train = self.sequences["train"]
            if not train:
                raise InputError(
                    "data.val and data.test name all videos there are: name those to train on by data.train"
                )
            self._clip_sampler()
            if all(s.labels is None and s.classes is None for s in train):
                raise InputError(
                    f"data.train: no truth for {', '.join(s.name for s in train[:12])}: "
                    "choose videos that have some, or check data.root and data.truth"
                )
            sizes = sorted({s.frames.shape[1:] for s in self._learnt})
            if self.augmentation.crop is None and len(sizes) > 1:
                (height, width), (other_height, other_width) = sizes[:2]
                raise InputError(
                    f"data.augmentation.crop=null: training frames differ in size, such as {height} x {width} and "
                    f"{other_height} x {other_width}: set the side of a crop"
                )

    def _open(self) -> list[Sequence]:
        root = find_data(self.root)
        prepared: dict[str, Any] = {"smoothing": self.smoothing, "channel": self.channel}
        if self.layout == "images":
            found = open_images(root, self.normalisation, self.scale, self.label_kind, **prepared)
        else:
            names = sequence_names(root)
            if not names:
                raise InputError(
                    f"{root} holds no video in Cell Tracking Challenge layout (folders 01, 02, ... with t000.tif, "
                    "...): check data.root, or set data.layout=images for still images"
                )
            found = [
                open_sequence(root, name, self.normalisation, self.scale, self.truth, **prepared) for name in names
            ]
        return [replace(video, voxel=self.voxel or video.voxel, order=self.sequence) for video in found]

    @property
    def fingerprint(self) -> str:
        """Digest of the contents of all data in use (after `setup`)."""
        digests = sorted({s.fingerprint for part in self.sequences.values() for s in part})
        return hashlib.blake2b("".join(digests).encode(), digest_size=8).hexdigest()

    def train_dataloader(self) -> ClipLoader:
        """Loader of `Clip` batches."""
        sequences = self._learnt
        target = None if self.trainer is None else getattr(self.trainer.lightning_module, "clip_target", None)
        if target is not None and all(s.labels is None for s in sequences):
            raise InputError("data.train: the method learns from instance labels, but there are semantic classes alone")
        return ClipLoader(
            ClipDataset(sequences, ClipAugmentation(self.augmentation, self.transforms), self.balance, target),
            sampler=self._clip_sampler(),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_one_thread,
            generator=torch.Generator(),
        )

    def _clip_sampler(self) -> ClipSampler:
        rank, world = self._process()
        return ClipSampler(
            [s.annotated for s in self._learnt],
            self.clip_length,
            self.batch_size,
            self.batches_per_epoch,
            stride=self.stride,
            reverse=self.reverse,
            streaming=self.streaming,
            annotated_share=self.annotated_share,
            seed=int(os.environ.get("PL_GLOBAL_SEED", 0)),
            rank=rank,
            world=world,
        )

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Loader of the validation videos, chunk by chunk."""
        return self._chunks("val") or []

    def test_dataloader(self) -> DataLoader | list[DataLoader]:
        """Loader of the test videos, chunk by chunk."""
        return self._chunks("test") or []

    def predict_dataloader(self) -> DataLoader | list[DataLoader]:
        """Loader of the videos to predict, chunk by chunk."""
        return self._chunks("predict") or []

    def _chunks(self, stage: str) -> DataLoader | None:
        sequences = self.sequences[stage]
        if not sequences:
            return None
        sampler = ChunkSampler([len(s) for s in sequences], self.chunk, *self._process())
        return DataLoader(
            ChunkDataset(sequences),
            sampler=sampler,
            batch_size=None,
            collate_fn=_as_it_is,
            generator=torch.Generator(),
        )

    def _process(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def transfer_batch_to_device(self, batch: Clip | Chunk, device: torch.device, dataloader_idx: int) -> Any:
        """Moves what networks and losses read; a chunk's truth stays with the CPU, where it is compared."""
        if isinstance(batch, Chunk):
            return batch._replace(frames=batch.frames.to(device, non_blocking=True))
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def describe(self) -> dict[str, str]:
        """What the data are, for the run's record (after `setup`)."""
        parts = {
            stage: " ".join(f"{s.name}[{s.numbers[0]}:{s.numbers[-1] + 1}]" for s in sequences)
            for stage, sequences in self.sequences.items()
        }
        if self.annotated_frames is not None:
            chosen = [(s.name, s.numbers[i]) for s in self.sequences["train"] for i in s.annotated.nonzero()[0]]
            parts["annotated"] = " ".join(f"{name}[{number}]" for name, number in chosen)
        return {"root": Path(self.root).name, "fingerprint": self.fingerprint, **parts}


def _as_it_is(batch: Any) -> Any:
    return batch


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
