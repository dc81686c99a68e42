"""The softmax at a mask's size in pieces of rows, so that no loss holds an (N, K, H, W) map of floats.

Cross-entropy, Dice, Tversky, softmax focal and their sums see a pixel only through the probability of its true class,
and a class only through the sum of its probabilities. Both are small, and so are their gradients. With z the logits
enlarged to the mask's size, p = softmax(z), y the true class and [.] one where it holds:

    t = log p_y = z_y - log sum_c exp z_c        dt/dz_c = [c = y] - p_c
    P_c = the sum of p_c over counted pixels     dP_c/dz_k = p_c ([c = k] - p_k) at each of them

So both passes enlarge a few rows, take their softmax while it is in the cache, and forget it; the backward pass also
brings the gradient of those rows back to the logits' size. A loss made of t and P needs no gradient of its own.

The enlargement is that of `segwright.bilinear`.

Shapes: B images, K classes, h x w the logits, H x W the mask, r rows of a piece.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from segwright.bilinear import Band, bands, exactly
from segwright.datasets.base import IGNORE

ON_CPU, ON_GPU = 1 << 20, 1 << 25
"""Numbers in a piece, r K W, at least a row: 4 MiB stay in a processor's cache, 128 MiB fill a GPU."""

Term = Callable[[Tensor, Tensor], Tensor]
"""Logits and truth (0 or 1), both (r, K, W) -> what each of them adds, (r, K, W)."""


@dataclass(frozen=True, eq=False)
class Piece(Band):
    """Some rows of one image's mask, and of the logits that they come from."""

    image: int


def pieces(logits: Tensor, mask: Tensor) -> Iterator[Piece]:
    """Every row of every image once: `logits` (B, K, h, w) are enlarged to the size of `mask` (B, H, W)."""
    images, classes, low, _ = logits.shape
    height, width = mask.shape[-2:]
    step = max(1, (ON_CPU if logits.device.type == "cpu" else ON_GPU) // (classes * width))
    for image in range(images):
        for band in bands(low, height, step, working_type(logits), logits.device):
            yield Piece(band.rows, band.source, band.mix, image)


def working_type(logits: Tensor) -> torch.dtype:
    """What a loss computes in: float32 whatever the network's precision, float64 where the logits have it."""
    return torch.promote_types(logits.dtype, torch.float32)


def resized(logits: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Logits (B, K, h, w) -> (B, K, H, W) in the working type: for a loss that does need the whole map."""
    logits = logits.to(working_type(logits))
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


def class_probability(logit: Tensor, normaliser: Tensor) -> Tensor:
    """One class's logits (B, 1, h, w) and log sum_c exp z_c (B, H, W) -> its probability (B, H, W)."""
    return torch.exp(resized(logit, normaliser.shape[-2:])[:, 0] - normaliser)


def softmax_views(logits: Tensor, mask: Tensor, sums: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """What softmax losses see of `logits` (B, K, h, w) at the size of `mask` (B, H, W), 255 = ignored.

    Returns:
        t (B, H, W), the log-probability of the true class, 0 where ignored; log sum_c exp z_c (B, H, W); and
        P (B, K), sums of probabilities over the pixels that count, or zeros without `sums`. All can be differentiated
        once; an ignored pixel gets no gradient through any of them.
    """
    true, normaliser, totals = _Softmax.apply(logits, mask, sums)
    return true, normaliser, totals


def one_vs_rest_sums(logits: Tensor, mask: Tensor, term: Term) -> Tensor:
    """(B, K) sums of `term` over the pixels that count, for losses that ask of each class by itself."""
    return _OneVsRest.apply(logits, mask, term)


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, mask: Tensor, sums: bool) -> tuple[Tensor, Tensor, Tensor]:
        kind = working_type(logits)
        true, normaliser = (torch.empty(mask.shape, dtype=kind, device=logits.device) for _ in range(2))
        totals = torch.zeros(logits.shape[:2], dtype=torch.float64, device=logits.device)
        with exactly(logits):
            for piece in pieces(logits, mask):
                z = piece.enlarge(logits[piece.image, :, piece.source].to(kind), mask.shape[-1])
                target, ignored = _target(mask, piece)
                log_p = torch.log_softmax(z, 1)
                t = log_p.gather(1, target)
                normaliser[piece.image, piece.rows] = (z.gather(1, target) - t)[:, 0]
                true[piece.image, piece.rows] = t.masked_fill_(ignored, 0)[:, 0]
                if sums:
                    totals[piece.image] += _without(log_p.exp_(), ignored).sum((0, 2))
        ctx.save_for_backward(logits, mask)
        ctx.set_materialize_grads(False)
        return true, normaliser, totals.to(kind)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, by_true: Tensor | None, by_normaliser: Tensor | None, by_sums: Tensor | None
    ) -> tuple[Tensor, None, None]:
        logits, mask = ctx.saved_tensors

        def gradient(z: Tensor, piece: Piece) -> Tensor:
            target, ignored = _target(mask, piece)
            p = _without(torch.softmax(z, 1), ignored)
            by_t = _rows(by_true, piece, ignored)
            pull = by_t - _rows(by_normaliser, piece, ignored)
            if by_sums is None:
                out = p.mul_(-pull)
            else:
                of_class = by_sums[piece.image][None, :, None]
                pull = pull + (p * of_class).sum(1, keepdim=True)
                out = (of_class - pull).mul_(p)
            return out.scatter_add_(1, target, by_t)

        return _at_the_logits(logits, mask, gradient), None, None


class _OneVsRest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, mask: Tensor, term: Term) -> Tensor:
        kind = working_type(logits)
        totals = torch.zeros(logits.shape[:2], dtype=torch.float64, device=logits.device)
        with exactly(logits):
            for piece in pieces(logits, mask):
                z = piece.enlarge(logits[piece.image, :, piece.source].to(kind), mask.shape[-1])
                truth, ignored = _one_hot(z, mask, piece)
                totals[piece.image] += _without(term(z, truth), ignored).sum((0, 2))
        ctx.save_for_backward(logits, mask)
        ctx.term = term
        return totals.to(kind)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_sums: Tensor) -> tuple[Tensor, None, None]:
        logits, mask = ctx.saved_tensors

        def gradient(z: Tensor, piece: Piece) -> Tensor:
            truth, ignored = _one_hot(z, mask, piece)
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                values = ctx.term(z, truth)
            by_values = by_sums[piece.image][None, :, None].expand_as(values)
            return _without(torch.autograd.grad(values, z, by_values)[0], ignored)

        return _at_the_logits(logits, mask, gradient), None, None


def _at_the_logits(logits: Tensor, mask: Tensor, gradient: Callable[[Tensor, Piece], Tensor]) -> Tensor:
    """The gradient at the logits' size, from what `gradient` gives for each piece's enlarged logits (r, K, W)."""
    kind = working_type(logits)
    out = torch.zeros(logits.shape, dtype=kind, device=logits.device)
    with exactly(logits):
        for piece in pieces(logits, mask):
            with torch.enable_grad():
                source = logits[piece.image, :, piece.source].detach().to(kind).requires_grad_()
                z = piece.enlarge(source, mask.shape[-1])
            by_z = gradient(z.detach(), piece)
            out[piece.image, :, piece.source] += torch.autograd.grad(z, source, by_z)[0]
    return out.to(logits.dtype)


def _target(mask: Tensor, piece: Piece) -> tuple[Tensor, Tensor]:
    """Class ids (r, 1, W), 0 where ignored, and where that is."""
    ids = mask[piece.image, piece.rows][:, None]
    ignored = ids == IGNORE
    return ids.masked_fill(ignored, 0), ignored


def _one_hot(like: Tensor, mask: Tensor, piece: Piece) -> tuple[Tensor, Tensor]:
    """1 at the true class and 0 elsewhere, (r, K, W), and where pixels are ignored, (r, 1, W)."""
    target, ignored = _target(mask, piece)
    return torch.zeros_like(like).scatter_(1, target, 1), ignored


def _without(values: Tensor, ignored: Tensor) -> Tensor:
    """`values` (r, K, W), changed to 0 in the ignored pixels (r, 1, W)."""
    return values.masked_fill_(ignored, 0)


def _rows(by: Tensor | None, piece: Piece, ignored: Tensor) -> Tensor:
    """A piece of a gradient map (B, H, W), as (r, 1, W) with 0 where ignored; zeros where there is none."""
    if by is None:
        return torch.zeros(ignored.shape, dtype=piece.mix.dtype, device=ignored.device)
    return by[piece.image, piece.rows][:, None].masked_fill(ignored, 0)
