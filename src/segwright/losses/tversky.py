"""Tversky loss: Dice with a price of its own for what is wrongly found and for what is missed.

Salehi et al. 2017, https://arxiv.org/abs/1706.05721: 1 - (TP + s) / (TP + a FP + b FN + s). Libraries disagree on
which of the two letters is which, so they are called by what they weigh. Halves of each are Dice.

An absent class is left out of the mean. Class weights multiply each class's loss, without division by their sum.

Shapes: B batch, K classes, h x w the logits, H x W the mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from segwright.losses.arguments import check_class_weights, check_range, check_weight_count, weight_tensor
from segwright.losses.seen import Over, look, mean_over_present, tversky_index


@dataclass(frozen=True, kw_only=True)
class Config:
    fp_weight: float = 0.3
    """a: the price of a pixel that is wrongly found."""
    fn_weight: float = 0.7
    """b: the price of a pixel that is missed; higher than `fp_weight` finds more."""
    over: Literal["batch", "image"] = "batch"
    """One fraction a class over the whole batch, or one for each image and then the mean."""
    smooth: float = 1.0
    """s: added to both sides of the fraction, in pixels."""
    class_weights: Any = None
    """None, a list with one number a class, a JSON file, or a method: inverse_sqrt, inverse, effective_number."""

    def __post_init__(self) -> None:
        for name in ("fp_weight", "fn_weight", "smooth"):
            check_range(name, getattr(self, name), 0)
        check_class_weights(self.class_weights)


class TverskyLoss(nn.Module):
    """logits (B, K, h, w), mask (B, H, W) int64 with 255 = ignored -> scalar in fp32."""

    def __init__(
        self,
        fp_weight: float = 0.3,
        fn_weight: float = 0.7,
        over: Over = "batch",
        smooth: float = 1.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.fp_weight, self.fn_weight, self.over, self.smooth = fp_weight, fn_weight, over, smooth
        self.class_weights = weight_tensor(class_weights)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        check_weight_count(self.class_weights, logits.shape[1])
        index, true = tversky_index(look(logits, mask), self.over, self.fp_weight, self.fn_weight, self.smooth)
        return mean_over_present(1 - index, true, self.class_weights)


def build(config: Config, num_classes: int, weights: Sequence[float] | None = None) -> TverskyLoss:
    """The loss that `config` describes; `weights` are its class weights as numbers."""
    loss = TverskyLoss(config.fp_weight, config.fn_weight, config.over, config.smooth, weights)
    check_weight_count(loss.class_weights, num_classes)
    return loss
