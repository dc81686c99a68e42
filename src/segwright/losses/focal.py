"""Focal loss: cross-entropy in which what is already right counts little.

Lin et al. 2017, https://arxiv.org/abs/1708.02002: -a (1 - p)^g log p, p being the probability of what is true.

Libraries differ, so it is said here. `softmax` (the default): p of the true class, once a pixel, the mean over the
pixels that count. `sigmoid`: each class against the rest by its own sigmoid, the mean over pixels and classes;
MONAI's and SMP's form. alpha is a constant factor by default; on the side of the `positive` it multiplies those and 1
- alpha the others: with a sigmoid the true class, with a softmax every class but class 0.

Class weights multiply a pixel's loss by its true class's (softmax) or each class's loss (sigmoid), with no division
by their sum. An absent class: with a softmax it has no part; with a sigmoid its pixels are all negative, and count.

Shapes: B batch, K classes, h x w the logits, H x W the mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.datasets.base import IGNORE
from segwright.losses.arguments import check_alpha, check_class_weights, check_range, check_weight_count, weight_tensor
from segwright.losses.pieces import one_vs_rest_sums
from segwright.losses.seen import TINY, Seen, look

Kind = Literal["softmax", "sigmoid"]
Side = Literal["all", "positive"]


@dataclass(frozen=True, kw_only=True)
class Config:
    gamma: float = 2.0
    """g: how much what is right already is played down; 0 is the cross-entropy."""
    alpha: float | None = 0.25
    """a: a factor of the loss, or with `alpha_on: positive` the share of the positive; none: 1."""
    alpha_on: Literal["all", "positive"] = "all"
    """Whether alpha is a constant factor, or alpha for the positive and 1 - alpha for the rest."""
    kind: Literal["softmax", "sigmoid"] = "softmax"
    """The true class's probability among all, or each class against the rest. One class is always a sigmoid's."""
    class_weights: Any = None
    """None, a list with one number a class, a JSON file, or a method: inverse_sqrt, inverse, effective_number."""

    def __post_init__(self) -> None:
        check_range("gamma", self.gamma, 0)
        check_alpha(self.alpha)
        check_class_weights(self.class_weights)


class FocalLoss(nn.Module):
    """logits (B, K, h, w), mask (B, H, W) int64 with 255 = ignored -> scalar in fp32."""

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | None = 0.25,
        alpha_on: Side = "all",
        kind: Kind = "softmax",
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.gamma, self.alpha, self.alpha_on, self.kind = gamma, alpha, alpha_on, kind
        self.class_weights = weight_tensor(class_weights)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        if self.uses_softmax(logits):
            return self.of(look(logits, mask, sums=False))
        return self.one_vs_rest(logits, mask)

    def uses_softmax(self, logits: Tensor) -> bool:
        """Whether `of` gives this loss; one class is the same either way."""
        check_weight_count(self.class_weights, logits.shape[1])
        return self.kind == "softmax" or logits.shape[1] == 1

    def of(self, seen: Seen) -> Tensor:
        """The mean over counted pixels of what each true class's probability costs."""
        wrong = (-torch.expm1(seen.log_true)).clamp(min=TINY)  # 1 - p, away from 0, where a root has no slope
        loss = -seen.weigh(self._table(seen)) * wrong**self.gamma * seen.log_true
        return loss.sum() / (seen.mask != IGNORE).sum().clamp(min=1)

    def one_vs_rest(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The mean over counted pixels and classes of each class's binary focal loss."""
        sums = one_vs_rest_sums(logits, mask, self._binary).sum(0)
        if self.class_weights is not None:
            sums = sums * self.class_weights.to(sums)
        return sums.mean() / (mask != IGNORE).sum().clamp(min=1)

    def _table(self, seen: Seen) -> Tensor:
        """The factor of each mask value: alpha times the class's weight."""
        table = seen.log_true.new_full((max(seen.num_classes, 2),), 1.0 if self.alpha is None else self.alpha)
        if self.alpha is not None and self.alpha_on == "positive":
            table[0] = 1 - self.alpha
        return table if self.class_weights is None else table * self.class_weights.to(table)

    def _binary(self, z: Tensor, truth: Tensor) -> Tensor:
        """Logits and truth -> loss, each (r, K, W). u is the logit of being wrong: 1 - p = sigmoid(u)."""
        u = z * (1 - 2 * truth)
        loss = torch.exp(self.gamma * F.logsigmoid(u)) * F.softplus(u)
        if self.alpha is None:
            return loss
        return loss * (self.alpha if self.alpha_on == "all" else 1 - self.alpha + (2 * self.alpha - 1) * truth)


def build(config: Config, num_classes: int, weights: Sequence[float] | None = None) -> FocalLoss:
    """The loss that `config` describes; `weights` are its class weights as numbers."""
    loss = FocalLoss(config.gamma, config.alpha, config.alpha_on, config.kind, weights)
    check_weight_count(loss.class_weights, num_classes)
    return loss
