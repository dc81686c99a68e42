"""A tree of classes: groups and leaves, their levels, paths and distances.

A node is its path, the names from the top down to it, so a group and a leaf may share a name. The logits of a model
have one channel a node: first the leaves in the order of their ids, then the groups, the deepest level first.

Levels count from the top: 0 is the coarsest, D - 1 the finest. On each level every pixel has exactly one node: a leaf
that is shallow stands for itself on the levels below its own. So a level is a set of classes like any other, and two
leaves can be compared level by level.

A mask may also say of a pixel which group it lies in and no more: a coarse label. Labels are numbered like the leaves,
0 to K - 1, and behind them the coarse ones, K to L - 1.

Shapes: K leaves, L labels, N nodes, D levels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Path = tuple[str, ...]


@dataclass(frozen=True)
class Hierarchy:
    """`paths` and `ids` say everything; use `segwright.hierarchy.read` to make one from what people write."""

    paths: tuple[Path, ...]
    """Of the N nodes, in the order of the channels."""
    ids: tuple[int, ...]
    """Mask values of the K leaves, rising."""
    coarse: tuple[tuple[int, int], ...] = ()
    """Of the coarse labels the mask value and the channel of the group."""

    @property
    def num_leaves(self) -> int:
        """K."""
        return len(self.ids)

    @property
    def num_nodes(self) -> int:
        """N, the channels that a model needs."""
        return len(self.paths)

    @cached_property
    def depth(self) -> int:
        """D, the number of levels."""
        return max(len(path) for path in self.paths)

    @cached_property
    def _channel(self) -> dict[Path, int]:
        return {path: channel for channel, path in enumerate(self.paths)}

    def channel(self, *names: str) -> int:
        """The channel of the node with this path. KeyError if there is none."""
        return self._channel[names]

    @cached_property
    def parents(self) -> tuple[int | None, ...]:
        """Of each node its parent's channel, None at the top."""
        return tuple(self._channel[path[:-1]] if len(path) > 1 else None for path in self.paths)

    def ancestors(self, node: int) -> tuple[int, ...]:
        """The node and all above it, upwards."""
        above = self.parents[node]
        return (node,) if above is None else (node, *self.ancestors(above))

    @cached_property
    def _descendants(self) -> tuple[tuple[int, ...], ...]:
        below: list[list[int]] = [[] for _ in self.paths]
        for node in range(self.num_nodes):
            for above in self.ancestors(node):
                below[above].append(node)
        return tuple(tuple(nodes) for nodes in below)

    def descendants(self, node: int) -> tuple[int, ...]:
        """The node and all below it, in the order of the channels."""
        return self._descendants[node]

    @property
    def groups(self) -> range:
        """The channels of the groups."""
        return range(self.num_leaves, self.num_nodes)

    @cached_property
    def leaf_nodes(self) -> tuple[tuple[int, ...], ...]:
        """(D, K): on each level the channel of the node that a leaf belongs to."""
        routes = [self.ancestors(leaf)[::-1] for leaf in range(self.num_leaves)]
        return tuple(tuple(route[min(level, len(route) - 1)] for route in routes) for level in range(self.depth))

    @cached_property
    def levels(self) -> tuple[tuple[int, ...], ...]:
        """On each level the channels of its nodes, rising."""
        return tuple(tuple(sorted(set(nodes))) for nodes in self.leaf_nodes)

    @cached_property
    def leaf_positions(self) -> tuple[tuple[int, ...], ...]:
        """(D, K): on each level the place that a leaf's node has in `levels`."""
        return tuple(
            tuple(level.index(node) for node in nodes)
            for level, nodes in zip(self.levels, self.leaf_nodes, strict=True)
        )

    @property
    def level_names(self) -> tuple[str, ...]:
        """`coarse`, `fine`; with a third level `super_coarse`, and the top ones of a deeper tree by their number."""
        named = ("super_coarse", "coarse", "fine")[-self.depth :]
        return (*(f"level_{number}" for number in range(1, self.depth - len(named) + 1)), *named)

    def names(self, level: int) -> tuple[str, ...]:
        """Of the level's nodes: their own name, or the whole path where two on the level share it."""
        paths = [self.paths[node] for node in self.levels[level]]
        own = [path[-1] for path in paths]
        return tuple(path[-1] if own.count(path[-1]) == 1 else "/".join(path) for path in paths)

    @cached_property
    def label_levels(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """(D, L): on each level the places in `levels` that a label leaves open: one, or what its group has there."""
        return tuple(
            (*((place,) for place in places), *(self._open(level, group) for _, group in self.coarse))
            for level, places in zip(self.levels, self.leaf_positions, strict=True)
        )

    def _open(self, level: Sequence[int], group: int) -> tuple[int, ...]:
        """The places of a level's nodes that are above a group, itself, or in it."""
        above = self.ancestors(group)
        return tuple(place for place, node in enumerate(level) if node in above or group in self.ancestors(node))

    @cached_property
    def distances(self) -> tuple[tuple[int, ...], ...]:
        """(K, K): on how many levels two leaves differ: 0 for a leaf and itself, 1 in one group, D with nothing shared.

        It is the height of their lowest common ancestor (Bertinetto et al. 2020, "Making Better Mistakes", section 3,
        https://arxiv.org/abs/1912.09393), and half the edges between them with all leaves drawn on the finest level.
        """
        routes = list(zip(*self.leaf_nodes, strict=True))
        return tuple(tuple(sum(a != b for a, b in zip(u, v, strict=True)) for v in routes) for u in routes)

    @cached_property
    def _children(self) -> dict[Path, list[Path]]:
        """Of the top, (), and of each group: groups in their own order, then leaves by id."""
        below: dict[Path, list[Path]] = {}
        for channel in (*self.groups, *range(self.num_leaves)):
            path = self.paths[channel]
            below.setdefault(path[:-1], []).append(path)
        return below

    def nested(self, top: Path = ()) -> dict[str, Any]:
        """What is below a group as people write it: nested names with leaf ids. `read` makes an equal tree of it."""
        return {
            path[-1]: self.nested(path) if path in self._children else self.ids[self._channel[path]]
            for path in self._children[top]
        }

    def __str__(self) -> str:
        """The tree in lines, as `tree` draws folders; a leaf with its id, a group with those of its coarse labels."""
        return "\n".join(self._lines((), ""))

    def _labelled(self, path: Path) -> str:
        """The mask values that say this node."""
        channel = self._channel[path]
        own = [self.ids[channel]] if channel < self.num_leaves else [v for v, group in self.coarse if group == channel]
        return f" ({', '.join(map(str, own))})" if own else ""

    def _lines(self, top: Path, margin: str) -> Iterator[str]:
        children = self._children.get(top, [])
        for path in children:
            last = path == children[-1]
            label = f"{path[-1]}{self._labelled(path)}"
            yield f"{margin}{'└── ' if last else '├── '}{label}"
            yield from self._lines(path, margin + ("    " if last else "│   "))
