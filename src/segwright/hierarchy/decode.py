"""From logits of a tree's nodes to one node a pixel on every level.

    path          the leaf whose path from the top has the highest sum of sigmoid scores (Li et al. 2022, section 3.3,
                  https://arxiv.org/abs/2203.14335); a shallow leaf counts again on each level that it stands for
                  itself on, or it would lose to deep ones for its short path
    leaf          the leaf with the highest score, whatever is said of the groups
    independent   on each level the node with the highest score; the levels may contradict each other

The first two decide on a leaf and read the other levels off the tree, so what they give is always a path.

Shapes: B images, N nodes, D levels.
"""

from typing import Literal

import torch
from torch import Tensor

from segwright.hierarchy.tables import Tables, tables_of
from segwright.hierarchy.tree import Hierarchy

How = Literal["path", "leaf", "independent"]


def decode(logits: Tensor, hierarchy: Hierarchy, how: How = "path") -> Tensor:
    """Logits (B, N, ...) -> (B, D, ...) int64: for each level, coarsest first, the place in `hierarchy.levels`.

    On the finest level that is the leaf, from 0 to K - 1.
    """
    tables = tables_of(hierarchy, logits.device)
    if how == "independent":
        return torch.stack([logits[:, nodes].argmax(1) for nodes in tables.levels], 1)
    leaf = leaf_scores(logits, hierarchy).argmax(1) if how == "path" else logits[:, : hierarchy.num_leaves].argmax(1)
    return all_levels(leaf, tables)


def leaf_scores(logits: Tensor, hierarchy: Hierarchy) -> Tensor:
    """(B, N, ...) -> (B, K, ...): of each leaf the sum over the levels of its path's sigmoid scores, fp32, 0 to D."""
    scores = torch.sigmoid(logits.float())
    levels = [scores[:, nodes] for nodes in tables_of(hierarchy, logits.device).leaf_nodes]
    return torch.stack(levels).sum(0)


def all_levels(leaf: Tensor, tables: Tables) -> Tensor:
    """Leaves (B, ...) -> their places on every level (B, D, ...)."""
    return torch.stack([places[leaf] for places in tables.leaf_positions], 1)


def coherent(levels: Tensor, hierarchy: Hierarchy) -> Tensor:
    """Places (B, D, ...) on each level -> (B, ...) bool: whether they are one path of the tree.

    They are where the finest level's leaf has on every level the place that was given.
    """
    tables = tables_of(hierarchy, levels.device)
    return (all_levels(levels[:, -1], tables) == levels).all(1)
