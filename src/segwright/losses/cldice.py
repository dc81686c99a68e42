"""Soft clDice: whether thin structures are connected, by the overlap of each mask with the other's centre line.

Shit et al. 2021, https://arxiv.org/abs/2003.07311, algorithms 1 and 2. T is the truth, P the probability, S their
soft skeletons; Tprec = (sum S_P T + s) / (sum S_P + s), Tsens = (sum S_T P + s) / (sum S_T + s), and

    loss = (1 - a) Dice + a (1 - 2 Tprec Tsens / (Tprec + Tsens))

over the batch, for the foreground: one class, or every class but class 0, those with a true pixel; an absent class is
left out, but one class alone always counts. Ignored pixels are background to both masks, so a line is cut there.

A skeleton needs its neighbourhood, so one class's (B, H, W) maps are held at a time and made again for the gradient.

Shapes: B batch, K classes, h x w the logits, H x W the mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from segwright.bilinear import exactly
from segwright.datasets.base import IGNORE
from segwright.losses.arguments import check_range
from segwright.losses.pieces import class_probability, resized, softmax_views, working_type

SMOOTH = 1.0
"""s: added to both sides of each fraction, in pixels, as the paper's code has it."""


@dataclass(frozen=True, kw_only=True)
class Config:
    alpha: float = 0.5
    """a: the share of clDice; the rest is Dice, without which widths are not learnt. The paper uses up to 0.5."""
    iterations: int = 10
    """Erosions of the skeleton: at least half the width of the widest structure, in pixels."""

    def __post_init__(self) -> None:
        check_range("alpha", self.alpha, 0, 1)
        check_range("iterations", self.iterations, 0)


class ClDiceLoss(nn.Module):
    """logits (B, K, h, w), mask (B, H, W) int64 with 255 = ignored -> scalar in fp32."""

    def __init__(self, alpha: float = 0.5, iterations: int = 10) -> None:
        super().__init__()
        self.alpha, self.iterations = alpha, iterations

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        logits = logits.to(working_type(logits))  # its gradient comes by several ways, to be added in full precision
        with exactly(logits):
            if logits.shape[1] == 1:
                return self.of(torch.sigmoid(resized(logits, mask.shape[-2:]))[:, 0], mask, 1)
            present = [c for c in torch.unique(mask).tolist() if c not in (0, IGNORE)]
            if not present:
                return logits.sum() * 0
            _, normaliser, _ = softmax_views(logits, mask, sums=False)
            losses = [
                checkpoint(self._of_class, logits[:, c : c + 1], normaliser, mask, c, use_reentrant=False)
                for c in present
            ]
            return torch.stack(losses).mean()

    def _of_class(self, logit: Tensor, normaliser: Tensor, mask: Tensor, c: int) -> Tensor:
        return self.of(class_probability(logit, normaliser), mask, c)

    def of(self, probability: Tensor, mask: Tensor, c: int) -> Tensor:
        """The loss of class c's probability (B, H, W)."""
        p = probability * (mask != IGNORE)
        truth = (mask == c).to(p.dtype)
        dice = 1 - _share(2 * (p * truth).sum(), p.sum() + truth.sum())
        thin_p, thin_t = soft_skeleton(p, self.iterations), soft_skeleton(truth, self.iterations)
        precision = _share((thin_p * truth).sum(), thin_p.sum())
        sensitivity = _share((thin_t * p).sum(), thin_t.sum())
        return (1 - self.alpha) * dice + self.alpha * (1 - 2 * precision * sensitivity / (precision + sensitivity))


def soft_skeleton(x: Tensor, iterations: int) -> Tensor:
    """The centre lines of a soft mask (B, H, W) in 0..1: what opening removes, at each stage of erosion."""
    skeleton = torch.relu(x - _open(x))
    for _ in range(iterations):
        x = _erode(x)
        delta = torch.relu(x - _open(x))
        skeleton = skeleton + torch.relu(delta - skeleton * delta)
    return skeleton


def _erode(x: Tensor) -> Tensor:
    """The least of each pixel's cross; outside the image counts as infinitely high, so the border is not eroded."""
    upright = -F.max_pool2d(-x, (3, 1), 1, (1, 0))
    across = -F.max_pool2d(-x, (1, 3), 1, (0, 1))
    return torch.minimum(upright, across)


def _open(x: Tensor) -> Tensor:
    return F.max_pool2d(_erode(x), 3, 1, 1)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return (part + SMOOTH) / (whole + SMOOTH)


def build(config: Config, num_classes: int, weights: Sequence[float] | None = None) -> ClDiceLoss:
    """The loss that `config` describes, for any number of classes."""
    return ClDiceLoss(config.alpha, config.iterations)
