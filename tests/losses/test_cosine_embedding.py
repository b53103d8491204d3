"""The cosine embedding loss against loops over cells and pixels, and cases worked out by hand."""

from collections import Counter

import pytest
import torch

from lightning_cells.errors import InputError
from lightning_cells.losses.cosine_embedding import CosineEmbeddingLoss


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def squared_cosine(a, b):
    return torch.dot(a, b) ** 2 / (torch.dot(a, a) * torch.dot(b, b))


def plain_clip(embeddings, labels, pairs, background_weight=1.0, balance="class"):
    """The loss of one clip (T,D,H,W) as the paper writes it: sets of pixels, one pixel at a time."""
    pixels, cells, background, against = [], {}, [], []
    for t in range(labels.shape[0]):
        known = bool((labels[t] == 0).any())
        for y in range(labels.shape[1]):
            for x in range(labels.shape[2]):
                label, e = int(labels[t, y, x]), embeddings[t, :, y, x]
                pixels.append(e)
                if label == 0:
                    background.append(e)
                elif label != -1:
                    cells.setdefault(label if label > 0 else -1 - label, []).append(e)
                    if label > 0 and known:
                        against.append((label, e))
    loss = 0 * sum(pixels).sum()
    first = torch.zeros_like(pixels[0])
    first[0] = 1
    half = (len(background) + len(against)) / 2
    if background:
        size = len(background) if balance == "class" else half
        loss = loss + background_weight * sum(1 - squared_cosine(first, e) for e in background) / size
    if against:
        size = len(against) if balance == "class" else half
        counts = Counter(label for label, _ in against)
        for label, e in against:
            vote = len(against) / (len(counts) * counts[label]) if balance == "cell" else 1
            loss = loss + background_weight * vote * squared_cosine(first, e) / size
    for i, own in cells.items():
        mean = sum(own) / len(own)
        others = [e for a, b in pairs if a == i and b in cells for e in cells[b]]
        part = 1 - sum(squared_cosine(mean, e) for e in own) / len(own)
        if others:
            part = part + sum(squared_cosine(mean, e) for e in others) / len(others)
        loss = loss + part / len(cells)
    return loss


def plain_loss(embeddings, labels, neighbours, background_weight=1.0, balance="class"):
    clips = zip(embeddings, labels, neighbours.tolist(), strict=True)
    return sum(plain_clip(*clip, background_weight, balance) for clip in clips) / len(labels)


def random_batch(dtype=torch.float64, dims=5, batch=2):
    """Labels of every kind; ids with gaps; the second clip has other cells, more pairs, and strangers among them."""
    labels = torch.randint(0, 4, (batch, 3, 9, 11)).to(torch.int32) * 700
    labels[:, :, :3] = torch.randint(0, 9, (batch, 3, 3, 11)).to(torch.int32)
    labels[:, 0, 7:] = -1
    labels[:, 1] = torch.where(labels[:, 1] == 0, -1, labels[:, 1])  # a frame without known background
    labels[:, 1, 4, 4:7] = -1 - 700  # markers of a cell that is segmented elsewhere
    labels[:, 1, 5, 2:4] = -1 - 31  # and of one that is nowhere
    labels[1] += 10 * (labels[1] > 0).to(torch.int32)
    pairs = torch.full((batch, 12, 2), -1, dtype=torch.int32)
    pairs[0, :6] = torch.tensor([[700, 1400], [1400, 700], [700, 31], [3, 4], [31, 3], [3, 700]])
    if batch > 1:
        pairs[1, :5] = torch.tensor([[710, 12], [12, 710], [31, 1410], [999, 12], [12, 999]])
    embeddings = torch.randn(batch, 3, dims, 9, 11, dtype=dtype)
    return embeddings.requires_grad_(), labels, pairs


@pytest.mark.parametrize("balance", ["class", "pixel", "cell"])
@pytest.mark.parametrize("background_weight", [1.0, 0.3])
def test_equals_loops_in_value_and_gradient(background_weight, balance):
    embeddings, labels, pairs = random_batch()
    loss = CosineEmbeddingLoss(background_weight, balance)(embeddings, labels, pairs)
    expected = plain_loss(embeddings, labels, pairs, background_weight, balance)
    # The pixels are counted in float32.
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)
    (got,) = torch.autograd.grad(loss, embeddings)
    (want,) = torch.autograd.grad(expected, embeddings)
    torch.testing.assert_close(got, want, atol=1e-8, rtol=1e-5)
    assert not got.movedim(2, -1)[labels == -1].any()


def test_float32_and_other_layouts_and_integers():
    embeddings, labels, pairs = random_batch(torch.float32, dims=16)
    expected = plain_loss(embeddings, labels, pairs)
    frames = embeddings.detach().flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (2, 3))
    for given in (embeddings, frames.requires_grad_()):
        for dtype in (torch.int16, torch.int64):
            loss = CosineEmbeddingLoss()(given, labels.to(dtype), pairs.long())
            torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)
    loss.backward()
    (want,) = torch.autograd.grad(expected, embeddings)
    torch.testing.assert_close(frames.grad, want, atol=1e-6, rtol=1e-4)


def test_large_cells_fill_many_blocks():
    labels = torch.zeros(1, 2, 40, 50, dtype=torch.int32)
    labels[..., 5:25, 3:30] = 7
    labels[..., 25:31, 3:30] = 65_535
    pairs = torch.tensor([[[7, 65_535], [65_535, 7]]])
    embeddings = torch.randn(1, 2, 3, 40, 50, dtype=torch.float64, requires_grad=True)
    loss = CosineEmbeddingLoss()(embeddings, labels, pairs)
    expected = plain_loss(embeddings, labels, pairs)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)
    got, want = (torch.autograd.grad(each, embeddings)[0] for each in (loss, expected))
    torch.testing.assert_close(got, want, atol=1e-9, rtol=1e-5)


def halves(first, second, background):
    """Two cells beside each other above background; each part has one embedding (D,) all over, of some length."""
    labels = torch.zeros(1, 2, 8, 8, dtype=torch.int32)
    labels[..., :4, :4] = 3
    labels[..., :4, 4:] = 5
    embeddings = torch.empty(1, 2, len(first), 8, 8)
    for value, vector in ((3, first), (5, second), (0, background)):
        embeddings.movedim(2, -1)[labels == value] = torch.tensor(vector)
    embeddings *= torch.rand(1, 2, 1, 8, 8) + 0.5
    return embeddings, labels, torch.tensor([[[3, 5], [5, 3], [-1, -1]]])


def test_values_by_hand():
    loss = CosineEmbeddingLoss()
    e1, e2, e3 = [1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]
    nothing = torch.full((1, 3, 2), -1)
    right, labels, pairs = halves(e2, e3, e1)
    assert loss(right, labels, pairs).item() == pytest.approx(0, abs=1e-6)
    same, _, _ = halves(e2, e2, e1)
    assert loss(same, labels, pairs).item() == pytest.approx(1, abs=1e-6)  # L_N of both
    assert loss(same, labels, nothing).item() == pytest.approx(0, abs=1e-6)  # equal, but not neighbours
    assert loss(same, labels, pairs[:, :1]).item() == pytest.approx(0.5, abs=1e-6)  # the relation of one only
    wrong, _, _ = halves(e2, e3, e2)
    assert loss(wrong, labels, pairs).item() == pytest.approx(1, abs=1e-6)  # background off its axis
    on_axis, _, _ = halves(e1, e3, e1)
    assert loss(on_axis, labels, pairs).item() == pytest.approx(0.5, abs=1e-6)  # half the cells' pixels on it
    slanted, _, _ = halves([0, 0.6, 0.8], e3, e1)
    assert loss(slanted, labels, pairs).item() == pytest.approx(0.64, abs=1e-6)


def test_signs_do_not_matter():
    embeddings, labels, pairs = halves([0.1, 0.9, 0.3], [0.4, 0.2, 0.8], [0.7, 0.2, 0.1])
    flipped = embeddings.clone()
    flipped.movedim(2, -1)[labels == 5] *= -1
    flipped.movedim(2, -1)[labels == 0] *= -1
    loss = CosineEmbeddingLoss()
    torch.testing.assert_close(loss(flipped, labels, pairs), loss(embeddings, labels, pairs))


def test_several_outputs_add_up():
    embeddings, labels, pairs = random_batch()
    other = torch.randn_like(embeddings)
    loss = CosineEmbeddingLoss()
    expected = loss(embeddings, labels, pairs) + loss(other, labels, pairs)
    torch.testing.assert_close(loss([embeddings, other], labels, pairs), expected)


def test_bfloat16_is_computed_in_float32():
    embeddings, labels, pairs = random_batch(torch.float32)
    low = embeddings.detach().bfloat16().requires_grad_()
    expected = CosineEmbeddingLoss()(low.float(), labels, pairs)
    with torch.autocast("cpu", torch.bfloat16):
        loss = CosineEmbeddingLoss()(low, labels, pairs)
        loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)
    (want,) = torch.autograd.grad(CosineEmbeddingLoss()(embeddings, labels, pairs), embeddings)
    assert low.grad.dtype == torch.bfloat16
    torch.testing.assert_close(low.grad.float(), want, atol=1e-3, rtol=0.05)


CASES = {
    "unknown": [[-1, -1, -1, -1]],
    "background": [[0, 0, 0, 0]],
    "no background": [[2, 2, 9, 9]],
    "one cell": [[0, 2, 2, 0]],
    "one pixel": [[-1, 2, -1, -1]],
    "marker": [[-1, -3, -3, -1]],
    "markers on background": [[0, -3, -10, 0]],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("zero", [False, True])
def test_missing_parts_leave_a_finite_loss(case, zero):
    labels = torch.tensor(CASES[case], dtype=torch.int32)[None, None]
    pairs = torch.tensor([[[2, 9], [9, 2]]])
    embeddings = (torch.zeros if zero else torch.randn)(1, 1, 4, 1, 4).requires_grad_()
    loss = CosineEmbeddingLoss()(embeddings, labels, pairs)
    loss.backward()
    assert embeddings.grad.isfinite().all()
    if zero:
        assert loss.isfinite()
    else:
        torch.testing.assert_close(loss, plain_loss(embeddings, labels, pairs), atol=1e-5, rtol=0)


def test_clips_count_alike_and_one_may_be_unknown():
    embeddings, labels, pairs = random_batch()
    loss = CosineEmbeddingLoss()
    alone = [loss(embeddings[b : b + 1], labels[b : b + 1], pairs[b : b + 1]) for b in (0, 1)]
    torch.testing.assert_close(loss(embeddings, labels, pairs), sum(alone) / 2, atol=1e-6, rtol=0)
    labels[1] = -1
    torch.testing.assert_close(loss(embeddings, labels, pairs), alone[0] / 2, atol=1e-6, rtol=0)


def test_what_is_kept_for_backward_does_not_grow_with_cells():
    frames, size = 8, 256
    embeddings = torch.randn(1, frames, 16, size, size, requires_grad=True)

    def saved(cells):
        side = int(size / cells**0.5)
        index = torch.arange(size) // side
        labels = (index[:, None] * (size // side + 1) + index).clamp(max=cells - 1) + 1
        labels = labels.to(torch.int32).expand(1, frames, size, size)
        ids = torch.arange(1, cells + 1)
        pairs = torch.cartesian_prod(ids, ids)
        pairs = pairs[(pairs[:, 0] - pairs[:, 1]).abs() < 9][None]
        kept = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: kept.update({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()}) or t, lambda t: t
        ):
            loss = CosineEmbeddingLoss()(embeddings, labels, pairs)
        assert loss.isfinite()
        return sum(kept.values()) / 1e6

    few, many = saved(30), saved(500)
    assert many < 100
    assert many < 1.15 * few


def test_negative_weight_is_named():
    with pytest.raises(InputError, match="background_weight -1"):
        CosineEmbeddingLoss(-1)
