"""What tests of trees share: random trees, and numbers that every machine makes alike."""

import json
import math

import torch
from hypothesis import strategies as st

from segwright.hierarchy import Hierarchy, read


def made(*shape: int) -> torch.Tensor:
    """3 sin(0.7 i + 0.3) + 1.5 cos(0.13 i) over the flat index i."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return (3 * torch.sin(0.7 * i + 0.3) + 1.5 * torch.cos(0.13 * i)).reshape(shape).float()


def labels(*shape: int, classes: int) -> torch.Tensor:
    i = torch.arange(math.prod(shape))
    return (((3 * i * i + i // 3) % 11) % classes).reshape(shape)


@st.composite
def trees(draw) -> Hierarchy:
    """Any tree of up to a dozen leaves, its ids any different ones."""
    node = st.recursive(st.none(), lambda child: st.lists(child, min_size=1, max_size=3), max_leaves=8)
    shape = draw(st.lists(node, min_size=1, max_size=3))
    leaves = json.dumps(shape).count("null")
    ids = iter(draw(st.lists(st.integers(0, 254), min_size=leaves, max_size=leaves, unique=True)))

    def named(children):
        return {f"n{i}": next(ids) if child is None else named(child) for i, child in enumerate(children)}

    return read(named(shape))


def logits_for(hierarchy: Hierarchy, seed: int) -> torch.Tensor:
    """(2, N, 3, 4)."""
    return 3 * torch.randn(2, hierarchy.num_nodes, 3, 4, generator=torch.Generator().manual_seed(seed))


def leaves_for(hierarchy: Hierarchy, seed: int) -> torch.Tensor:
    """(2, 3, 4) leaves, 0 to K - 1."""
    return torch.randint(0, hierarchy.num_leaves, (2, 3, 4), generator=torch.Generator().manual_seed(seed))
