"""Looks once at each image and its mask and keeps what the checks need to know: about 5 kB an image.

H x W is an image's height and width in pixels after its EXIF orientation is applied.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from segwright.ahead import ahead, cores
from segwright.checks.damage import damage, incomplete
from segwright.checks.likeness import thumbnail
from segwright.datasets.base import Source, Split
from segwright.errors import DataError, SegwrightError
from segwright.images import IMAGE_SUFFIXES, Kind, image_kind, read_image, reason_of
from segwright.large import alone, value_counts

Progress = Callable[[int, int], None]
"""Is told how many images are done, and of how many."""

AHEAD = 64
"""Images that are handed to the readers before the first of them is asked for."""
SAMPLED_PX = 250
"""Where a look at a part is enough, so many pixels of each side are looked at."""
GREY_LEVELS = 6
SAME_GREYS = 12
"""Mean difference, in grey levels, up to which a mask's file shows the same picture as the image."""


@dataclass(frozen=True)
class Entry:
    """One image of a source. The names are what findings call the files: paths from the data set's folder."""

    split: Split
    index: int
    path: Path
    file: str
    mask_path: Path
    """The file that the mask comes from."""
    mask_file: str
    """The image's name where one file holds the masks of many."""

    @property
    def has_mask_file(self) -> bool:
        return self.mask_path.suffix.lower() in IMAGE_SUFFIXES


@dataclass(frozen=True, kw_only=True)
class MaskFacts:
    """What was seen of one mask."""

    shape: tuple[int, int]
    counts: np.ndarray
    """(256,) pixels of each value"""
    digest: str
    """Equal for equal masks."""
    steps: float
    """Share of steps from pixel to pixel that change the value."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was seen of one image. What could not be read, or was not looked at, is None."""

    entry: Entry
    problems: tuple[tuple[str, str, str], ...] = ()
    """(finding's code, file, detail)"""
    size: tuple[int, int] | None = None
    """(H, W)"""
    kind: Kind | None = None
    """What the file's header says; none where images do not lie in files of their own."""
    pixel_hash: str = ""
    """Equal for equal pixels; empty for an image of one colour, which is equal to others for no good reason."""
    thumbnail: np.ndarray | None = None
    grey: bool = False
    highest: int = 255
    """The largest value of any channel."""
    clear: float = 0.0
    """Share of the pixels that are more than half transparent."""
    mask: MaskFacts | None = None
    mask_size: tuple[int, int] | None = None
    """(H, W) of the mask; of one that was not read, by its file's header."""


def entries(source: Source) -> list[Entry]:
    """All images of all splits, in order."""
    found = [
        (split, index, split.path(index), split.annotation(index))
        for split in source.splits.values()
        for index in range(len(split))
    ]
    parents = {str(path.parent) for _, _, *paths in found for path in paths}
    if not parents:
        return []
    root = os.path.commonpath(parents)
    if len(parents) == 1:  # one folder: say its name, too
        root = os.path.dirname(root)
    return [_entry(split, index, path, mask, root) for split, index, path, mask in found]


def _entry(split: Split, index: int, path: Path, mask: Path, root: str) -> Entry:
    file = Path(os.path.relpath(path, root)).as_posix()
    own = mask.suffix.lower() in IMAGE_SUFFIXES
    return Entry(split, index, path, file, mask, Path(os.path.relpath(mask, root)).as_posix() if own else file)


def measure(found: list[Entry], look: Callable[[Entry], Facts], progress: Progress | None = None) -> Iterator[Facts]:
    """The facts of each entry, in order; several images are read at a time (Pillow and NumPy let threads run)."""
    with ThreadPoolExecutor(min(4, cores())) as pool:
        for done, facts in enumerate(ahead(pool, look, found, AHEAD), start=1):
            of_one = facts.result()
            if progress is not None:
                progress(done, len(found))
            yield of_one


def header(entry: Entry) -> Facts:
    """What the files' first and last bytes say; pixels only of files that seem cut off."""
    try:
        kind = _kind(entry.path)
        _whole(entry.path)
    except SegwrightError as error:
        return Facts(entry=entry, problems=(("unreadable-image", entry.file, reason_of(error, entry.path)),))
    size = kind.size if kind else None
    try:
        mask = _kind(entry.mask_path)
        if entry.has_mask_file:
            _whole(entry.mask_path)
    except SegwrightError as error:
        return Facts(
            entry=entry,
            problems=(("unreadable-mask", entry.mask_file, reason_of(error, entry.mask_path)),),
            size=size,
            kind=kind,
        )
    return Facts(entry=entry, size=size, kind=kind, mask_size=mask.size if mask else None)


def labels(entry: Entry) -> Facts:
    """Header and mask, without reading the image."""
    facts = header(entry)
    with alone(facts.mask_size or facts.size):
        mask, problems = _mask(entry)
    return replace(facts, problems=facts.problems or problems, mask=mask, mask_size=mask.shape if mask else None)


def pixels(entry: Entry) -> Facts:
    """Everything."""
    try:
        kind = _kind(entry.path)
        with alone(kind.size if kind else None):
            return _pixels(entry, kind)
    except SegwrightError as error:
        return Facts(entry=entry, problems=(("unreadable-image", entry.file, reason_of(error, entry.path)),))


def _pixels(entry: Entry, kind: Kind | None) -> Facts:
    image = entry.split.image(entry.index)
    mask, problems = _mask(entry)
    flaw = damage(entry.path, kind, image) if kind else ""
    if flaw:
        problems = (*problems, ("damaged-image", entry.file, flaw))
    return Facts(
        entry=entry,
        problems=problems,
        size=(image.shape[0], image.shape[1]),
        kind=kind,
        pixel_hash="" if is_blank(image) else _digest(image),
        thumbnail=thumbnail(image),
        grey=_is_grey(image),
        highest=int(image.max()),
        clear=_clear_share(entry.path) if kind and kind.transparency else 0.0,
        mask=mask,
        mask_size=mask.shape if mask else None,
    )


def _kind(path: Path) -> Kind | None:
    """None where the image is part of a larger file, as in a table."""
    return image_kind(path) if path.suffix.lower() in IMAGE_SUFFIXES and path.exists() else None


def _mask(entry: Entry) -> tuple[MaskFacts | None, tuple[tuple[str, str, str], ...]]:
    try:
        mask = np.ascontiguousarray(entry.split.mask(entry.index))
    except SegwrightError as error:
        return None, (("unreadable-mask", entry.mask_file, reason_of(error, entry.mask_path)),)
    counts = value_counts(mask)
    steps = np.count_nonzero(mask[:, 1:] != mask[:, :-1]) / max(mask.shape[0] * (mask.shape[1] - 1), 1)
    return MaskFacts(shape=(mask.shape[0], mask.shape[1]), counts=counts, digest=_digest(mask), steps=steps), ()


def _digest(array: np.ndarray) -> str:
    digest = hashlib.sha256(str(array.shape[:2]).encode())
    digest.update(np.ascontiguousarray(array).data)  # by itself: joined with the words, it would be copied
    return digest.hexdigest()


def is_blank(image: np.ndarray) -> bool:
    """Whether (H, W, 3) is of one single colour."""
    return all(
        bool((part == image[0, 0]).all()) for part in (image[0], image[:, 0], image)
    )  # most end at the first row


def _is_grey(image: np.ndarray) -> bool:
    """Whether no channel differs from green by more than the noise of a JPEG file."""
    red, green, blue = np.moveaxis(_sampled(image).astype(np.int16), 2, 0)
    return bool(np.abs(red - green).max() <= GREY_LEVELS and np.abs(blue - green).max() <= GREY_LEVELS)


def _sampled(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array[:: max(1, array.shape[0] // SAMPLED_PX), :: max(1, array.shape[1] // SAMPLED_PX)])


def _clear_share(path: Path) -> float:
    """Reads the file again: images come without their transparency."""
    with Image.open(path) as image:
        return float((np.asarray(image.convert("RGBA").getchannel("A")) < 128).mean())


def mask_shows_image(entry: Entry) -> bool:
    """Whether the mask's file is a picture of what the image shows. Reads both again."""
    if not entry.has_mask_file:
        return False
    try:
        pictures = [entry.split.image(entry.index), read_image(entry.mask_path)]
    except DataError:
        return False
    a, b = (np.asarray(Image.fromarray(_sampled(one)).convert("L"), np.int16) for one in pictures)
    return bool(a.shape == b.shape and np.abs(a - b).mean() <= SAME_GREYS < a.std())


def _whole(path: Path) -> None:
    """Decodes a file that seems to lack its end. `DataError` if it does."""
    if path.is_file() and incomplete(path):
        read_image(path)
