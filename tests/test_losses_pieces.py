"""Losses in pieces of rows equal the plain form on the whole map, in value and gradient."""

import pytest
import torch
from torch.nn import functional as F

from segwright.losses import pieces
from segwright.losses.ce import CeLoss
from segwright.losses.ce_dice import CeDiceLoss
from segwright.losses.dc_and_ce import DcAndCeLoss
from segwright.losses.dice_focal import DiceFocalLoss
from segwright.losses.pieces import softmax_views

SIZES = [((16, 16), (64, 64)), ((13, 9), (50, 37)), ((8, 8), (8, 8)), ((11, 6), (5, 21)), ((1, 1), (9, 7))]
WEIGHTS = [0.5, 1.0, 1.5, 0.7, 1.3]


@pytest.fixture(autouse=True, params=[1, 500, 1 << 20], ids=["a row", "some rows", "all at once"])
def _pieces(request, monkeypatch):
    monkeypatch.setattr(pieces, "ON_CPU", request.param)


def example(low, high, classes=5):
    made = torch.Generator().manual_seed(sum(low) + sum(high))
    logits = 3 * torch.randn(2, classes, *low, generator=made)
    mask = torch.randint(0, classes, (2, *high), generator=made)
    mask[torch.rand(mask.shape, generator=made) < 0.1] = 255
    return logits.requires_grad_(), mask


def plain_parts(logits, mask):
    """log p of the true class, one-hot truth, probabilities: all on the whole map; and what counts."""
    z = F.interpolate(logits, size=mask.shape[-2:], mode="bilinear", align_corners=False)
    counted = (mask != 255)[:, None]
    target = mask.masked_fill(mask == 255, 0)
    log_p = torch.log_softmax(z, 1)
    hot = F.one_hot(target, z.shape[1]).permute(0, 3, 1, 2) * counted
    return z, log_p.gather(1, target[:, None]) * counted, hot, log_p.exp() * counted, counted


def plain_dice(hot, p, smooth, weights):
    hits, whole = (p * hot).sum((0, 2, 3)), p.sum((0, 2, 3)) + hot.sum((0, 2, 3))
    score = (2 * hits + smooth) / (whole + smooth)
    return ((1 - score) * weights).mean()


def plain(name, logits, mask):
    weights = torch.tensor(WEIGHTS)
    z, t, hot, p, counted = plain_parts(logits, mask)
    if name == "ce":
        return F.cross_entropy(z, mask, weights, ignore_index=255)
    if name == "ce_dice":
        return F.cross_entropy(z, mask, weights, ignore_index=255) + plain_dice(hot, p, 1.0, weights)
    if name == "dice_focal":
        pixel = (hot * weights[None, :, None, None]).sum(1, keepdim=True)
        focal = -0.25 * (pixel * (1 - t.exp()) ** 2 * t).sum() / counted.sum()
        return 0.5 * plain_dice(hot, p, 1.0, weights) + 0.5 * focal
    hits, whole = (p * hot).sum((0, 2, 3))[1:], (p.sum((0, 2, 3)) + hot.sum((0, 2, 3)))[1:]
    return F.cross_entropy(z, mask, weights, ignore_index=255) - ((2 * hits + 1e-5) / (whole + 1e-5)).mean()


LOSSES = {
    "ce": CeLoss(WEIGHTS),
    "ce_dice": CeDiceLoss(class_weights=WEIGHTS),
    "dice_focal": DiceFocalLoss(class_weights=WEIGHTS),
    "dc_and_ce": DcAndCeLoss(class_weights=WEIGHTS),
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("low", "high"), SIZES, ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_pieces_equal_the_whole(name, low, high, layout):
    logits, mask = example(low, high)
    if low == (11, 6):
        mask[0, 0, :5] = torch.arange(5)  # every class occurs: else the plain form counts an absent one
    (expected_grad,) = torch.autograd.grad(expected := plain(name, logits, mask), logits)
    laid = logits.detach().to(memory_format=layout).requires_grad_()
    (grad,) = torch.autograd.grad(value := LOSSES[name](laid, mask), laid)
    assert value.item() == pytest.approx(expected.item(), abs=1e-5)
    assert torch.allclose(grad, expected_grad, atol=1e-5 * max(1.0, float(expected_grad.abs().max())))
    assert (grad - expected_grad).abs().max() < 1e-5


@pytest.mark.parametrize(("low", "high"), SIZES, ids=str)
def test_every_output_of_the_softmax_has_its_gradient(low, high):
    """Log-probability, log-normaliser and sums, each with a gradient of its own at once."""
    logits, mask = example(low, high)
    z, t, _, p, counted = plain_parts(logits, mask)
    by_t, by_n = torch.randn(mask.shape), torch.randn(mask.shape) * counted[:, 0]
    by_p = torch.randn(2, 5)
    parts = [(t[:, 0] * by_t).sum(), (torch.logsumexp(z, 1) * by_n).sum(), (p.sum((2, 3)) * by_p).sum()]
    (expected,) = torch.autograd.grad(sum(parts), logits)
    views = softmax_views(logits, mask)
    assert torch.allclose(views[0], t[:, 0], atol=1e-5)
    assert torch.allclose(views[1], torch.logsumexp(z, 1), atol=1e-5)
    assert torch.allclose(views[2], p.sum((2, 3)), rtol=1e-5)
    ours = sum((view * by).sum() for view, by in zip(views, (by_t, by_n, by_p), strict=True))
    (grad,) = torch.autograd.grad(ours, logits)
    assert torch.allclose(grad, expected, atol=1e-4 * float(expected.abs().max()))
