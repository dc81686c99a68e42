"""What every dataset reader gives: classes, splits, and findings about what is wrong.

H x W is the image's size in pixels after its EXIF orientation is applied.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from segwright.errors import DataError

IGNORE = 255
"""The mask value that counts neither in losses nor in metrics."""

SHOWN = 5
"""Files that a finding's message names; `Finding.files` holds all."""

Level = Literal["error", "warning", "info"]
LEVELS: tuple[Level, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """Something that the check of the data has to say."""

    level: Level
    code: str
    """Short and stable, e.g. `missing-image`."""
    message: str
    """What was seen and why it matters."""
    fix: str = ""
    """What to do."""
    files: tuple[str, ...] = ()
    """Relative to the data set's root, where it has one."""


class Notes:
    """Gathers single sightings by code, so that a thousand bad files make one finding and not a thousand."""

    def __init__(self, codes: Mapping[str, tuple[Level, str, str]]) -> None:
        """`codes`: code -> (level, what it is and why it matters, what to do)."""
        self._codes = codes
        self._seen: dict[str, list[tuple[tuple[str, ...], str]]] = {}

    def see(self, code: str, file: str | tuple[str, ...], detail: str = "") -> None:
        """One sighting: the file or files that it is about ("" for none) and what is particular about it."""
        assert code in self._codes, code
        files = (file,) if isinstance(file, str) else file
        self._seen.setdefault(code, []).append((tuple(filter(None, files)), detail))

    def findings(self) -> list[Finding]:
        """One per code, the gravest first."""
        return by_level(self._finding(code, seen) for code, seen in self._seen.items())

    def _finding(self, code: str, seen: list[tuple[tuple[str, ...], str]]) -> Finding:
        level, what, fix = self._codes[code]
        shown = "; ".join(": ".join(filter(None, (_named(files), detail))) for files, detail in seen[:SHOWN])
        more = f"; and {len(seen) - SHOWN} more" if len(seen) > SHOWN else ""
        every = tuple(dict.fromkeys(file for files, _ in seen for file in files))
        return Finding(level, code, f"{what} ({len(seen)}): {shown.rstrip('.')}{more}.", fix, every)


def _named(files: tuple[str, ...]) -> str:
    """The first of the files that belong together."""
    return " = ".join(files[:SHOWN]) + (f" and {len(files) - SHOWN} more" if len(files) > SHOWN else "")


def by_level(findings: Iterable[Finding]) -> list[Finding]:
    """Errors, then warnings, then the rest; within a level the order stays."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


class Split(Protocol):
    """The images of one split, in a fixed order. Picklable, for worker processes."""

    @property
    def name(self) -> str:
        """`train`, `valid` or `test`."""
        ...

    def __len__(self) -> int: ...

    def path(self, index: int) -> Path:
        """The image's file."""
        ...

    def annotation(self, index: int) -> Path:
        """The file that the mask comes from: a mask, or the annotations of a whole split."""
        ...

    def image(self, index: int) -> np.ndarray:
        """The image, (H, W, 3) uint8 RGB."""
        ...

    def mask(self, index: int) -> np.ndarray:
        """The mask at the image's own size, (H, W) uint8 class ids, 255 = ignore."""
        ...


def group_of(split: Split, index: int) -> str:
    """What a sample belongs with where results are told apart (a craft, a material), where its reader says that."""
    group = getattr(split, "group", None)
    return group(index) if group else ""


@dataclass(frozen=True)
class Source:
    """A data set as a reader found it."""

    classes: Sequence[str]
    """Names in id order. One name: a binary task, whose masks hold 0 and 1; several: id i is `classes[i]`."""
    splits: Mapping[str, Split]
    """Of `train`, `valid` and `test` those that exist."""
    findings: list[Finding] = field(default_factory=list)
    """What reading the annotations brought up; pixel checks are not in it."""
    colours: Sequence[tuple[int, int, int]] | None = None
    """RGB of each class for pictures, where the data set has its own."""
    coarse: Sequence[str] = ()
    """Names of classes that say a group of a tree and no more; in masks they have the ids behind the classes'."""
    whole: "Source | None" = None
    """The same data before coarse labels were set apart, with their classes as the data number them; none: as here."""

    @property
    def num_classes(self) -> int:
        return len(self.classes)


def leaves_alone(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """A mask of K classes in which coarse labels are ignored, as they are where no tree is asked."""
    return np.where(mask < max(num_classes, 2), mask, np.uint8(IGNORE))


def sound(source: Source, root: str) -> Source:
    """The same. Raises `DataError`, with all that the reader found, if anything makes the data in `root` unusable."""
    errors = [finding for finding in source.findings if finding.level == "error"]
    if errors:
        lines = "".join(f"\n  - {error.message} {error.fix}" for error in errors)
        raise DataError(
            f"the data in {root} cannot be used:{lines}\nsegwright check {root} finds what else is wrong with them."
        )
    return source
