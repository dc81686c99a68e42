"""What a softmax or sigmoid loss sees of logits, as small differentiable maps and sums, and the terms made of them.

One class (K = 1) is a sigmoid's: its true class is 0 or 1, and the sums are those of class 1 alone.

Shapes: B images, K classes, h x w the logits, H x W the mask. Sums (B, K) are in pixels.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from segwright.datasets.base import IGNORE
from segwright.losses.pieces import resized, softmax_views

Over = Literal["batch", "image"]
"""What one fraction is taken over: all images of the batch together, or each by itself and then the mean."""

TINY = 1e-7
"""Keeps a fraction without pixels and without smoothing finite."""


@dataclass(frozen=True)
class Seen:
    """Logits as losses see them."""

    mask: Tensor
    """(B, H, W), 255 = ignored."""
    log_true: Tensor
    """(B, H, W): the log-probability of the true class; 0 where ignored."""
    probable: Tensor
    """(B, K): sums of each class's probability over the pixels that count."""

    @property
    def num_classes(self) -> int:
        return self.probable.shape[1]

    def by_class(self, values: Tensor) -> Tensor:
        """(B, K) sums of a map (B, H, W) over the pixels that each class truly has."""
        counts = self.num_classes
        # What belongs to no class, ignored or class 0 of a binary mask, goes into a bin behind, which is dropped.
        bins = (self.mask != 1).long() if counts == 1 else self.mask.masked_fill(self.mask == IGNORE, counts)
        out = torch.zeros(len(bins), counts + 1, dtype=torch.float64, device=bins.device)
        out = out.scatter_add(1, bins.flatten(1), values.flatten(1).double())
        return out[:, :counts].to(values.dtype)

    def overlap(self, over: Over) -> tuple[Tensor, Tensor, Tensor]:
        """(I, P, G), each (1 or B, K): probability within the truth, probability, and truth, summed."""
        sums = self.by_class(self.log_true.exp()), self.probable, self.by_class(torch.ones_like(self.log_true))
        hits, probable, true = (s.sum(0, keepdim=True) if over == "batch" else s for s in sums)
        return hits, probable, true

    def weigh(self, table: Tensor) -> Tensor:
        """(B, H, W): the entry of `table`, one a mask value, that each pixel's true class has; 0 where ignored."""
        padded = torch.cat([table, table.new_zeros(1)])
        return padded[self.mask.masked_fill(self.mask == IGNORE, len(table))]


def look(logits: Tensor, mask: Tensor, sums: bool = True) -> Seen:
    """Logits (B, K, h, w) of any size at the size of their mask (B, H, W). Without `sums`, `probable` is zero."""
    if logits.shape[1] > 1:
        log_true, _, probable = softmax_views(logits, mask, sums)
        return Seen(mask, log_true, probable)
    x = resized(logits, mask.shape[-2:])[:, 0]
    counted = mask != IGNORE
    log_true = F.logsigmoid(torch.where(mask == 1, x, -x)).masked_fill(~counted, 0)
    return Seen(mask, log_true, (torch.sigmoid(x) * counted).sum((1, 2))[:, None])


def cross_entropy(seen: Seen, weights: Tensor | None = None) -> Tensor:
    """-sum w_y log p_y / sum w_y over the pixels that count; 0 where their weights sum to nothing.

    As torch's: weights (K,) shift the balance of the classes and leave the scale.
    """
    table = seen.log_true.new_ones(seen.num_classes) if weights is None else weights.to(seen.log_true)
    pixel = seen.weigh(table)
    return -(pixel * seen.log_true).sum() / pixel.sum().clamp(min=TINY)


def mean_over_present(losses: Tensor, true: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean of (1 or B, K) class losses, each times its weight, over those classes that have any true pixel.

    0 where none has. So an absent class is neither rewarded nor punished here; what is wrongly given to it is missing
    from the classes that are there.
    """
    present = true > 0
    if weights is not None:
        losses = losses * weights.to(losses)
    return losses.masked_fill(~present, 0).sum() / present.sum().clamp(min=1)


def dice(seen: Seen, over: Over, smooth: float, weights: Tensor | None = None) -> Tensor:
    """1 - (2 I + s) / (P + G + s), with plain (not squared) denominators, over the classes present."""
    hits, probable, true = seen.overlap(over)
    score = (2 * hits + smooth) / (probable + true + smooth).clamp(min=TINY)
    return mean_over_present(1 - score, true, weights)


def tversky_index(seen: Seen, over: Over, fp_weight: float, fn_weight: float, smooth: float) -> tuple[Tensor, Tensor]:
    """(TP + s) / (TP + a FP + b FN + s) and the truth's pixels, each (1 or B, K)."""
    hits, probable, true = seen.overlap(over)
    wrong = fp_weight * (probable - hits) + fn_weight * (true - hits)
    return (hits + smooth) / (hits + wrong + smooth).clamp(min=TINY), true
