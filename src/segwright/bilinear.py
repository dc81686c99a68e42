"""Bilinear resizing (align_corners=False) by bands of rows, so that no map lies in memory at its larger size.

It is separable: first along the width, on the few source rows that a band lies between, then along the height, as one
product with the few columns of the resize's matrix that are not zero. `F.interpolate` gives the same to its last bits.

Shapes: K classes, h x w the source, H x W what it is resized to, r rows of a band, s its source rows.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class Band:
    """Some rows of a resized map."""

    rows: slice
    """Of the resized map."""
    source: slice
    """Of the source: those that `rows` come from."""
    mix: Tensor
    """(r, s): how much of each source row is in each row."""

    def enlarge(self, source: Tensor, width: int) -> Tensor:
        """Source rows (K, s, w) -> (r, K, W)."""
        wide = widened(source.transpose(0, 1), width)
        return (self.mix @ wide.flatten(1)).view(len(self.mix), *wide.shape[1:])


def exactly(tensor: Tensor) -> torch.autocast:
    """A context without autocast, which would take the matrix products to 16 bits."""
    return torch.autocast(tensor.device.type, enabled=False)


def widened(rows: Tensor, width: int) -> Tensor:
    """(s, K, w) -> (s, K, W): the first half of a resize."""
    return F.interpolate(rows, size=width, mode="linear", align_corners=False)


@functools.lru_cache(maxsize=128)
def bands(source: int, height: int, step: int, dtype: torch.dtype, device: torch.device) -> tuple[Band, ...]:
    """Every row of `height` once, in order, `step` at a time, made from `source` rows."""
    with torch.inference_mode(False), torch.no_grad():
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        every = torch.eye(source, dtype=exact)[None, None]
        matrix = F.interpolate(every, size=(height, source), mode="bilinear", align_corners=False)[0, 0]
        made = []
        for top in range(0, height, step):
            rows = slice(top, min(top + step, height))
            used = matrix[rows].any(dim=0).nonzero()
            taken = slice(int(used[0]), int(used[-1]) + 1)
            made.append(Band(rows, taken, matrix[rows, taken].to(device, dtype, copy=True)))
    return tuple(made)
