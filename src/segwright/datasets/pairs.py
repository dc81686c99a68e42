"""An image file and a mask file for each sample: what the readers of such layouts share.

H x W is the image's size in pixels after its EXIF orientation is applied.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segwright.datasets.base import Level, Notes
from segwright.images import IMAGE_SUFFIXES, read_image

CODES: dict[str, tuple[Level, str, str]] = {
    "missing-image": ("error", "masks whose image is not there", "Restore the images, or take the masks out."),
    "missing-mask": ("warning", "images without a mask, left out", "Annotate them, or take them out."),
    "same-name": (
        "error",
        "files that differ in nothing but their ending, so that it is unclear which of them is meant",
        "Keep one of each name, or rename them.",
    ),
    "empty-split": ("error", "a split without an image that has a mask", "Fill it, or take its folder away."),
    "missing-split": ("info", "splits that are not there", ""),
    "test-without-masks": (
        "info",
        "test images without masks; they can be predicted but not scored, so the data have no split 'test'",
        "Predict them with segwright infer --input FOLDER; score with segwright evaluate --split valid.",
    ),
}
"""Findings of every such reader: code -> (level, what it is and why it matters, what to do)."""


@dataclass(frozen=True)
class Pair:
    """One sample."""

    image: Path
    mask: Path
    group: str = ""
    """What it belongs with where results are told apart: a craft, a material. Empty: nothing."""


@dataclass(frozen=True)
class PairSplit:
    """The samples of one split, in their readers' order."""

    name: str
    pairs: tuple[Pair, ...]
    read: Callable[[Path], np.ndarray]
    """Mask file -> (H, W) uint8 class ids, 255 = ignore. Picklable. `DataError` if the file is broken."""

    def __len__(self) -> int:
        return len(self.pairs)

    def path(self, index: int) -> Path:
        return self.pairs[index].image

    def annotation(self, index: int) -> Path:
        return self.pairs[index].mask

    def group(self, index: int) -> str:
        """The name of the group that the sample belongs to; empty for none."""
        return self.pairs[index].group

    def image(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB. `DataError` if the file is broken."""
        return read_image(self.pairs[index].image)

    def mask(self, index: int) -> np.ndarray:
        """(H, W) uint8 class ids, 255 = ignore. `DataError` if the file is broken."""
        return self.read(self.pairs[index].mask)


def by_stem(folder: Path, root: Path, notes: Notes, suffix: str = "") -> dict[str, Path]:
    """File name without ending (and without `suffix` before it, if it has that) -> image file, sorted.

    Hidden files and those that are no images are passed over. No such folder: nothing.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        key = path.stem.removesuffix(suffix)
        if key in found:
            notes.see("same-name", (shown(found[key], root), shown(path, root)))
        found.setdefault(key, path)
    return found


def paired(
    images: Mapping[str, Path], masks: Mapping[str, Path], root: Path, notes: Notes, group: str = ""
) -> list[Pair]:
    """The samples that have both, by their key; a note on every other file."""
    for key in images.keys() - masks.keys():
        notes.see("missing-mask", shown(images[key], root))
    for key in masks.keys() - images.keys():
        notes.see("missing-image", shown(masks[key], root))
    return [Pair(images[key], masks[key], group) for key in sorted(images.keys() & masks.keys())]


def shown(path: Path, root: Path) -> str:
    """What a finding calls a file: the path from the data set's folder, if it lies in there."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def holds(folder: Path) -> str:
    """What is in a folder, for the message that something else is not."""
    if not folder.is_dir():
        return "it is a file, not a folder" if folder.exists() else "it does not exist"
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    return f"it holds {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}" if names else "it is empty"


def sampled(count: int, at_most: int) -> Iterable[int]:
    """Indices spread evenly over `count` samples."""
    return sorted({int(index) for index in np.linspace(0, count - 1, min(count, at_most))})
