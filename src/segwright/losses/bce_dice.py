"""Binary cross-entropy plus Dice, for one class against the rest.

Dice: Milletari et al. 2016, "V-Net", https://arxiv.org/abs/1606.04797, with plain (not squared) denominators and the
sums taken over the whole batch: 1 - (2 I + s) / (P + G + s). A batch without a positive pixel counts: its loss is
what is wrongly found in it, P / (P + s).

Shapes: B batch, h x w the logits, H x W the mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.datasets.base import IGNORE
from segwright.errors import ConfigError
from segwright.losses.arguments import check_factors, needs_one
from segwright.losses.pieces import resized


@dataclass(frozen=True, kw_only=True)
class Config:
    bce_weight: float = 1.0
    """Factor of the cross-entropy."""
    dice_weight: float = 1.0
    """Factor of the Dice loss."""
    smooth: float = 1.0
    """s: added to both sides of Dice's fraction, in pixels; keeps an empty batch finite."""

    def __post_init__(self) -> None:
        check_factors({"bce_weight": self.bce_weight, "dice_weight": self.dice_weight})
        if not 0 < self.smooth < float("inf"):
            raise ConfigError(f"loss.smooth is {self.smooth}; 0 makes an empty mask divide by zero. Use 1.")


class BceDiceLoss(nn.Module):
    """logits (B, 1, h, w), mask (B, H, W) with 0, 1 and 255 = ignored -> scalar in fp32."""

    def __init__(self, bce_weight: float = 1.0, dice_weight: float = 1.0, smooth: float = 1.0) -> None:
        super().__init__()
        self.bce_weight, self.dice_weight, self.smooth = bce_weight, dice_weight, smooth

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        x = resized(logits, mask.shape[-2:])[:, 0]
        valid = mask != IGNORE
        target = (mask == 1).to(x.dtype)
        bce = F.binary_cross_entropy_with_logits(x, target, weight=valid.to(x.dtype), reduction="sum")
        bce = bce / valid.sum().clamp(min=1)
        p = torch.sigmoid(x) * valid
        intersection = (p * target).sum()
        dice = 1 - (2 * intersection + self.smooth) / (p.sum() + target.sum() + self.smooth)
        return self.bce_weight * bce + self.dice_weight * dice


def build(config: Config, num_classes: int = 1, weights: Sequence[float] | None = None) -> BceDiceLoss:
    """The loss that `config` describes. Raises `ConfigError` for several classes."""
    needs_one("bce_dice", num_classes)
    return BceDiceLoss(config.bce_weight, config.dice_weight, config.smooth)
