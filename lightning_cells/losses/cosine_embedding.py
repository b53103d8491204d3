"""The cosine embedding loss, from second moments of the embeddings of each cell.

What depends on the labels alone, `cell_blocks`, is worked out by the loader's workers; what is left waits for nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from lightning_cells.errors import InputError

SHORTEST = 1e-6  # what embeddings and their means are divided by if they are shorter, as TensorFlow does
BLOCK = 64  # pixels of a cell that are summed in one matrix product; the last block of a cell is filled up

Balance = Literal["class", "pixel", "cell"]


class CosineEmbeddingLoss(nn.Module):
    """Embeddings of a cell point one way through all frames, at a right angle to its neighbours' and background's.

    The loss of Payer et al. (Medical Image Analysis 2019), sec. 2.2. With ``cos`` the cosine of the angle, `S_i` the
    pixels of cell i in all frames of the clip, `N_i` those of its neighbours and `m_i` the mean embedding of `S_i`,

        ``L = L_b + mean_i [1 - mean_{S_i} cos^2(m_i, e) + mean_{N_i} cos^2(m_i, e)]``,

    and ``L_b`` is the same bracket for the background, with its embedding fixed to the first axis and all segmented
    cells as neighbours. A mean over no pixel is left out. Gradients flow through ``m_i``.

    ``sum_{S_j} cos^2(m_i, e) = m_i' M_j m_i`` for unit ``m_i`` and ``M_j`` the sum of ``e e'`` over unit e: one pass
    over the pixels, sorted by cell, serves all pairs of cells, and memory does not grow with their number.

    Args:
        background_weight: factor of ``L_b``, 1 in the paper.
        balance: ``class`` gives background and cells the same share of ``L_b``, as the paper does: where cells are few,
            a pixel of theirs counts much more than one of the background, and outlines that are in doubt come out too
            large. ``pixel`` gives every pixel the same share, and leaves the sum of the shares as it is; small cells
            are missed then. ``cell`` gives the cells as much in all, and each of a clip the same.

    Raises:
        InputError: `background_weight` is negative.
    """

    def __init__(self, background_weight: float = 1.0, balance: Balance = "class") -> None:
        super().__init__()
        if background_weight < 0:
            raise InputError(f"background_weight {background_weight} of the cosine embedding loss: use 0 or more")
        self.background_weight = background_weight
        self.balance = balance

    def forward(self, embeddings: Tensor | Sequence[Tensor], labels: Tensor, neighbours: Tensor) -> Tensor:
        """Compute the loss, in float32 also under autocast.

        Args:
            embeddings: (B,T,D,H,W) of any length; or several of these, such as of each hourglass, whose losses are
                added up.
            labels: (B,T,H,W) of any integer dtype, in the label convention: > 0 a segmented cell, 0 background, -1
                unknown and left out, <= -2 a marker of the cell ``-1 - label``, which counts as its pixel. Background
                counts where it is known; its neighbours are the segmented pixels of frames that have any.
            neighbours: (B,P,2) integers, pairs ``(i, j)`` of cell ids that say that j is a neighbour of i, each
                once, filled up with pairs of -1. Pairs with a cell that is not in the clip are left out.

        Returns:
            A scalar, the mean over the clips; zero, still connected to `embeddings`, where no pixel counts.
        """
        clips = [cell_blocks(*clip, self.balance) for clip in zip(labels.cpu(), neighbours.cpu(), strict=True)]
        blocks = {
            name: pad_sequence([clip[name] for clip in clips], batch_first=True, padding_value=filler(clips[0][name]))
            for name in clips[0]
        }
        return self.of_blocks(embeddings, {name: each.to(labels.device) for name, each in blocks.items()})

    def of_blocks(self, embeddings: Tensor | Sequence[Tensor], blocks: Mapping[str, Tensor]) -> Tensor:
        """Compute the loss of clips whose cells were sorted before; no step of it waits for the device.

        Args:
            embeddings: as `forward` takes them.
            blocks: `cell_blocks` of each clip, (B,...), filled up to one length with `filler`.

        Returns:
            As `forward`.
        """
        given = [embeddings] if isinstance(embeddings, Tensor) else list(embeddings)
        with torch.no_grad():
            cells = _joined(blocks, given[0].shape)
        with torch.autocast(given[0].device.type, enabled=False):
            return torch.stack([self._loss(each, cells) for each in given]).sum()

    def _loss(self, embeddings: Tensor, cells: "_Cells") -> Tensor:
        # Time first, as the networks lay frames in the batch: with `channels_last` this is a view.
        pixels = embeddings.permute(1, 0, 3, 4, 2).reshape(-1, embeddings.shape[2])
        block_sums, block_moments = _BlockMoments.apply(pixels, cells.order, cells.valid)
        number = len(cells.pixels)
        sums = _add_up(block_sums, cells.cell, number)
        moments = _add_up(block_moments, cells.cell, number)
        i, j = cells.pairs
        around = _add_up(moments[j] * cells.paired[:, None, None], i, number)
        around_pixels = _add_up(cells.pixels[j] * cells.paired, i, number)

        counted = cells.pixels.clamp(min=1)  # what fills up has none
        mean = F.normalize(sums / counted[:, None], dim=1, eps=SHORTEST)
        own = _quadratic(mean, moments) / counted
        other = _quadratic(mean, around) / around_pixels.clamp(min=1)
        background = cells.background - (cells.background_weight * block_moments[:, 0, 0]).sum()
        return ((1 - own + other) * cells.weight).sum() + self.background_weight * background


class _Cells(NamedTuple):
    """Which pixels of a batch belong to which cell. Each clip's background is a cell too, without weight and pairs.

    Attributes:
        order: (N,BLOCK) pixels by cell, as indices into (T,B,H,W); one past the end where a block is not full.
        valid: (N,BLOCK) 1 where there is a pixel, else 0.
        cell: (N,) index of the block's cell.
        background_weight: (N,) factor of the block's squared cosine with the first axis in ``background - L_b``.
        pixels: (K,) number of pixels of each cell.
        weight: (K,) share of each cell in the loss.
        pairs: (2,P) indices of cells and their neighbours.
        paired: (P,) 1 for a pair, 0 for what fills up.
        background: what ``L_b`` is if every embedding is at a right angle to the background's.
    """

    order: Tensor
    valid: Tensor
    cell: Tensor
    background_weight: Tensor
    pixels: Tensor
    weight: Tensor
    pairs: Tensor
    paired: Tensor
    background: Tensor


def filler(array: Tensor) -> int:
    """What an array of `cell_blocks` is filled up with: -1 for whole numbers, else 0."""
    return 0 if array.is_floating_point() else -1


@torch.no_grad()
def cell_blocks(labels: Tensor, neighbours: Tensor, balance: Balance = "class") -> dict[str, Tensor]:
    """Sort the pixels of a clip by cell, and by whether their frame counts for the background's neighbours.

    Args:
        labels: (T,H,W) of any integer dtype, on the CPU, see `CosineEmbeddingLoss.forward`.
        neighbours: (P,2) integers, as there.
        balance: of the loss.

    Returns:
        Arrays by name: ``order`` (N,BLOCK) int32 pixels by cell as indices into (T,H,W), ``cell`` (N,) int32 index of
        the block's cell, ``background_weight`` (N,), ``pixels`` (K,) and ``weight`` (K,) float32 of each cell,
        ``pairs`` (P,2) int32 indices of cells and their neighbours, ``background`` (1,). For what they mean see
        `_Cells`.
    """
    ids = torch.maximum(labels, -1 - labels)  # 0 also where unknown
    span = int(ids.max()) + 1
    # One bit below the id: set where a cell is segmented in a frame with known background.
    against = (labels > 0) & (labels == 0).flatten(1).any(1)[:, None, None]
    dtype = torch.int32 if 2 * span < 2**31 else torch.int64  # int32 sorts twice as fast
    nothing = torch.iinfo(dtype).max
    keys = ids.to(dtype) * 2 + against
    keys = keys.masked_fill(labels == -1, nothing).flatten()
    keys, order = torch.sort(keys, stable=True)
    segments, counts = torch.unique_consecutive(keys, return_counts=True)
    if len(segments) and segments[-1] == nothing:
        segments, counts = segments[:-1], counts[:-1]
    segments = segments.long()

    found, cell = torch.unique_consecutive(segments // 2, return_inverse=True)
    pixels = _add_up(counts.float(), cell, len(found))
    is_cell = (found > 0).float()
    weight = is_cell / is_cell.sum().clamp(min=1)

    background, against_it = segments // 2 == 0, segments % 2 == 1
    side = against_it.long()
    sign = background.float() - against_it.float()
    sizes = _add_up(counts * sign.abs(), side, 2)
    share = sign / (sizes[side] if balance == "class" else (sizes.sum() / 2).expand(len(side))).clamp(min=1)
    if balance == "cell":
        even = sizes[1] / (against_it.float().sum().clamp(min=1) * counts)
        share = torch.where(against_it, share * even, share)

    block_segment, blocks = _blocks(counts, order)
    return {
        "order": blocks,
        "cell": cell[block_segment].int(),
        "background_weight": share[block_segment],
        "pixels": pixels,
        "weight": weight,
        "pairs": _pairs(neighbours, found).int(),
        "background": (counts * share).clamp(min=0).sum()[None],
    }


def _blocks(counts: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """Cut segments of sorted pixels into blocks: the segment of each block, and its pixels, -1 where it is not full."""
    ends = counts.cumsum(0)
    blocks = (counts + BLOCK - 1) // BLOCK
    segment = torch.repeat_interleave(blocks)
    inside = torch.arange(len(segment)) - (blocks.cumsum(0) - blocks)[segment]
    first = (ends - counts)[segment] + inside * BLOCK
    places = first[:, None] + torch.arange(BLOCK)
    pixels = order[places.clamp(max=len(order) - 1)].masked_fill(places >= ends[segment][:, None], -1)
    return segment, pixels.int()


def _pairs(neighbours: Tensor, found: Tensor) -> Tensor:
    """(P,2) ids -> (P,2) indices of those pairs whose cells are both among the sorted ids `found`."""
    if not len(found):
        return found.new_empty(0, 2)
    ids = neighbours.long().contiguous()
    places = torch.searchsorted(found, ids).clamp(max=len(found) - 1)
    present = (ids > 0) & (found[places] == ids)
    return places[present.all(1)]


def _joined(blocks: Mapping[str, Tensor], shape: torch.Size) -> _Cells:
    """`cell_blocks` of the clips of a batch, whose embeddings are (B,T,D,H,W), as those of one."""
    batch, time, _, height, width = shape
    number = blocks["pixels"].shape[1]
    clip = torch.arange(batch, device=blocks["cell"].device)[:, None]
    first = clip * number  # index of a clip's first cell
    order, frame = blocks["order"].flatten(1).long(), height * width
    valid = order >= 0
    place = (order // frame * batch + clip) * frame + order % frame
    pairs = blocks["pairs"].flatten(1).long()
    paired = (blocks["pairs"][..., 0] >= 0).flatten()
    return _Cells(
        torch.where(valid, place, time * batch * frame).view(-1, BLOCK),
        valid.view(-1, BLOCK).float(),
        (blocks["cell"].clamp(min=0) + first).flatten().long(),
        blocks["background_weight"].flatten() / batch,
        blocks["pixels"].flatten(),
        blocks["weight"].flatten() / batch,
        (pairs.clamp(min=0) + first).view(-1, 2).T,
        paired.float(),
        blocks["background"].sum() / batch,
    )


def _add_up(rows: Tensor, places: Tensor, number: int) -> Tensor:
    """(N,...) -> (number,...), the sums of the rows that share a place.

    Not `index_add`, which keeps the rows for its backward pass, and is not deterministic on a GPU.
    """
    return rows.new_zeros(number, *rows.shape[1:]).index_put((places,), rows, accumulate=True)


def _quadratic(vectors: Tensor, matrices: Tensor) -> Tensor:
    """(K,D), (K,D,D) -> (K,) v'Mv."""
    return (torch.bmm(matrices, vectors[:, :, None])[..., 0] * vectors).sum(1)


class _BlockMoments(torch.autograd.Function):
    """Sums of pixels, and of the outer products of their unit vectors with themselves, over blocks of pixels.

    Keeps the unit vectors in their sorted order alone, where autograd would keep each step.
    """

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, order: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """(P,D), (N,BLOCK), (N,BLOCK) -> (N,D) and (N,D,D), in float32 at least."""
        number, dims = len(order), pixels.shape[1]
        unit = pixels.index_select(0, order.flatten().clamp(max=len(pixels) - 1))
        unit = unit.to(torch.promote_types(unit.dtype, torch.float32))
        lengths = torch.linalg.vector_norm(unit, dim=1).clamp_(min=SHORTEST)
        inverse = valid.flatten() / lengths
        unit = unit.mul_(inverse[:, None]).view(number, BLOCK, dims)
        ctx.save_for_backward(unit, inverse, order)
        ctx.pixels = pixels.shape, pixels.dtype
        return torch.bmm(lengths.view(number, 1, BLOCK), unit)[:, 0], torch.bmm(unit.transpose(1, 2), unit)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sums: Tensor, grad_moments: Tensor) -> tuple[Tensor, None, None]:
        """Through outer product, division by the length, and sorting."""
        unit, inverse, order = ctx.saved_tensors
        (number, dims), dtype = ctx.pixels
        with torch.autocast(unit.device.type, enabled=False):
            rows = torch.bmm(unit, grad_moments + grad_moments.transpose(1, 2))
            along = torch.linalg.vecdot(rows, unit)[..., None]
            rows.addcmul_(unit, along, value=-1)
            rows.mul_(inverse.view(*order.shape, 1)).add_(grad_sums[:, None])
        grad = rows.new_zeros(number + 1, dims, dtype=dtype)  # the last row is for what fills the blocks up
        grad.index_copy_(0, order.flatten(), rows.flatten(0, 1).to(dtype))
        return grad[:-1], None, None
