"""A tree of classes as a picture: groups to the left, leaves with their ids and colours to the right.

A node stands at its depth, in the middle of what is below it. matplotlib is imported when something is drawn.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from segwright.hierarchy import Hierarchy

LEVEL_IN, LEAF_IN, MARGIN_IN = 1.9, 0.26, 0.35
"""Inches from level to level, from leaf to leaf, and around."""
MOST_IN = 60
"""Highest picture; with more leaves they move together."""


def tree_png(hierarchy: Hierarchy, colours: np.ndarray | None = None) -> bytes:
    """The tree as a PNG. `colours`: (K, 3 or 4) uint8 of the leaves in the order of their ids."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = (hierarchy.depth + 0.3) * LEVEL_IN, min(hierarchy.num_leaves * LEAF_IN, MOST_IN)
    figure = Figure(figsize=(width + 2 * MARGIN_IN, height + 2 * MARGIN_IN), dpi=110)
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    rows = rows_of(hierarchy)
    ax.set(xlim=(-MARGIN_IN, width + MARGIN_IN), ylim=(hierarchy.num_leaves - 0.5 + MARGIN_IN / LEAF_IN, -1.5))
    for node, row in enumerate(rows):
        _draw_node(ax, hierarchy, node, row, rows, colours)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def rows_of(hierarchy: Hierarchy) -> tuple[float, ...]:
    """Of each node the row that it is drawn in: leaves from 0 in the order of the written tree, groups between."""
    place = {line: row for row, line in enumerate(_leaves_in_order(hierarchy))}
    below = [[place[n] for n in hierarchy.descendants(v) if n in place] for v in range(hierarchy.num_nodes)]
    return tuple((min(own) + max(own)) / 2 for own in below)


def _leaves_in_order(hierarchy: Hierarchy) -> list[int]:
    def walk(tree: dict[str, Any]) -> list[int]:
        return [i for child in tree.values() for i in (walk(child) if isinstance(child, dict) else [child])]

    return [hierarchy.ids.index(number) for number in walk(hierarchy.nested())]


def _draw_node(
    ax: Any, hierarchy: Hierarchy, node: int, row: float, rows: Sequence[float], colours: np.ndarray | None
) -> None:
    """Its name, the line to its parent, and of a leaf its id and colour."""
    x = (len(hierarchy.paths[node]) - 1) * LEVEL_IN
    parent, leaf = hierarchy.parents[node], node < hierarchy.num_leaves
    if parent is not None:
        middle = x - 0.3
        ax.plot([x - LEVEL_IN, middle, middle, x], [rows[parent], rows[parent], row, row], color="0.7", lw=1, zorder=1)
    colour = tuple(colours[node, :3] / 255) if leaf and colours is not None else ("black" if leaf else "0.45")
    ax.plot(
        [x], [row], "s" if leaf else "o", color=colour, markeredgecolor="0.3", markersize=8 if leaf else 5, zorder=2
    )
    name = hierarchy.paths[node][-1].replace("$", r"\$")
    label = f"{name} ({hierarchy.ids[node]})" if leaf else name
    ax.text(x + 0.12, row, label, va="center", fontsize=9, zorder=3,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0})  # fmt: skip
