"""The scores of a split at every level of a tree of classes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segwright.hierarchy import Hierarchy
from segwright.hierarchy.scores import TreeCounts
from segwright.metrics import Counts, class_scores, scores
from segwright.verbs.trees import places_of


class TreeTally:
    """Counts on the levels above the finest, of how far mistakes are, and of how often levels agree."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self.upper = [Counts(len(level)) for level in hierarchy.levels[:-1]]
        self.counts = TreeCounts(hierarchy)
        self._places = places_of(hierarchy)

    def leaves(self, truth: np.ndarray) -> np.ndarray:
        """The mask (H, W) on the finest level: leaves, and 255 where a coarse label does not say which."""
        known: np.ndarray = self._places[-1][truth]
        return known

    def add(self, levels: np.ndarray, independent: np.ndarray, truth: np.ndarray) -> None:
        """One image: places on each level as decoded and as each decides by itself (D, H, W), and the mask (H, W)."""
        for counts, places, predicted in zip(self.upper, self._places, levels, strict=False):
            counts.add(predicted, places[truth])
        self.counts.add(*(torch.from_numpy(x).long() for x in (levels[-1], independent, truth)))

    def reduce(self, add: Callable[[Tensor], Tensor]) -> None:
        """The counts of all processes, with what adds a tensor up over them."""
        for counts in self.upper:
            counts.reduce(add)
        own = self.counts
        own.confusion = add(own.confusion)
        own.pixels, own.agreeing = add(torch.tensor([own.pixels, own.agreeing])).tolist()

    def scores(self) -> dict[str, float]:
        """`iou_<level>` of each level above the finest, `hierarchical_error` and `coherence`, for a row of the log."""
        named = zip(self.hierarchy.level_names, self.upper, strict=False)
        return {f"iou_{name}": scores(counts.total())["iou"] for name, counts in named} | self.counts.scores()

    def per_level(self) -> dict[str, Any]:
        """Level -> its scores, and those of its classes."""
        out: dict[str, Any] = {}
        for number, counts in enumerate(self.upper):
            total = counts.total()
            classes = class_scores(total, self.hierarchy.names(number))
            out[self.hierarchy.level_names[number]] = {**scores(total), "per_class": classes}
        return out
