"""Focal Tversky loss: the Tversky loss of each class to a power.

Abraham and Khan 2019, https://arxiv.org/abs/1810.07842: the mean over classes of (1 - TI)^(1/g) with g = 4/3, the
higher price on what is missed. The power is taken of each class, before the mean; it stands here as it is used, 3/4,
since other libraries give its inverse. Below 1 it makes classes that are nearly right count more; above 1, those that
are wrong.

An absent class is left out of the mean. Class weights multiply each class's loss, without division by their sum.

Shapes: B batch, K classes, h x w the logits, H x W the mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from segwright.errors import ConfigError
from segwright.losses.arguments import check_class_weights, check_range, check_weight_count, weight_tensor
from segwright.losses.seen import TINY, Over, look, mean_over_present, tversky_index


@dataclass(frozen=True, kw_only=True)
class Config:
    fp_weight: float = 0.3
    """The price of a pixel that is wrongly found."""
    fn_weight: float = 0.7
    """The price of a pixel that is missed."""
    exponent: float = 0.75
    """The power of each class's Tversky loss (the paper's 1/g)."""
    over: Literal["batch", "image"] = "batch"
    """One fraction a class over the whole batch, or one for each image and then the mean."""
    smooth: float = 1.0
    """Added to both sides of the fraction, in pixels."""
    class_weights: Any = None
    """None, a list with one number a class, a JSON file, or a method: inverse_sqrt, inverse, effective_number."""

    def __post_init__(self) -> None:
        for name in ("fp_weight", "fn_weight", "smooth"):
            check_range(name, getattr(self, name), 0)
        if not 0 < self.exponent < float("inf"):
            raise ConfigError(f"loss.exponent is {self.exponent}; only a positive power leaves a loss. Use 0.75.")
        check_class_weights(self.class_weights)


class FocalTverskyLoss(nn.Module):
    """logits (B, K, h, w), mask (B, H, W) int64 with 255 = ignored -> scalar in fp32."""

    def __init__(
        self,
        fp_weight: float = 0.3,
        fn_weight: float = 0.7,
        exponent: float = 0.75,
        over: Over = "batch",
        smooth: float = 1.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.fp_weight, self.fn_weight, self.exponent = fp_weight, fn_weight, exponent
        self.over, self.smooth = over, smooth
        self.class_weights = weight_tensor(class_weights)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        check_weight_count(self.class_weights, logits.shape[1])
        index, true = tversky_index(look(logits, mask), self.over, self.fp_weight, self.fn_weight, self.smooth)
        wrong = (1 - index).clamp(min=TINY)  # away from 0, where a root's slope is infinite
        return mean_over_present(wrong**self.exponent, true, self.class_weights)


def build(config: Config, num_classes: int, weights: Sequence[float] | None = None) -> FocalTverskyLoss:
    """The loss that `config` describes; `weights` are its class weights as numbers."""
    own = config.fp_weight, config.fn_weight, config.exponent
    loss = FocalTverskyLoss(*own, config.over, config.smooth, weights)
    check_weight_count(loss.class_weights, num_classes)
    return loss
