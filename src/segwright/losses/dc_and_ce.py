"""nnU-Net's loss: cross-entropy minus the mean Dice coefficient of the foreground.

Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z; the semantics are those of nnU-Net 2's compound loss:
DC_c = (2 I_c + 1e-5) / (P_c + G_c + 1e-5) over softmax probabilities, class 0 left out, and -mean DC added, so the
total goes down to -1. An absent class counts: its coefficient is near 0 wherever it has any probability.

Class weights are the cross-entropy's alone. Where every pixel is ignored the loss is -1, without a gradient.

Shapes: B batch, K classes, h x w the logits, H x W the mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from segwright.losses.arguments import (
    check_class_weights,
    check_factors,
    check_weight_count,
    needs_several,
    weight_tensor,
)
from segwright.losses.seen import Over, cross_entropy, look

SMOOTH = 1e-5
"""Pixels added to both sides of the fraction, as nnU-Net has it."""


@dataclass(frozen=True, kw_only=True)
class Config:
    ce_weight: float = 1.0
    """Factor of the cross-entropy."""
    dice_weight: float = 1.0
    """Factor of the Dice part."""
    dice_over: Literal["batch", "image"] = "batch"
    """nnU-Net's batch_dice: one fraction a class over the whole batch, or one for each image."""
    class_weights: Any = None
    """None, a list with one number a class, a JSON file, or a method: inverse_sqrt, inverse, effective_number."""

    def __post_init__(self) -> None:
        check_factors({"ce_weight": self.ce_weight, "dice_weight": self.dice_weight})
        check_class_weights(self.class_weights)


class DcAndCeLoss(nn.Module):
    """logits (B, K, h, w), mask (B, H, W) int64 with 255 = ignored -> scalar in fp32, from -1 up."""

    def __init__(
        self,
        ce_weight: float = 1.0,
        dice_weight: float = 1.0,
        dice_over: Over = "batch",
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.ce_weight, self.dice_weight, self.dice_over = ce_weight, dice_weight, dice_over
        self.class_weights = weight_tensor(class_weights)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        check_weight_count(self.class_weights, logits.shape[1])
        seen = look(logits, mask)
        hits, probable, true = seen.overlap(self.dice_over)
        coefficient = (2 * hits + SMOOTH) / (probable + true + SMOOTH)
        return self.ce_weight * cross_entropy(seen, self.class_weights) - self.dice_weight * coefficient[:, 1:].mean()


def build(config: Config, num_classes: int, weights: Sequence[float] | None = None) -> DcAndCeLoss:
    """The loss that `config` describes, with `weights` as numbers. Raises `ConfigError` for one class."""
    needs_several("dc_and_ce", num_classes)
    return DcAndCeLoss(config.ce_weight, config.dice_weight, config.dice_over, weights)
