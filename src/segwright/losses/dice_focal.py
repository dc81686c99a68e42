"""Dice plus focal loss, half and half, with class weights.

Dice: Milletari et al. 2016, https://arxiv.org/abs/1606.04797, plain denominators, over the classes that have a true
pixel. Focal: Lin et al. 2017, https://arxiv.org/abs/1708.02002; `losses/focal.py` says which of its forms are meant.

Class weights multiply each class's Dice loss and each pixel's focal loss, without division by their sum. An absent
class is left out of Dice's mean.

Shapes: B batch, K classes, h x w the logits, H x W the mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from segwright.losses.arguments import check_alpha, check_class_weights, check_factors, check_range, check_weight_count
from segwright.losses.focal import FocalLoss, Kind, Side
from segwright.losses.seen import Over, dice, look


@dataclass(frozen=True, kw_only=True)
class Config:
    dice_weight: float = 0.5
    """Factor of the Dice loss."""
    focal_weight: float = 0.5
    """Factor of the focal loss."""
    gamma: float = 2.0
    """How much the focal loss plays down what is right already; 0 is the cross-entropy."""
    alpha: float | None = 0.25
    """A factor of the focal loss, or with `alpha_on: positive` the share of the positive; none: 1."""
    alpha_on: Literal["all", "positive"] = "all"
    """Whether alpha is a constant factor, or alpha for the positive and 1 - alpha for the rest."""
    focal: Literal["softmax", "sigmoid"] = "softmax"
    """Focal over the true class's probability among all, or each class against the rest (as MONAI has it)."""
    dice_over: Literal["batch", "image"] = "batch"
    """One Dice fraction a class over the whole batch, or one for each image and then the mean."""
    smooth: float = 1.0
    """Added to both sides of Dice's fraction, in pixels."""
    class_weights: Any = None
    """None, a list with one number a class, a JSON file, or a method: inverse_sqrt, inverse, effective_number."""

    def __post_init__(self) -> None:
        check_factors({"dice_weight": self.dice_weight, "focal_weight": self.focal_weight})
        check_range("gamma", self.gamma, 0)
        check_range("smooth", self.smooth, 0)
        check_alpha(self.alpha)
        check_class_weights(self.class_weights)


class DiceFocalLoss(nn.Module):
    """logits (B, K, h, w) of any size, mask (B, H, W) int64 with 255 = ignored -> scalar in fp32.

    Args:
        dice_weight, focal_weight: factors of the two parts.
        gamma, alpha, alpha_on, focal: see `losses/focal.py`.
        dice_over: `batch` or `image`, what one Dice fraction is taken over.
        smooth: pixels added to both sides of that fraction.
        class_weights: one number a class, or none.
    """

    def __init__(
        self,
        dice_weight: float = 0.5,
        focal_weight: float = 0.5,
        gamma: float = 2.0,
        alpha: float | None = 0.25,
        class_weights: Sequence[float] | None = None,
        *,
        alpha_on: Side = "all",
        focal: Kind = "softmax",
        dice_over: Over = "batch",
        smooth: float = 1.0,
    ) -> None:
        super().__init__()
        self.dice_weight, self.focal_weight = dice_weight, focal_weight
        self.dice_over, self.smooth = dice_over, smooth
        self.focal = FocalLoss(gamma, alpha, alpha_on, focal, class_weights)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        seen = look(logits, mask)
        shared = self.focal.uses_softmax(logits)
        focal = self.focal.of(seen) if shared else self.focal.one_vs_rest(logits, mask)
        overlap = dice(seen, self.dice_over, self.smooth, self.focal.class_weights)
        return self.dice_weight * overlap + self.focal_weight * focal


def build(config: Config, num_classes: int, weights: Sequence[float] | None = None) -> DiceFocalLoss:
    """The loss that `config` describes; `weights` are its class weights as numbers."""
    loss = DiceFocalLoss(
        config.dice_weight,
        config.focal_weight,
        config.gamma,
        config.alpha,
        weights,
        alpha_on=config.alpha_on,
        focal=config.focal,
        dice_over=config.dice_over,
        smooth=config.smooth,
    )
    check_weight_count(loss.focal.class_weights, num_classes)
    return loss
