"""The focal loss against a loop over pixels, torch's cross-entropy and automatic differentiation."""

import pytest
import torch
from torch.nn import functional as F

from lightning_cells.errors import InputError
from lightning_cells.losses.focal import FocalLoss

NORMALIZE = ["sum", "batch_mean", "none"]
WEIGHTS = (0.2, 1.0, 3.0)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def batch(classes=3, dtype=torch.float64):
    logits = torch.randn(3, classes, 5, 4, dtype=dtype).mul(2).requires_grad_()
    target = torch.randint(-4, classes, (3, 5, 4), dtype=torch.int8)  # -1 is unknown, the others are markers
    target[1] = -1  # images differ in how much is known of them
    target[1, 2] = torch.tensor([0, 1, -2, 1])
    return logits, target


def loop(logits, target, gamma, normalize, class_weights):
    """One pixel at a time, with the formulas as they are written; a denominator is a plain number."""
    images = []
    for image, labels in zip(logits, target, strict=True):
        weighted, total, alpha = [], 0.0, 0.0
        for y in range(labels.shape[0]):
            for x in range(labels.shape[1]):
                label = int(labels[y, x])
                if label < 0:
                    continue
                p = image[:, y, x].exp()[label] / image[:, y, x].exp().sum()
                a = class_weights[label] if class_weights else 1.0
                weighted.append(-a * (1 - p) ** gamma * p.log())
                total += float(a * (1 - p.detach()) ** gamma)
                alpha += a
        if weighted:
            images.append((sum(weighted), total, alpha))
    if normalize == "batch_mean":
        return sum(numerator / total for numerator, total, _ in images) / len(images)
    return sum(image[0] for image in images) / sum(image[1 if normalize == "sum" else 2] for image in images)


@pytest.mark.parametrize("class_weights", [None, WEIGHTS, (0.0, 1.0, 2.0)])
@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_equals_a_loop_over_pixels_in_value_and_gradient(gamma, normalize, class_weights):
    logits, target = batch()
    loss = FocalLoss(gamma, normalize, class_weights).double()(logits, target)
    expected = loop(logits, target, gamma, normalize, class_weights)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    (got,) = torch.autograd.grad(loss, logits)
    (want,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-9)
    assert got.abs().sum() > 0
    assert not got.movedim(1, -1)[target < 0].any()


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
@pytest.mark.parametrize("normalize", ["sum", "none"])
def test_gamma_zero_is_cross_entropy(normalize, class_weights):
    logits, target = batch(dtype=torch.float32)
    weight = None if class_weights is None else torch.tensor(class_weights)
    expected = F.cross_entropy(logits, target.long().clamp(min=-1), weight=weight, ignore_index=-1)
    loss = FocalLoss(0.0, normalize, class_weights)(logits, target)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_gamma_zero_per_image_is_cross_entropy_of_images():
    logits, target = batch(dtype=torch.float32)
    each = [
        F.cross_entropy(image[None], labels[None].long().clamp(min=-1), ignore_index=-1)
        for image, labels in zip(logits, target, strict=True)
    ]
    assert FocalLoss(0.0, "batch_mean")(logits, target).item() == pytest.approx(sum(each).item() / 3, abs=1e-6)


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_the_scale_of_the_weights_does_not_matter(normalize):
    logits, target = batch(dtype=torch.float32)
    loss = FocalLoss(2.0, normalize, WEIGHTS)(logits, target)
    scaled = FocalLoss(2.0, normalize, tuple(1000 * weight for weight in WEIGHTS))(logits, target)
    torch.testing.assert_close(scaled, loss)


@pytest.mark.parametrize("normalize", ["sum", "batch_mean"])
def test_the_gradient_does_not_fade_with_the_weights(normalize):
    """Where all pixels are as sure, w is one number: the loss is the mean cross-entropy, while the plain one fades."""
    target = torch.zeros(2, 3, 3, dtype=torch.int8)
    for margin in (0.0, 2.0, 4.0):
        logits = torch.tensor([margin, 0.0]).view(1, 2, 1, 1).repeat(2, 1, 3, 3).requires_grad_()
        entropy = F.cross_entropy(logits, target.long())
        miss = 1 - torch.exp(-entropy.detach())
        torch.testing.assert_close(FocalLoss(2.0, normalize)(logits, target), entropy)
        torch.testing.assert_close(FocalLoss(2.0, "none")(logits, target), miss**2 * entropy)


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_nothing_known_is_zero_and_connected(normalize, class_weights):
    logits, target = batch(dtype=torch.float32)
    loss = FocalLoss(2.0, normalize, class_weights)(logits, torch.full_like(target, -1))
    assert loss.item() == 0
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_an_image_without_truth_does_not_count():
    logits, target = batch(dtype=torch.float32)
    target[1] = -1
    loss = FocalLoss(2.0, "batch_mean")
    torch.testing.assert_close(loss(logits, target), loss(logits[::2], target[::2]))


@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_certainty_stays_finite(gamma, normalize):
    for certain in ([1e4, -1e4], [-1e4, 1e4], [0.0, 0.0]):
        logits = torch.tensor(certain).view(1, 2, 1, 1).repeat(2, 1, 2, 2).requires_grad_()
        loss = FocalLoss(gamma, normalize)(logits, torch.zeros(2, 2, 2, dtype=torch.int8))
        loss.backward()
        assert loss.isfinite()
        assert logits.grad.isfinite().all()
    assert FocalLoss(gamma, normalize)(-logits, torch.ones(2, 2, 2)).item() > 0


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_half_precision_is_summed_in_float32(normalize):
    logits, target = batch(dtype=torch.float32)
    half = logits.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = FocalLoss(2.0, normalize, WEIGHTS)(half, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, FocalLoss(2.0, normalize, WEIGHTS)(half.float(), target))
    loss.backward()
    assert half.grad.dtype == torch.bfloat16


def test_weights_are_settings_not_checkpoint():
    assert FocalLoss(class_weights=WEIGHTS).state_dict() == {}


def test_wrong_options_are_named():
    with pytest.raises(InputError, match="gamma -1"):
        FocalLoss(-1.0)
    with pytest.raises(InputError, match="gamma nan"):
        FocalLoss(float("nan"))
    with pytest.raises(InputError, match="normalize 'mean'"):
        FocalLoss(normalize="mean")
    for weights in ((), (0.0, 0.0), (1.0, -1.0)):
        with pytest.raises(InputError, match="class_weights"):
            FocalLoss(class_weights=weights)
    with pytest.raises(InputError, match="2 given for a network of 3 classes"):
        FocalLoss(class_weights=(1.0, 2.0))(*batch())
