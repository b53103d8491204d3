"""The losses against a loop over pixels and torch's own cross-entropy."""

import math

import pytest
import torch
from torch.nn import functional as F

from lightning_cells.errors import InputError
from lightning_cells.losses.cross_entropy import ThreeClassLoss, WeightedTwoClassLoss

WEIGHTS = (0.15, 0.25, 0.6)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def batch(classes=3, dtype=torch.float32):
    logits = torch.randn(2, 3, classes, 5, 4, dtype=dtype).mul(3).requires_grad_()
    target = torch.randint(-1, classes, (2, 3, 5, 4), dtype=torch.int8)
    return logits, target


def loop(logits, target, weight_at):
    """Weighted sum of -log softmax, sum of weights and number of pixels, one pixel at a time."""
    total = weights = 0.0
    pixels = 0
    for b, t, y, x in torch.cartesian_prod(*(torch.arange(n) for n in target.shape)).tolist():
        label = int(target[b, t, y, x])
        if label < 0:
            continue
        scores = logits[b, t, :, y, x].tolist()
        weight = weight_at(label, (b, t, y, x))
        total -= weight * (scores[label] - math.log(sum(math.exp(s) for s in scores)))
        weights += weight
        pixels += 1
    return total, weights, pixels


def test_three_classes_equal_a_loop_over_pixels():
    logits, target = batch(dtype=torch.float64)
    total, weights, pixels = loop(logits, target, lambda label, _: WEIGHTS[label])
    by_weights = ThreeClassLoss(WEIGHTS)(logits, target).item()
    by_pixels = ThreeClassLoss(WEIGHTS, normalize="pixels")(logits, target).item()
    assert by_weights == pytest.approx(total / weights, rel=1e-6)
    assert by_pixels == pytest.approx(total / pixels, rel=1e-6)
    assert by_weights != pytest.approx(by_pixels, rel=0.1)


@pytest.mark.parametrize("normalize", ["weights", "pixels"])
def test_a_further_class_is_background_of_another_weight(normalize):
    logits, target = batch(dtype=torch.float64)
    target[0, :2, 1:3] = 3
    known = torch.where(target == 3, 0, target)
    total, weights, pixels = loop(logits, known, lambda label, at: 0.7 if target[at] == 3 else WEIGHTS[label])
    loss = ThreeClassLoss(WEIGHTS, normalize, background_weight=0.7)(logits, target)
    assert loss.item() == pytest.approx(total / (weights if normalize == "weights" else pixels), rel=1e-6)
    with pytest.raises(InputError, match="background_weight"):
        ThreeClassLoss(WEIGHTS, background_weight=-1.0)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), WEIGHTS, (0.0, 1.0, 2.0)])
def test_three_classes_equal_torch_in_value_and_gradient(weights):
    logits, target = batch()
    expected = F.cross_entropy(logits.transpose(1, 2), target.long(), weight=torch.tensor(weights), ignore_index=-1)
    loss = ThreeClassLoss(weights)(logits, target)
    torch.testing.assert_close(loss, expected)
    (got,) = torch.autograd.grad(loss, logits)
    (want,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(got, want)
    assert not got.transpose(1, 2).movedim(1, -1)[target < 0].any()


def test_without_weights_both_ways_to_normalise_agree():
    logits, target = batch()
    torch.testing.assert_close(ThreeClassLoss(normalize="pixels")(logits, target), ThreeClassLoss()(logits, target))


@pytest.mark.parametrize("normalize", ["weights", "pixels"])
def test_all_ignored_is_zero_and_connected(normalize):
    logits, target = batch()
    loss = ThreeClassLoss(WEIGHTS, normalize)(logits, torch.full_like(target, -1))
    assert loss.item() == 0
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_only_a_class_of_no_weight_is_zero():
    logits, target = batch()
    loss = ThreeClassLoss((0.0, 1.0, 1.0))(logits, torch.zeros_like(target))
    assert loss.item() == 0


def test_two_classes_equal_a_loop_over_pixels():
    logits, target = batch(classes=2, dtype=torch.float64)
    weights = 12 * torch.rand(target.shape)
    total, _, pixels = loop(logits, target, lambda _, at: weights[at].item())
    loss = WeightedTwoClassLoss()(logits, target, weights)
    assert loss.item() == pytest.approx(total / pixels, rel=1e-6)


def test_two_classes_ignore_unknown_pixels_whatever_their_weight():
    logits, target = batch(classes=2)
    weights = torch.rand(target.shape)
    louder = torch.where(target < 0, torch.full_like(weights, 100), weights)
    loss = WeightedTwoClassLoss()
    torch.testing.assert_close(loss(logits, target, louder), loss(logits, target, weights))
    nothing = loss(logits, torch.full_like(target, -1), weights)
    assert nothing.item() == 0
    nothing.backward()
    assert not logits.grad.any()


def test_half_precision_logits_are_summed_in_float32():
    logits, target = batch()
    half = logits.detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        three = ThreeClassLoss(WEIGHTS)(half, target)
        two = WeightedTwoClassLoss()(half[:, :, :2], target.clamp(max=1), torch.ones(target.shape))
    assert three.dtype == two.dtype == torch.float32
    torch.testing.assert_close(three, ThreeClassLoss(WEIGHTS)(half.float(), target))


def test_large_logits_stay_finite():
    logits = torch.tensor([1e4, -1e4, 0.0]).view(1, 1, 3, 1, 1).requires_grad_()
    loss = ThreeClassLoss()(logits, torch.ones(1, 1, 1, 1, dtype=torch.int8))
    assert loss.item() == pytest.approx(2e4)
    loss.backward()
    assert logits.grad.isfinite().all()


def test_weights_are_settings_not_checkpoint():
    loss = ThreeClassLoss(WEIGHTS)
    assert loss.state_dict() == {}
    assert loss.to(torch.float64).class_weights.dtype == torch.float64


def test_wrong_options_are_named():
    with pytest.raises(InputError, match="class_weights"):
        ThreeClassLoss((1.0, -1.0, 1.0))
    with pytest.raises(InputError, match="class_weights"):
        ThreeClassLoss((0.0, 0.0, 0.0))
    with pytest.raises(InputError, match="normalize"):
        ThreeClassLoss(normalize="sum")
    logits, target = batch(classes=2)
    with pytest.raises(InputError, match="3 given for a network of 2 classes"):
        ThreeClassLoss()(logits, target)
