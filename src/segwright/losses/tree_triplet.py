"""Tree-triplet loss: pixels that are near in the tree of classes shall have like embeddings.

Li et al. 2022, "Deep Hierarchical Semantic Segmentation", section 3.2, https://arxiv.org/abs/2203.14335:

    L = mean of max(0, d(a, p) - d(a, n) + m)        d = 1 - cosine
    m = 0.1 + 0.5 (t(a, n) - t(a, p)) / D            t: edges between two leaves in the tree, D: its levels

For an anchor a, a positive p comes from another leaf of one of the groups that a lies in, and a negative n from outside
that group. With two levels p is a sibling and m is 0.6; in deeper trees every group above a has its own triplets, and
m grows with what lies between. Of each anchor's class and group some triplets are drawn at random.

Shapes: B images, E the embedding's width, h x w its map, P pixels that count.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from segwright.datasets.base import IGNORE
from segwright.hierarchy import Hierarchy
from segwright.hierarchy.tables import tables_of

SAMPLES = 200
"""Highest number of triplets of one class and group in a batch, as in the paper's code."""
WITHIN, BETWEEN = 0.1, 0.5
"""The margin's constant part, and the factor of the part that the tree decides."""

Draw = Callable[[Tensor, int], Tensor]
"""Positions (n,) and a number up to n -> that many of them."""


def at_random(generator: torch.Generator | None = None) -> Draw:
    """Draws without putting back; from torch's own generator where none is given."""

    def draw(positions: Tensor, count: int) -> Tensor:
        device = positions.device if generator is None else generator.device
        order = torch.randperm(len(positions), generator=generator, device=device)[:count]
        return positions[order.to(positions.device)]

    return draw


def the_first(positions: Tensor, count: int) -> Tensor:
    """The first in raster order: what the paper's code takes, though it favours the top of the first image."""
    return positions[:count]


def tree_triplet(
    embedding: Tensor, mask: Tensor, hierarchy: Hierarchy, draw: Draw | None = None, samples: int = SAMPLES
) -> Tensor:
    """The loss, a scalar in fp32: the mean over leaves and groups that have triplets; 0 where none has.

    Args:
        embedding: (B, E, h, w) of any length at each place; it is brought to length 1.
        mask: (B, H, W) ids, 255 = ignored; it is read at the embedding's places, nearest pixel.
        hierarchy: the tree of the ids.
        draw: how pixels are chosen; none: at random.
        samples: highest number of triplets of one leaf and group.
    """
    tables = tables_of(hierarchy, embedding.device)
    leaf = tables.leaves(_at(mask, embedding.shape[-2:])).flatten()
    counted = leaf != IGNORE
    vectors = F.normalize(embedding.float(), dim=1, eps=1e-6).permute(0, 2, 3, 1).flatten(0, 2)[counted]
    losses = list(_losses(vectors, leaf[counted], hierarchy, draw or at_random(), samples))
    return torch.stack(losses).mean() if losses else vectors.sum() * 0


def _at(mask: Tensor, size: torch.Size) -> Tensor:
    """The mask's pixel nearest to each of the places, (B, h, w)."""
    if mask.shape[-2:] == size:
        return mask
    return F.interpolate(mask[:, None].float(), size=tuple(size), mode="nearest-exact")[:, 0].long()


def _losses(vectors: Tensor, leaf: Tensor, hierarchy: Hierarchy, draw: Draw, samples: int) -> Iterator[Tensor]:
    """One loss for each leaf that occurs and each group above it that has triplets. vectors (P, E), leaf (P,)."""
    distances = tables_of(hierarchy, leaf.device).distances
    for own in torch.unique(leaf).tolist():
        anchors = (leaf == own).nonzero()[:, 0]
        away = distances[own][leaf]  # (P,): 1 in the same parent, D outside all groups
        for level in range(1, hierarchy.depth):
            positives, negatives = (away == level).nonzero()[:, 0], (away > level).nonzero()[:, 0]
            count = min(len(anchors), len(positives), len(negatives), samples)
            if count:
                a, p, n = (draw(positions, count) for positions in (anchors, positives, negatives))
                margin = WITHIN + BETWEEN * 2 * (away[n] - away[p]) / hierarchy.depth
                nearer, farther = ((vectors[a] * vectors[other]).sum(1) for other in (p, n))
                yield torch.relu(farther - nearer + margin).mean()


def ramp(step: int, steps: int) -> float:
    """The loss's factor at an iteration: from 0 to 1/2 along a cosine, 1/2 from iteration `steps` on (section 4.1).

    `step` counts optimizer steps from the run's first, not epochs.
    """
    if step >= steps:
        return 0.5
    return 0.25 * (1 + math.cos((step - steps) / steps * math.pi))
