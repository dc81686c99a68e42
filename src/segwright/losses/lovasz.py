"""Lovász loss: the intersection over union itself, made convex; for the last epochs, after a cross-entropy.

Berman et al. 2018, https://arxiv.org/abs/1705.08790, algorithm 1. Errors sorted from the largest, each times what the
Jaccard loss gains when that pixel turns wrong as well. Several classes: errors |[y = c] - p_c| of the softmax, the
mean over the classes with a true pixel; an absent class is left out. One class: hinge errors of the logit; without a
positive pixel the loss is the largest error.

A sort needs all pixels of a class at once, so one (B, H, W) map is held for a class at a time and made again for the
gradient, never those of all classes.

Shapes: B batch, K classes, h x w the logits, H x W the mask, N pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segwright.bilinear import exactly
from segwright.datasets.base import IGNORE
from segwright.losses.pieces import class_probability, resized, softmax_views, working_type
from segwright.losses.seen import Over


@dataclass(frozen=True, kw_only=True)
class Config:
    over: Literal["batch", "image"] = "batch"
    """One intersection over union a class over the whole batch, or one for each image and then the mean."""


class LovaszLoss(nn.Module):
    """logits (B, K, h, w), mask (B, H, W) int64 with 255 = ignored -> scalar in fp32."""

    def __init__(self, over: Over = "batch") -> None:
        super().__init__()
        self.over = over

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        logits = logits.to(working_type(logits))  # its gradient comes by several ways, to be added in full precision
        if self.over == "batch":
            return self._of(logits, mask)
        return torch.stack([self._of(logits[i : i + 1], mask[i : i + 1]) for i in range(len(mask))]).mean()

    def _of(self, logits: Tensor, mask: Tensor) -> Tensor:
        present = torch.unique(mask[mask != IGNORE]).tolist()
        if not present:
            return logits.sum() * 0
        with exactly(logits):
            if logits.shape[1] == 1:
                return hinge(resized(logits, mask.shape[-2:])[:, 0], mask)
            _, normaliser, _ = softmax_views(logits, mask, sums=False)
            losses = [
                checkpoint(class_loss, logits[:, c : c + 1], normaliser, mask, c, use_reentrant=False) for c in present
            ]
            return torch.stack(losses).mean()


def hinge(logit: Tensor, mask: Tensor) -> Tensor:
    """One class: logits and mask, both (B, H, W)."""
    counted = mask != IGNORE
    truth = (mask == 1)[counted].to(logit.dtype)
    return extension(1 - logit[counted] * (2 * truth - 1), truth)


def class_loss(logit: Tensor, normaliser: Tensor, mask: Tensor, c: int) -> Tensor:
    """Class c of several: its logits (B, 1, h, w), log sum exp (B, H, W), and the mask."""
    counted = mask != IGNORE
    truth = (mask == c)[counted].to(normaliser.dtype)
    return extension((truth - class_probability(logit, normaliser)[counted]).abs(), truth)


def extension(errors: Tensor, truth: Tensor) -> Tensor:
    """The Lovász extension of the Jaccard loss at `errors` (N,), negative ones counting as 0. `truth` (N,): 0 or 1."""
    ordered, order = errors.sort(descending=True)
    return torch.dot(torch.relu(ordered), slopes(truth[order]).to(errors.dtype))


def slopes(truth: Tensor) -> Tensor:
    """What the Jaccard loss grows by with each further pixel wrong, (N,), the pixels being in that order."""
    wrong = truth.double()  # the differences are near 1 / N, too fine for single precision
    total, missed = wrong.sum(), wrong.cumsum(0)
    found = (1 - wrong).cumsum(0)
    jaccard = 1 - (total - missed) / (total + found)
    return torch.diff(jaccard, prepend=jaccard.new_zeros(1))


def build(config: Config, num_classes: int, weights: Sequence[float] | None = None) -> LovaszLoss:
    """The loss that `config` describes, for any number of classes."""
    return LovaszLoss(config.over)
