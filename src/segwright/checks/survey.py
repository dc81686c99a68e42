"""All that was seen of a data set, put together, before anything is judged."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from segwright.checks.measure import Facts
from segwright.datasets.base import IGNORE, Source

_BACKGROUNDS = {"", "_background_", "background", "bg", "clean", "none", "nothing", "unlabeled", "unlabelled", "void"}
"""Names of a class 0 that stands for the absence of everything else; lower case."""


@dataclass(frozen=True)
class Survey:
    """A source and what was seen of its images, in order."""

    source: Source
    facts: list[Facts]

    @cached_property
    def by_split(self) -> Mapping[str, list[Facts]]:
        """Every split's name -> its images' facts."""
        groups: dict[str, list[Facts]] = {name: [] for name in self.source.splits}
        names = {id(split): name for name, split in self.source.splits.items()}
        for one in self.facts:
            groups[names[id(one.entry.split)]].append(one)
        return groups

    @cached_property
    def blamed(self) -> set[str]:
        """Files in which reading the annotations has found an error already."""
        return {file for finding in self.source.findings if finding.level == "error" for file in finding.files}

    @property
    def is_binary(self) -> bool:
        return self.source.num_classes == 1

    @cached_property
    def classes(self) -> list[tuple[int, str]]:
        """(id, name) of the classes that have a name."""
        return list(enumerate(self.source.classes, start=1 if self.is_binary else 0))

    @property
    def labels(self) -> list[str]:
        """What masks of several classes say, by id: the classes, and behind them the coarse labels of a tree."""
        return [*self.source.classes, *self.source.coarse]

    @cached_property
    def known(self) -> set[int]:
        """All values that a mask may hold."""
        return {0, 1, IGNORE} if self.is_binary else {*range(len(self.labels)), IGNORE}

    @cached_property
    def background(self) -> int | None:
        """The id that stands for nothing in particular, if there is one."""
        return 0 if self.is_binary or self.source.classes[0].strip().lower() in _BACKGROUNDS else None

    def masks(self, split: str) -> list[Facts]:
        """The images of a split whose masks were read."""
        return [one for one in self.by_split[split] if one.mask is not None]

    def total(self, split: str) -> np.ndarray:
        """(256,) pixels of each mask value in a split."""
        zero = np.zeros(256, np.int64)
        return np.sum([zero, *(one.mask.counts for one in self.by_split[split] if one.mask)], axis=0)

    def shares(self, split: str) -> dict[str, float]:
        """Class or coarse label -> share of the pixels that are not ignored."""
        counts = self.total(split)
        counted = max(counts.sum() - counts[IGNORE], 1)
        return {name: float(counts[value] / counted) for value, name in enumerate(self.labels, int(self.is_binary))}

    def is_annotated(self, counts: np.ndarray) -> bool:
        """Whether a mask has a positive pixel; of several classes: a pixel that counts."""
        return bool(counts[1] > 0 if self.is_binary else counts[:IGNORE].sum() > 0)
