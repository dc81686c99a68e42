"""Cross-entropy plus Dice over several classes.

Dice: Milletari et al. 2016, "V-Net", https://arxiv.org/abs/1606.04797, with plain (not squared) denominators: 1 - (2
I_c + s) / (P_c + G_c + s), every class with a true pixel counting once. An absent class is left out of the mean.

Class weights: the cross-entropy divides by their sum, as torch does; Dice multiplies each class's loss by its weight
and divides by the number of classes, as MONAI does. So weights should have mean 1, as those that Segwright computes
have.

Shapes: B batch, K classes, h x w the logits, H x W the mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from segwright.losses.arguments import (
    check_class_weights,
    check_factors,
    check_range,
    check_weight_count,
    needs_several,
    weight_tensor,
)
from segwright.losses.seen import Over, cross_entropy, dice, look


@dataclass(frozen=True, kw_only=True)
class Config:
    ce_weight: float = 1.0
    """Factor of the cross-entropy."""
    dice_weight: float = 1.0
    """Factor of the Dice loss."""
    dice_over: Literal["batch", "image"] = "batch"
    """One Dice fraction a class over the whole batch, or one for each image and then the mean."""
    smooth: float = 1.0
    """s: added to both sides of Dice's fraction, in pixels."""
    class_weights: Any = None
    """None, a list with one number a class, a JSON file, or a method: inverse_sqrt, inverse, effective_number."""

    def __post_init__(self) -> None:
        check_factors({"ce_weight": self.ce_weight, "dice_weight": self.dice_weight})
        check_range("smooth", self.smooth, 0)
        check_class_weights(self.class_weights)


class CeDiceLoss(nn.Module):
    """logits (B, K, h, w), mask (B, H, W) int64 with 255 = ignored -> scalar in fp32."""

    def __init__(
        self,
        ce_weight: float = 1.0,
        dice_weight: float = 1.0,
        dice_over: Over = "batch",
        smooth: float = 1.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.ce_weight, self.dice_weight = ce_weight, dice_weight
        self.dice_over, self.smooth = dice_over, smooth
        self.class_weights = weight_tensor(class_weights)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        check_weight_count(self.class_weights, logits.shape[1])
        seen = look(logits, mask)
        overlap = dice(seen, self.dice_over, self.smooth, self.class_weights)
        return self.ce_weight * cross_entropy(seen, self.class_weights) + self.dice_weight * overlap


def build(config: Config, num_classes: int, weights: Sequence[float] | None = None) -> CeDiceLoss:
    """The loss that `config` describes, with `weights` as numbers. Raises `ConfigError` for one class."""
    needs_several("ce_dice", num_classes)
    return CeDiceLoss(config.ce_weight, config.dice_weight, config.dice_over, config.smooth, weights)
