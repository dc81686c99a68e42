"""Cross-entropy over several classes: -sum w_y log p_y / sum w_y over the pixels that count.

Absent classes have no part in it. Class weights shift the balance and leave the scale, as in torch.

Shapes: B batch, K classes, h x w the logits, H x W the mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from segwright.losses.arguments import check_class_weights, check_weight_count, needs_several, weight_tensor
from segwright.losses.seen import cross_entropy, look


@dataclass(frozen=True, kw_only=True)
class Config:
    class_weights: Any = None
    """None, a list with one number a class, a JSON file, or a method: inverse_sqrt, inverse, effective_number."""

    def __post_init__(self) -> None:
        check_class_weights(self.class_weights)


class CeLoss(nn.Module):
    """logits (B, K, h, w), mask (B, H, W) int64 with 255 = ignored -> scalar in fp32."""

    def __init__(self, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.class_weights = weight_tensor(class_weights)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        check_weight_count(self.class_weights, logits.shape[1])
        return cross_entropy(look(logits, mask, sums=False), self.class_weights)


def build(config: Config, num_classes: int, weights: Sequence[float] | None = None) -> CeLoss:
    """The loss that `config` describes, with `weights` as numbers. Raises `ConfigError` for one class."""
    needs_several("ce", num_classes)
    return CeLoss(weights)
