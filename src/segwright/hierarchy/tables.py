"""A tree's lists as tensors on a device, and what its logits say of each node together with those above and below it.

With s_v = sigmoid(z_v), A_v the ancestors and C_v the descendants of v, both with v itself (Li et al. 2022, "Deep
Hierarchical Semantic Segmentation", section 3.2, https://arxiv.org/abs/2203.14335): a node is as likely as the least
likely of A_v, and ruled out only as far as the likeliest of C_v is. The sigmoid rises, so the least and the greatest
are found among logits, where nothing is lost to rounding.

Shapes: N nodes, K leaves, L labels (the leaves and then the coarse ones), D levels, `...` any pixels.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from segwright.datasets.base import IGNORE
from segwright.errors import DataError
from segwright.hierarchy.tree import Hierarchy


class Tables:
    """Index tensors of one tree; see `tables_of`."""

    def __init__(self, hierarchy: Hierarchy, device: torch.device) -> None:
        def tensor(values: object) -> Tensor:
            return torch.tensor(values, device=device)

        self.hierarchy = hierarchy
        self.leaf_nodes = tensor(hierarchy.leaf_nodes)
        """(D, K): channel of each leaf's node on each level."""
        self.leaf_positions = tensor(hierarchy.leaf_positions)
        """(D, K): its place among the level's nodes."""
        self.levels = [tensor(level) for level in hierarchy.levels]
        """D times the channels of a level's nodes."""
        self.above = [tensor(hierarchy.ancestors(node)) for node in range(hierarchy.num_nodes)]
        self.below = [tensor(hierarchy.descendants(group)) for group in hierarchy.groups]
        self.distances = tensor(hierarchy.distances)
        """(K, K)."""
        first = [[places[0] for places in level] for level in hierarchy.label_levels]
        self.label_places = tensor(first)
        """(D, L): the place in `levels` that a label leaves open, the first of several."""
        self.label_nodes = tensor(
            [[level[place] for place in places] for level, places in zip(hierarchy.levels, first, strict=True)]
        )
        """(D, L): the channel there."""
        self.open = [self._open(places, len(hierarchy.levels[i])) for i, places in enumerate(hierarchy.label_levels)]
        """D times (L, nodes of the level): whether a label leaves a node open beside others; None where none does."""
        self.level_sizes = tensor([float(len(level)) for level in hierarchy.levels])
        """(D,): how many nodes a level has."""
        finest = [places[0] if len(places) == 1 else IGNORE for places in hierarchy.label_levels[-1]]
        self._leaf_of = torch.full((256,), IGNORE)
        self._leaf_of[: len(finest)] = torch.tensor(finest)
        self._leaf_of = self._leaf_of.to(device)
        upwards = [node for level in hierarchy.levels[::-1] for node in level]
        self._shares = [len(level) for level in hierarchy.levels[::-1]] if upwards == [*range(len(upwards))] else None
        self._ids = [*hierarchy.ids, *(value for value, _ in hierarchy.coarse)]
        labels = torch.full((256,), -1)
        labels[self._ids] = torch.arange(len(self._ids))
        labels[IGNORE] = IGNORE
        self._labels = labels.to(device)

    def by_level(self, values: Tensor) -> Sequence[Tensor]:
        """(r, N, ...) -> D times those of a level's nodes. Without a shallow leaf the levels share the channels out,
        and the gradient of a split costs less than that of picking."""
        if self._shares:
            return values.split(self._shares, 1)[::-1]
        return [values[:, nodes] for nodes in self.levels]

    def _open(self, level: Sequence[Sequence[int]], nodes: int) -> Tensor | None:
        rows = torch.zeros(len(level), nodes, dtype=torch.bool)
        for label, places in enumerate(level):
            if len(places) > 1:
                rows[label, list(places)] = True
        return rows.to(self.leaf_nodes.device) if rows.any() else None

    def labels(self, mask: Tensor) -> Tensor:
        """Mask values -> which label, 0 to L - 1, or 255 = ignored; the mask stays as it is.

        Raises:
            DataError: a value that is neither a leaf's id nor a coarse label.
        """
        labels = self._labels[mask.long()]
        if (labels < 0).any():
            wrong = torch.unique(mask[labels < 0]).tolist()
            raise DataError(
                f"a mask holds {wrong}, but the tree knows the ids {self._ids} alone. Add these ids to the tree, or "
                f"let the mask say {IGNORE} where a pixel should not count."
            )
        return labels

    def leaves(self, mask: Tensor) -> Tensor:
        """Mask values -> which leaf, 0 to K - 1, or 255 = ignored, or a label of several leaves. Raises `DataError`."""
        return self._leaf_of[self.labels(mask)]


@lru_cache(maxsize=16)
def tables_of(hierarchy: Hierarchy, device: torch.device) -> Tables:
    """The tree's tables on a device, made once."""
    return Tables(hierarchy, device)


def least_above(logits: Tensor, hierarchy: Hierarchy) -> Tensor:
    """(B, N, ...) -> (B, N, ...): of each node the least logit of A_v; its sigmoid is the node's positive score."""
    above = tables_of(hierarchy, logits.device).above
    return torch.stack([logits[:, nodes].amin(1) for nodes in above], 1)


def greatest_below(logits: Tensor, hierarchy: Hierarchy) -> Tensor:
    """(B, N, ...) -> (B, N, ...): of each node the greatest logit of C_v."""
    below = tables_of(hierarchy, logits.device).below
    groups = [logits[:, nodes].amax(1, keepdim=True) for nodes in below]
    return torch.cat([logits[:, : hierarchy.num_leaves], *groups], 1)
