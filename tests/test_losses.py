"""Losses against values worked out with a pencil, and against the facts' reference values."""

import math

import pytest
import torch

from segwright.errors import ConfigError
from segwright.losses import LOSSES
from segwright.losses.bce_dice import BceDiceLoss


def made(*shape: int) -> torch.Tensor:
    """3 sin(0.7 i + 0.3) + 1.5 cos(0.13 i) over the flat index i."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return (3 * torch.sin(0.7 * i + 0.3) + 1.5 * torch.cos(0.13 * i)).reshape(shape).float()


def labels(*shape: int, classes: int) -> torch.Tensor:
    i = torch.arange(math.prod(shape))
    return (((3 * i * i + i // 3) % 11) % classes).reshape(shape)


def test_bce_dice_by_hand():
    """Logits 0: p = 1/2. Target 0,0,0,1: BCE = ln 2; I = 1/2, P = 2, G = 1, s = 1: Dice = 1 - 2/4 = 1/2."""
    loss = BceDiceLoss()(torch.zeros(1, 1, 2, 2), torch.tensor([[[0, 0], [0, 1]]]))
    assert loss.item() == pytest.approx(math.log(2) + 0.5, abs=1e-6)


def test_bce_dice_equals_the_reference():
    """BCE 1.3377316 + batch Dice with s = 1 .6009502: an independent implementation's on this input."""
    logits, mask = made(2, 3, 4, 5)[:, :1], (labels(2, 4, 5, classes=3) == 1).long()
    assert BceDiceLoss()(logits, mask).item() == pytest.approx(1.9386818, abs=1e-6)
    assert BceDiceLoss(dice_weight=0)(logits, mask).item() == pytest.approx(1.3377316, abs=1e-6)
    assert BceDiceLoss(bce_weight=0)(logits, mask).item() == pytest.approx(0.6009502, abs=1e-6)


def test_ignored_pixels_count_nowhere():
    logits, mask = made(1, 1, 4, 6), labels(1, 4, 6, classes=2)
    padded = torch.cat([logits, torch.full((1, 1, 4, 2), 9.0)], 3).requires_grad_()
    ignored = torch.cat([mask, torch.full((1, 4, 2), 255)], 2)
    loss = BceDiceLoss()(padded, ignored)
    assert loss.item() == pytest.approx(BceDiceLoss()(logits, mask).item(), abs=1e-6)
    loss.backward()
    assert padded.grad is not None
    assert padded.grad[..., 6:].abs().max() == 0


def test_all_ignored_is_finite():
    logits = made(1, 1, 4, 4).requires_grad_()
    loss = BceDiceLoss()(logits, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_gradient_is_right():
    def loss(x):
        return BceDiceLoss()(x, labels(1, 3, 4, classes=2))

    x = made(1, 1, 3, 4).requires_grad_()
    (analytic,) = torch.autograd.grad(loss(x), x)
    step = torch.zeros_like(x)
    for i in range(12):
        step.flatten()[i] = 1e-2
        numeric = (loss(x + step) - loss(x - step)) / 2e-2
        assert analytic.flatten()[i].item() == pytest.approx(numeric.item(), abs=1e-4)
        step.zero_()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_builds_from_its_default_config_and_has_described_fields(name):
    part = LOSSES[name]
    loss = part.build(part.Config())
    value = loss(made(2, 1, 8, 8).requires_grad_(), labels(2, 8, 8, classes=2))
    assert torch.isfinite(value)
    value.backward()


def test_a_config_that_learns_nothing_is_refused():
    with pytest.raises(ConfigError, match="nothing is learnt"):
        LOSSES["bce_dice"].Config(bce_weight=0, dice_weight=0)
