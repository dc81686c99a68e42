"""Decoding a tree's logits at an image's own size, one node's map at a time.

What `hierarchy.decode` gives of all logits enlarged, but never with all of them at that size at once: only the groups'
scores are held, of which there are few.

Shapes: N nodes, K leaves, D levels, h x w the logits, H x W the image's own size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from segwright.hierarchy import Hierarchy
from segwright.hierarchy.decode import How, leaf_scores
from segwright.hierarchy.tables import tables_of
from segwright.inference.argmax import argmax_resized


def levels_resized(logits: Tensor, size: tuple[int, int], hierarchy: Hierarchy, how: How) -> Tensor:
    """Logits (N, h, w) -> (D, H, W) uint8: on each level, coarsest first, the place in `hierarchy.levels`.

    A model of the leaves alone, with logits (K, h, w), is decoded by its best leaf, whatever `how` says.
    """
    places = tables_of(hierarchy, logits.device).leaf_positions.to(torch.uint8)
    leaves = hierarchy.num_leaves
    if how == "independent" and len(logits) > leaves:
        return independent_resized(logits, size, hierarchy)
    if how == "path" and len(logits) > leaves:
        leaf = _best_path(logits, size, hierarchy)
    else:
        leaf = argmax_resized(logits[:leaves], size)
    return places[:, leaf.long()]


def independent_resized(logits: Tensor, size: tuple[int, int], hierarchy: Hierarchy) -> Tensor:
    """Logits (N, h, w) -> (D, H, W) uint8: each level's own best node, as a place in `hierarchy.levels`."""
    return torch.stack([argmax_resized(logits[list(level)], size) for level in hierarchy.levels])


def _best_path(logits: Tensor, size: tuple[int, int], hierarchy: Hierarchy) -> Tensor:
    """(H, W) uint8: the leaf with the highest sum of its path's sigmoid scores, the first where several are equal."""

    def score(node: int) -> Tensor:
        one = logits[None, node : node + 1].float()
        if one.shape[-2:] != size:
            one = F.interpolate(one, size=size, mode="bilinear", align_corners=False)
        return torch.sigmoid(one[0, 0])

    of_groups = {group: score(group) for group in hierarchy.groups}
    best = torch.full(size, -torch.inf, device=logits.device)
    leaf = torch.zeros(size, dtype=torch.uint8, device=logits.device)
    for number in range(hierarchy.num_leaves):
        own = score(number)
        path = torch.stack([of_groups.get(nodes[number], own) for nodes in hierarchy.leaf_nodes])
        total = path.sum(0)
        leaf = torch.where(total > best, torch.tensor(number, dtype=torch.uint8, device=leaf.device), leaf)
        best = torch.maximum(best, total)
    return leaf


@dataclass(frozen=True)
class TreeDecoder:
    """How a predictor reads a tree's logits."""

    hierarchy: Hierarchy
    how: How = "path"

    def levels(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """As `levels_resized`."""
        return levels_resized(logits, size, self.hierarchy, self.how)

    def independent(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """As `independent_resized`; of a model of the leaves alone what `levels` gives."""
        flat = len(logits) == self.hierarchy.num_leaves < self.hierarchy.num_nodes
        return self.levels(logits, size) if flat else independent_resized(logits, size, self.hierarchy)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (N, H, W) -> (K, H, W) in fp32, their sum 1, the highest at the leaf that is decoded."""
        if self.how == "path" and len(logits) > self.hierarchy.num_leaves:
            scores = leaf_scores(logits[None], self.hierarchy)[0]
            return scores / scores.sum(0)
        return torch.softmax(logits[: self.hierarchy.num_leaves].float(), 0)
