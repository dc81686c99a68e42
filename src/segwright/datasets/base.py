"""What every dataset reader gives: classes, splits, and findings about what is wrong.

H x W is the image's size in pixels after its EXIF orientation is applied.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

IGNORE = 255
"""The mask value that counts neither in losses nor in metrics."""


@dataclass(frozen=True)
class Finding:
    """Something that the check of the data has to say."""

    level: Literal["error", "warning", "info"]
    code: str
    """Short and stable, e.g. `missing-image`."""
    message: str
    """What was seen and why it matters."""
    fix: str = ""
    """What to do."""
    files: tuple[str, ...] = ()


class Split(Protocol):
    """The images of one split, in a fixed order."""

    name: str

    def __len__(self) -> int: ...

    def path(self, index: int) -> Path:
        """The image's file."""
        ...

    def image(self, index: int) -> np.ndarray:
        """The image, (H, W, 3) uint8 RGB."""
        ...

    def mask(self, index: int) -> np.ndarray:
        """The mask at the image's own size, (H, W) uint8 class ids, 255 = ignore."""
        ...


@dataclass(frozen=True)
class Source:
    """A data set as a reader found it."""

    classes: Sequence[str]
    """Names in id order. One name: a binary task, whose masks hold 0 and 1; several: id i is `classes[i]`."""
    splits: dict[str, Split]
    """Of `train`, `valid` and `test` those that exist."""
    findings: list[Finding] = field(default_factory=list)
    """What reading the annotations brought up; pixel checks are not in it."""

    @property
    def num_classes(self) -> int:
        return len(self.classes)
