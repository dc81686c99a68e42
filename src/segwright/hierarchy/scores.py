"""What only a tree can be asked: how far in it mistakes are, and how often levels that are decided one by one agree.

Counted over a whole data set, pixel by pixel; ignored pixels count nowhere.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from segwright.datasets.base import IGNORE
from segwright.hierarchy.decode import coherent
from segwright.hierarchy.tables import tables_of
from segwright.hierarchy.tree import Hierarchy


@dataclass
class TreeCounts:
    """Sums over the images added so far."""

    hierarchy: Hierarchy
    pixels: int = 0
    agreeing: int = 0
    confusion: Tensor = field(init=False)
    """(K, K) pixels: true leaf, predicted leaf."""

    def __post_init__(self) -> None:
        leaves = self.hierarchy.num_leaves
        self.confusion = torch.zeros(leaves, leaves, dtype=torch.int64)

    def add(self, leaf: Tensor, independent: Tensor, mask: Tensor) -> None:
        """One image: the predicted leaf (H, W), each level's own decision (D, H, W), and the mask of ids (H, W)."""
        truth = tables_of(self.hierarchy, mask.device).leaves(mask)
        valid = truth != IGNORE
        leaves = self.hierarchy.num_leaves
        pairs = truth[valid] * leaves + leaf[valid]
        self.confusion += torch.bincount(pairs, minlength=leaves * leaves).reshape(leaves, leaves).cpu()
        self.agreeing += int(coherent(independent[None], self.hierarchy)[0][valid].sum())
        self.pixels += int(valid.sum())

    def scores(self) -> dict[str, float]:
        """`hierarchical_error`: of the pixels whose leaf is wrong, on how many levels the mean one is wrong: 1 (always
        within the right group) to D; 0 without a mistake. `coherence`: the share of pixels whose levels, each decided
        by itself, form a path; 1 without a pixel."""
        distance = tables_of(self.hierarchy, torch.device("cpu")).distances
        wrong = int(self.confusion.sum() - self.confusion.diagonal().sum())
        return {
            "hierarchical_error": float((self.confusion * distance).sum()) / wrong if wrong else 0.0,
            "coherence": self.agreeing / self.pixels if self.pixels else 1.0,
        }
