"""The scores of a split at every level of a tree of classes."""

from typing import Any

import numpy as np
import torch

from segwright.datasets.base import IGNORE
from segwright.hierarchy import Hierarchy
from segwright.hierarchy.scores import TreeCounts
from segwright.metrics import Counts, scores


class TreeTally:
    """Counts on the levels above the finest, of how far mistakes are, and of how often levels agree."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self.upper = [Counts(len(level)) for level in hierarchy.levels[:-1]]
        self.counts = TreeCounts(hierarchy)
        self._places = np.full((hierarchy.depth, 256), IGNORE, np.uint8)
        self._places[:, : hierarchy.num_leaves] = hierarchy.leaf_positions

    def add(self, levels: np.ndarray, independent: np.ndarray, truth: np.ndarray) -> None:
        """One image: places on each level as decoded and as each decides by itself (D, H, W), and the mask (H, W)."""
        for counts, places, predicted in zip(self.upper, self._places, levels, strict=False):
            counts.add(predicted, places[truth])
        self.counts.add(*(torch.from_numpy(x).long() for x in (levels[-1], independent, truth)))

    def scores(self) -> dict[str, float]:
        """`iou_<level>` of each level above the finest, `hierarchical_error` and `coherence`, for a row of the log."""
        named = zip(self.hierarchy.level_names, self.upper, strict=False)
        return {f"iou_{name}": scores(counts.total())["iou"] for name, counts in named} | self.counts.scores()

    def per_level(self) -> dict[str, Any]:
        """Level -> its scores, and those of its classes."""
        out: dict[str, Any] = {}
        for number, counts in enumerate(self.upper):
            total = counts.total()
            names = self.hierarchy.names(number)
            classes = {name: scores(total[i : i + 1]) for i, name in enumerate(names)}
            out[self.hierarchy.level_names[number]] = {**scores(total), "per_class": classes}
        return out
