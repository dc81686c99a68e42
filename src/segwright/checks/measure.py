"""Looks once at each image and its mask and keeps what the checks need to know."""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segwright.checks.likeness import thumbnail
from segwright.datasets.base import Source, Split
from segwright.errors import SegwrightError
from segwright.images import image_size

Progress = Callable[[int, int], None]
"""Is told how many images are done, and of how many."""


@dataclass(frozen=True)
class Entry:
    """One image of a source; `file` is what findings call it: the path from the data set's folder."""

    split: Split
    index: int
    path: Path
    file: str


@dataclass(frozen=True)
class Facts:
    """What was seen of one image. What could not be read is None."""

    entry: Entry
    problem: tuple[str, str] | None = None
    """(finding's code, detail)"""
    size: tuple[int, int] | None = None
    """(H, W)"""
    counts: np.ndarray | None = None
    """(256,) pixels of each mask value"""
    pixel_hash: str = ""
    """Equal for equal pixels; empty for an image of one colour, which is equal to others for no good reason."""
    thumbnail: np.ndarray | None = None


def entries(source: Source) -> list[Entry]:
    """All images of all splits, in order."""
    paths = {name: [split.path(index) for index in range(len(split))] for name, split in source.splits.items()}
    parents = {str(path.parent) for group in paths.values() for path in group}
    if not parents:
        return []
    root = os.path.commonpath(parents)
    if len(parents) == 1:  # one folder: say its name, too
        root = os.path.dirname(root)
    return [
        Entry(source.splits[name], index, path, Path(os.path.relpath(path, root)).as_posix())
        for name, group in paths.items()
        for index, path in enumerate(group)
    ]


def measure(found: list[Entry], look: Callable[[Entry], Facts], progress: Progress | None = None) -> Iterator[Facts]:
    """The facts of each entry, in order; several images are read at a time."""
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for done, facts in enumerate(pool.map(look, found), start=1):
            if progress is not None:
                progress(done, len(found))
            yield facts


def header(entry: Entry) -> Facts:
    """The size alone."""
    try:
        return Facts(entry, size=image_size(entry.path))
    except SegwrightError as error:
        return Facts(entry, ("unreadable-image", str(error)))


def labels(entry: Entry) -> Facts:
    """Size and mask, without reading the image."""
    facts = header(entry)
    try:
        return Facts(entry, facts.problem, facts.size, _counts(entry.split.mask(entry.index)))
    except SegwrightError as error:
        return Facts(entry, facts.problem or ("unreadable-mask", str(error)), facts.size)


def pixels(entry: Entry) -> Facts:
    """Everything."""
    try:
        image = entry.split.image(entry.index)
    except SegwrightError as error:
        return Facts(entry, ("unreadable-image", str(error)))
    size = (image.shape[0], image.shape[1])
    digest = "" if image.min() == image.max() else hashlib.sha256(str(size).encode() + image.tobytes()).hexdigest()
    try:
        mask = entry.split.mask(entry.index)
    except SegwrightError as error:
        return Facts(entry, ("unreadable-mask", str(error)), size, None, digest, thumbnail(image))
    problem = None
    if mask.shape != size:
        problem = "mask-size", f"image {size[1]} x {size[0]}, mask {mask.shape[1]} x {mask.shape[0]}"
    return Facts(entry, problem, size, _counts(mask), digest, thumbnail(image))


def _counts(mask: np.ndarray) -> np.ndarray:
    return np.bincount(mask.ravel(), minlength=256)
