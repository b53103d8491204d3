"""The recurrent stacked hourglass network, its two variants without memory, and what a window costs."""

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lightning_cells.errors import InputError
from lightning_cells.networks.gru import ConvGRU, variance_scaling_
from lightning_cells.networks.recurrent import merge_time, split_time

Temporal = Literal["recurrent", "volumetric", "single-frame"]
Levels = tuple[Tensor, ...]
HourglassState = tuple[Levels, ...]

FLOOR = 1e-4  # of the squared length that embeddings are divided by between hourglasses, from the authors' code


class Hourglass(nn.Module):
    """One hourglass: a contracting path, a path that remembers, and an expanding path (Payer et al. 2019, sec. 2.1).

    The contracting path never sees the state, so each path runs over all frames at once; the three can be called
    one by one. Clips are (B,T,channels,H,W) everywhere.

    Args:
        inputs: channels of the input.
        features: channels of every layer but the last.
        levels: number of resolutions; one pooling less.
        outputs: channels of the output.
        temporal: see `StackedHourglass`.
        recompute: see `StackedHourglass`.
    """

    def __init__(
        self, inputs: int, features: int, levels: int, outputs: int, temporal: Temporal, recompute: bool = False
    ) -> None:
        super().__init__()
        self.temporal = temporal
        self.recompute = recompute
        volumetric = temporal == "volumetric"
        self.entry = _conv(inputs, features, 1, volumetric)
        self.contracting = nn.ModuleList(_conv(features, features, 3, volumetric) for _ in range(levels))
        self.parallel = nn.ModuleList(
            ConvGRU(features, features, 3) if temporal == "recurrent" else _conv(features, features, 3, volumetric)
            for _ in range(levels)
        )
        self.expanding = nn.ModuleList(_conv(features, features, 3, volumetric) for _ in range(levels))
        self.exit = _conv(features, outputs, 1, volumetric, scale=1.0)

    def contract(self, clip: Tensor) -> Levels:
        """Run everything before the memory: the contracting path, and the input convolutions of the path beside it.

        Args:
            clip: (B,T,inputs,H,W).

        Returns:
            One clip per level, top first, each half as large as the one above, rounded up: what the GRUs' `unroll`
            takes (or what goes into the GRUs, where they are to be recomputed), or, without GRUs, what the expanding
            path takes. Unless the network is volumetric, frames do not mix.
        """
        batch = clip.shape[0]
        levels: list[Tensor] = []
        x = F.relu_(self.entry(self._lay(clip)))
        for level, (contracting, parallel) in enumerate(zip(self.contracting, self.parallel, strict=True)):
            x = F.relu_(contracting(self._pool(x) if level else x))
            if isinstance(parallel, ConvGRU):
                given = split_time(x, batch)
                levels.append(given if self._recomputes else parallel.gates(given))
            else:
                levels.append(self._clip(F.relu_(parallel(x)), batch))
        return tuple(levels)

    def remember(self, levels: Levels, state: Levels | None = None) -> tuple[Levels, Levels | None]:
        """Run the GRUs over what `contract` returned.

        Args:
            levels: one clip per level.
            state: per level (B,features,h,w), or ``None`` for zero.

        Returns:
            The GRUs' outputs per level, and the state after the last frame; without GRUs `levels` and ``None``.
        """
        if self.temporal != "recurrent":
            return levels, None
        before = state or (None,) * len(levels)
        runs = [self._run(*given) for given in zip(self.parallel, levels, before, strict=True)]  # type: ignore
        outputs, after = zip(*runs, strict=True)
        return outputs, after

    def expand(self, levels: Levels, last: int | None = None) -> Tensor:
        """Run the expanding path.

        Args:
            levels: one clip per level, from `remember`.
            last: number of frames at the end to run it for; ``None`` for all.

        Returns:
            (B, last or T, outputs, H, W).
        """
        start = 0 if last is None else max(levels[0].shape[1] - last, 0)
        early = 0 if self.temporal == "volumetric" else start  # volumetric layers need the frames before, too
        x: Tensor | None = None
        for clip, conv in zip(reversed(levels), reversed(self.expanding), strict=True):
            skip = self._lay(clip[:, early:])
            x = F.relu_(conv(skip if x is None else skip + self._enlarge(x, skip)))
        return self._clip(self.exit(x), len(levels[0]))[:, start - early :]

    def _run(self, gru: ConvGRU, given: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        if self._recomputes:
            return checkpoint(gru, given, state, use_reentrant=False)
        return gru.unroll(given, state)

    @property
    def _recomputes(self) -> bool:
        return self.recompute and torch.is_grad_enabled()

    def _lay(self, clip: Tensor) -> Tensor:
        """(B,T,...) as the convolutions take it: frames in the batch axis, or time behind the channels."""
        return clip.transpose(1, 2) if self.temporal == "volumetric" else merge_time(clip)

    def _clip(self, x: Tensor, batch: int) -> Tensor:
        """Undo `_lay`; like it, without a copy."""
        return x.transpose(1, 2) if self.temporal == "volumetric" else split_time(x, batch)

    def _pool(self, x: Tensor) -> Tensor:
        if self.temporal == "volumetric":
            return F.max_pool3d(x, (1, 2, 2), ceil_mode=True)
        return F.max_pool2d(x, 2, ceil_mode=True)

    def _enlarge(self, x: Tensor, like: Tensor) -> Tensor:
        scale = (1.0, 2.0, 2.0) if self.temporal == "volumetric" else (2.0, 2.0)
        height, width = like.shape[-2:]
        return F.interpolate(x, scale_factor=scale, mode="nearest")[..., :height, :width]


class StackedHourglass(nn.Module):
    """Recurrent stacked hourglass network of Payer et al., "Segmenting and tracking cell instances with cosine
    embeddings and recurrent hourglass networks" (Medical Image Analysis 2019), sec. 2.1.

    Every level of an hourglass has a convolutional GRU between its contracting and its expanding path. The second
    hourglass sees the image beside the normalised embeddings of the first. All layers are `features` wide, with
    ReLU, without normalisation. The hidden layers' initialisation is that of the authors' code; the last one's,
    half that variance because no ReLU follows, is ours.

    With ``memory_format=torch.channels_last`` (``channels_last_3d`` if volumetric) all layers keep that layout. The
    defaults are the paper's network, 4,136,608 parameters; single-frame it has 1,554,336, volumetric 4,650,912.

    Args:
        features: channels of every hidden layer.
        levels: resolutions of an hourglass; each halves the one above, rounded up.
        embedding: dimensions of the embeddings.
        stacks: number of hourglasses.
        temporal: ``"recurrent"``; ``"single-frame"`` puts a 3x3 convolution with ReLU in place of every GRU;
            ``"volumetric"`` does the same, and makes every 3x3 convolution a 3x3x3 one over the frames of the clip,
            with pooling in the frame's plane alone.
        recompute: keep only what goes into the GRUs, and run them again in the backward pass.
        outputs: channels of the last hourglass's result, where that is no embedding; ``None`` for `embedding`.

    Raises:
        InputError: a number is not positive, or `temporal` is unknown.
    """  # noqa: D205

    def __init__(
        self,
        features: int = 64,
        levels: int = 7,
        embedding: int = 16,
        stacks: int = 2,
        temporal: Temporal = "recurrent",
        recompute: bool = False,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        for name, number in {"features": features, "levels": levels, "embedding": embedding, "stacks": stacks}.items():
            if number < 1:
                raise InputError(f"{name} {number} of the stacked hourglass: use 1 or more")
        if temporal not in ("recurrent", "volumetric", "single-frame"):
            raise InputError(
                f"temporal {temporal!r} of the stacked hourglass: use recurrent, volumetric or single-frame"
            )
        self.temporal = temporal
        results = [embedding] * (stacks - 1) + [outputs or embedding]
        self.stacks = nn.ModuleList(
            Hourglass(1 + embedding if number else 1, features, levels, result, temporal, recompute)
            for number, result in enumerate(results)
        )

    def forward(
        self, frames: Tensor, state: HourglassState | None = None
    ) -> tuple[list[Tensor], HourglassState | None]:
        """Embed the pixels of a clip.

        Args:
            frames: (B,T,1,H,W) normalised grey values, frames of any size, T >= 1.
            state: what the clip before returned (see `detach_state` and `reset_state`); ``None`` at the start.

        Returns:
            The embeddings of every hourglass (B,T,embedding,H,W), not normalised; the last ones are the result,
            the others are there for the loss. And the state: per hourglass and level, top first, (B,features,h,w);
            ``None`` unless recurrent.
        """
        return self._run(frames, self._hourglasses[0].contract(frames), state, None)

    def contract(self, frames: Tensor) -> Levels:
        """Compute what overlapping windows can share: the first hourglass up to its memory.

        Args:
            frames: (B,T,1,H,W).

        Returns:
            One clip per level, (B,T,channels,h,w), frame by frame: cut it like the frames, and give the parts to
            `embed`. Empty for a volumetric network, whose windows share nothing.
        """
        return () if self.temporal == "volumetric" else self._hourglasses[0].contract(frames)

    def embed(self, frames: Tensor, contracted: Levels = (), last: int = 2) -> Tensor:
        """Embed the last frames of a window, seen from the window's first frame on.

        Args:
            frames: (B,T,1,H,W).
            contracted: what `contract` returned for these frames; computed here if empty.
            last: number of frames at the end to embed.

        Returns:
            (B,last,embedding,H,W), equal to the end of what `forward` returns last for these frames.
        """
        if self.temporal == "single-frame":  # nothing is seen of the frames before
            frames, contracted = frames[:, -last:], tuple(level[:, -last:] for level in contracted)
        return self._run(frames, contracted or self._hourglasses[0].contract(frames), None, last)[0][-1]

    @property
    def _hourglasses(self) -> list[Hourglass]:
        return cast(list[Hourglass], list(self.stacks))

    def _run(
        self, frames: Tensor, contracted: Levels, state: HourglassState | None, last: int | None
    ) -> tuple[list[Tensor], HourglassState | None]:
        """All hourglasses after the first one's contracting path, the last one's expanding path for `last` frames."""
        embeddings: list[Tensor] = []
        states: list[Levels | None] = []
        for number, stack in enumerate(self._hourglasses):
            if number:
                contracted = stack.contract(torch.cat([frames, _unit(embeddings[-1]).to(frames.dtype)], dim=2))
            levels, after = stack.remember(contracted, state[number] if state else None)
            final = number == len(self.stacks) - 1
            embeddings.append(stack.expand(levels, last if final else None))
            states.append(after)
        return embeddings, cast(HourglassState, tuple(states)) if self.temporal == "recurrent" else None


class HourglassSegmenter(nn.Module):
    """The stacked hourglass without recurrence, which gives classes in place of embeddings.

    With it Payer et al. 2019, section 5.1, compare their loss with a cross entropy on the same network.

    Args:
        classes: channels of the result.
        features: see `StackedHourglass`, as are the others.
        levels: of an hourglass.
        embedding: channels between hourglasses.
        stacks: number of hourglasses.
    """

    def __init__(self, classes: int, features: int = 64, levels: int = 7, embedding: int = 16, stacks: int = 2) -> None:
        super().__init__()
        self.network = StackedHourglass(features, levels, embedding, stacks, "single-frame", outputs=classes)

    def forward(self, frames: Tensor) -> Tensor:
        """Class scores of frames of any size: float32 (B, 1, H, W) -> (B, classes, H, W) logits."""
        return self.network(frames[:, None])[0][-1][:, 0]


def _unit(embeddings: Tensor) -> Tensor:
    """Embeddings (B,T,D,H,W) divided by their length; short ones by `FLOOR`'s root, as TensorFlow does."""
    precise = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
    return F.normalize(precise, dim=2, eps=FLOOR**0.5)


def _conv(inputs: int, outputs: int, kernel: int, volumetric: bool, scale: float = 2.0) -> nn.Conv2d | nn.Conv3d:
    conv = (nn.Conv3d if volumetric else nn.Conv2d)(inputs, outputs, kernel, padding=kernel // 2)
    variance_scaling_(conv.weight, conv.weight[0].numel(), scale)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv
