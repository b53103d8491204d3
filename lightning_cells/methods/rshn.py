"""Recurrent stacked hourglass network with cosine embeddings (Payer et al., Medical Image Analysis 2019)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lightning_cells.data.clips import Clip
from lightning_cells.data.datamodule import SequenceDataModule
from lightning_cells.data.neighbours import CosineTarget
from lightning_cells.instances.embedding import EmbeddingDecoder
from lightning_cells.instances.tiling import Tiling
from lightning_cells.instances.windows import LinkOptions, PairLinker
from lightning_cells.losses.cosine_embedding import Balance, CosineEmbeddingLoss, cell_blocks
from lightning_cells.methods.base import CellMethod
from lightning_cells.methods.colours import embedding_colours
from lightning_cells.methods.embedded import EmbeddedVideo
from lightning_cells.methods.optimisation import Optimization
from lightning_cells.networks.hourglass import StackedHourglass


@dataclass(frozen=True)
class CellTarget:
    """Makes of the labels of a clip what the cosine embedding loss needs of them.

    Args:
        neighbours: finds the cells' neighbours.
        balance: of the loss.
    """

    neighbours: CosineTarget
    balance: Balance

    def __call__(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Turn labels (T,H,W) into `cell_blocks`."""
        pairs = torch.from_numpy(self.neighbours(labels)["neighbours"])
        blocks = cell_blocks(torch.from_numpy(labels), pairs, self.balance)
        return {name: array.numpy() for name, array in blocks.items()}


class RSHN(CellMethod):
    """Embeds each pixel so that cells of a clip can be clustered, and tracks by what pairs of frames share.

    Args:
        features: channels of every hidden layer.
        levels: resolutions of an hourglass.
        embedding: dimensions of the embeddings.
        stacks: number of hourglasses.
        temporal: ``recurrent``, ``volumetric``, or ``single-frame`` without any memory.
        recompute: save memory in training by running the GRUs again in the backward pass.
        neighbour_radius: r_N: how far from the centroid of a cell another is its neighbour, in pixels of the
            resampled frame (table 1 of the paper).
        neighbour_dilation: cells this close in the same frame or the next are neighbours, too, in pixels.
        background_weight: factor of the background's share of the loss.
        balance: whether background and cells (``class``, the paper), all their pixels (``pixel``), or all cells of a
            clip (``cell``) have the same weight in that share; see `CosineEmbeddingLoss`.
        optimization: how the network is trained; the paper's optimiser is ``adam``.
        window: frames that the network sees for each pair of frames at inference (the paper's l).
        tiling: cuts frames into tiles and merges their cells.
        tile_batch: tiles that go through the network together at inference; on a GPU 16 at least.
        decoder: embeddings of two frames -> cells; `min_size` counts pixels of the resampled frames.
        linking: thresholds of tracking, in pixels of the original frames.
    """

    network: StackedHourglass
    paper = "Payer et al., MedIA 2019"

    def __init__(
        self,
        features: int = 64,
        levels: int = 7,
        embedding: int = 16,
        stacks: int = 2,
        temporal: Literal["recurrent", "volumetric", "single-frame"] = "recurrent",
        recompute: bool = False,
        neighbour_radius: float = 50.0,
        neighbour_dilation: int = 5,
        background_weight: float = 1.0,
        balance: Balance = "class",
        optimization: Optimization = Optimization(lr=1e-4, weight_decay=1e-5),  # noqa: B008 - frozen
        window: int = 8,
        tiling: Tiling = Tiling(),  # noqa: B008 - frozen
        tile_batch: int = 1,
        decoder: EmbeddingDecoder = EmbeddingDecoder(),  # noqa: B008 - frozen
        linking: LinkOptions = LinkOptions(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self.remember()
        self.optimization = optimization
        self.network = StackedHourglass(features, levels, embedding, stacks, temporal, recompute)
        layout = torch.channels_last_3d if temporal == "volumetric" else torch.channels_last
        self.network.to(memory_format=layout)  # type: ignore[call-overload]  # a third faster with bfloat16
        self.clip_target = CellTarget(CosineTarget(neighbour_radius, neighbour_dilation), balance)
        self.loss = CosineEmbeddingLoss(background_weight, balance)
        self.tiling = tiling
        self.decoder = decoder
        self.linking = linking

    def on_fit_start(self) -> None:
        """Takes a safe layout: on a CPU, torch 2.13's bfloat16 gradients of volumetric channels-last layers are random.

        They read memory that was never written, and are NaN now and then.
        """
        if (
            self.hparams["temporal"] == "volumetric"
            and self.device.type == "cpu"
            and str(self.trainer.precision)[:2] == "bf"
        ):
            self.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def training_step(self, clip: Clip, batch_idx: int) -> Tensor:
        """One clip from a state of zero, with the loss on every hourglass."""
        embeddings, _ = self.network(clip.frames)
        loss = self.loss.of_blocks(embeddings, clip.target)
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(clip.frames))
        return loss

    def check(self, data: SequenceDataModule, stage: str) -> None:
        """Refuses volumes, whose planes it could learn from, but not track."""
        for part in {"fit": ("train", "val"), "validate": ("val",)}.get(stage, (stage,)):
            for video in data.sequences[part]:
                if len(video.size) > 2:
                    self.open_volumes(video.size)  # type: ignore[arg-type]  # three sides

    @property
    def first_chunk(self) -> int:
        """How many frames the first chunk of a video needs, if the video has as many: the first is seen in a pair."""
        return 2

    def open_video(self, size: tuple[int, int], first_frame: int = 0) -> EmbeddedVideo:
        """Returns a fresh state for a video whose frames are (H, W) `size` on disk, numbered from `first_frame`."""
        return EmbeddedVideo(
            self.network,
            self.hparams["window"],
            size,
            self.tiling,
            self.hparams["tile_batch"],
            self.decoder,
            PairLinker(self.linking, first_frame),
        )

    def picture(self, frames: Tensor) -> np.ndarray:
        """Draws the embeddings of the last of some frames, float32 (T, 1, h, w), tile by tile: uint8 (h, w, 3)."""
        frames = frames[-self.hparams["window"] :]
        size = (frames.shape[-2], frames.shape[-1])
        canvas = frames.new_zeros(self.hparams["embedding"], *size)
        for rows, columns in self.tiling.layout(size):
            embeddings = self.network.embed(frames[None, ..., rows, columns], (), last=1)[0, 0]
            # of what neighbouring tiles share each gives the half that is farther from its side
            top, left = (self.tiling.overlap // 2 if span.start else 0 for span in (rows, columns))
            canvas[:, rows.start + top : rows.stop, columns.start + left : columns.stop] = embeddings[:, top:, left:]
        return embedding_colours(canvas)
