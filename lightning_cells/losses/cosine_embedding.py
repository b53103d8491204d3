"""The cosine embedding loss, from second moments of the embeddings of each cell."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

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
        given = [embeddings] if isinstance(embeddings, Tensor) else list(embeddings)
        with torch.no_grad():
            cells = _cells(labels, neighbours, self.balance)
        with torch.autocast(labels.device.type, enabled=False):
            return torch.stack([self._loss(each, cells) for each in given]).sum()

    def _loss(self, embeddings: Tensor, cells: "_Cells") -> Tensor:
        # Time first, as the networks lay frames in the batch: with `channels_last` this is a view.
        pixels = embeddings.permute(1, 0, 3, 4, 2).reshape(-1, embeddings.shape[2])
        block_sums, block_moments = _BlockMoments.apply(pixels, cells.order, cells.valid)
        number = len(cells.pixels)
        sums = _add_up(block_sums, cells.cell, number)
        moments = _add_up(block_moments, cells.cell, number)
        i, j = cells.pairs
        around = _add_up(moments[j], i, number)
        around_pixels = _add_up(cells.pixels[j], i, number)

        mean = F.normalize(sums / cells.pixels[:, None], dim=1, eps=SHORTEST)
        own = _quadratic(mean, moments) / cells.pixels
        other = _quadratic(mean, around) / around_pixels.clamp(min=1)
        background = cells.background - (cells.background_weight * block_moments[:, 0, 0]).sum()
        return ((1 - own + other) * cells.weight).sum() + self.background_weight * background


class _Cells(NamedTuple):
    """Which pixels belong to which cell. Each clip's background is a cell too, without weight and pairs.

    Attributes:
        order: (N,BLOCK) pixels by cell, as indices into (T,B,H,W); one past the end where a block is not full.
        valid: (N,BLOCK) 1 where there is a pixel, else 0.
        cell: (N,) index of the block's cell.
        background_weight: (N,) factor of the block's squared cosine with the first axis in ``background - L_b``.
        pixels: (K,) number of pixels of each cell.
        weight: (K,) share of each cell in the loss.
        pairs: (2,P) indices of cells and their neighbours.
        background: what ``L_b`` is if every embedding is at a right angle to the background's.
    """

    order: Tensor
    valid: Tensor
    cell: Tensor
    background_weight: Tensor
    pixels: Tensor
    weight: Tensor
    pairs: Tensor
    background: Tensor


def _cells(labels: Tensor, neighbours: Tensor, balance: Balance) -> _Cells:
    """Sort the pixels by clip, by cell, and by whether their frame counts for the background's neighbours."""
    batch = labels.shape[0]
    labels = labels.transpose(0, 1)
    ids = torch.maximum(labels, -1 - labels)  # 0 also where unknown
    span = int(ids.max()) + 1
    # One bit below clip and id: set where a cell is segmented in a frame with known background.
    clip = torch.arange(batch, device=labels.device).view(-1, 1, 1)
    against = (labels > 0) & (labels == 0).flatten(2).any(2)[..., None, None]
    dtype = torch.int32 if 2 * batch * span < 2**31 else torch.int64  # int32 sorts twice as fast
    nothing = torch.iinfo(dtype).max
    keys = ((clip * span).to(dtype) + ids.to(dtype)) * 2 + against
    keys = keys.masked_fill(labels == -1, nothing).flatten()
    keys, order = torch.sort(keys, stable=True)
    segments, counts = torch.unique_consecutive(keys, return_counts=True)
    if len(segments) and segments[-1] == nothing:
        segments, counts = segments[:-1], counts[:-1]
    segments = segments.long()

    found, cell = torch.unique_consecutive(segments // 2, return_inverse=True)
    found_clip, found_id = found // span, found % span
    pixels = _add_up(counts.float(), cell, len(found))
    is_cell = (found_id > 0).float()
    per_clip = _add_up(is_cell, found_clip, batch)
    weight = is_cell / (per_clip[found_clip].clamp(min=1) * batch)

    background, against_it = segments // 2 % span == 0, segments % 2 == 1
    side = 2 * (segments // 2 // span) + against_it
    sign = background.float() - against_it.float()
    sizes = _add_up(counts * sign.abs(), side, 2 * batch)
    if balance == "class":
        share = sign / (sizes[side].clamp(min=1) * batch)
    else:
        whole = sizes.view(batch, 2).sum(1).repeat_interleave(2) / 2
        share = sign / (whole[side].clamp(min=1) * batch)
    if balance == "cell":
        number = _add_up(against_it.float(), side, 2 * batch)
        even = sizes[side] / (number[side].clamp(min=1) * counts)
        share = torch.where(against_it, share * even, share)

    block_segment, order, valid = _blocks(counts, order)
    return _Cells(
        order,
        valid,
        cell[block_segment],
        share[block_segment],
        pixels,
        weight,
        _pairs(neighbours, found, span),
        (counts * share).clamp(min=0).sum(),
    )


def _blocks(counts: Tensor, order: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cut segments of sorted pixels into blocks: the segment of each block, its pixels, and which are there."""
    ends = counts.cumsum(0)
    blocks = (counts + BLOCK - 1) // BLOCK
    segment = torch.repeat_interleave(blocks)
    inside = torch.arange(len(segment), device=order.device) - (blocks.cumsum(0) - blocks)[segment]
    first = (ends - counts)[segment] + inside * BLOCK
    places = first[:, None] + torch.arange(BLOCK, device=order.device)
    valid = places < ends[segment][:, None]
    pixels = order[places.clamp(max=len(order) - 1)].masked_fill(~valid, len(order))
    return segment, pixels, valid.float()


def _pairs(neighbours: Tensor, found: Tensor, span: int) -> Tensor:
    """(B,P,2) ids -> (2,P) indices of those pairs whose cells are both among the sorted keys `found`."""
    if not len(found):
        return found.new_empty(2, 0)
    ids = neighbours.long().contiguous()
    keys = torch.arange(len(ids), device=ids.device).view(-1, 1, 1) * span + ids
    places = torch.searchsorted(found, keys).clamp(max=len(found) - 1)
    present = (ids > 0) & (ids < span) & (found[places] == keys)
    return places[present.all(2)].T


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
