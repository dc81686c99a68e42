"""Every image decoded once, into one block of uint8 that all processes share.

The block is a file in a cache folder, mapped into memory: the operating system keeps one copy of its pages for all
workers and ranks of a machine, and the next run maps the same file instead of decoding again. `ram` reads all of it at
the start, `disk` leaves that to use. Its name holds a hash of the content of every image and annotation file and of
everything else that decides the pixels, so it cannot be stale.

A preloaded training split holds image and mask at the training size. Augmentation that leaves the scale alone, and any
augmentation of images that have the training size already, gives what it gives without preloading, bit for bit. A
random enlargement enlarges the resized copy, not the original: photographs that are much larger than `input.size` lose
the detail that a crop of the original would have shown. A split for evaluation keeps its masks at the images' own size.
"""

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from segwright.ahead import cores
from segwright.data.batches import Config, read_pair
from segwright.data.block import Layout, available_bytes, locked, open_block, warm, write_block
from segwright.data.fingerprint import content_hash, place_hash
from segwright.data.own_sizes import own_size
from segwright.datasets.base import Split, group_of
from segwright.errors import DataError, SegwrightError
from segwright.images import alone_if_large
from segwright.progress import bar
from segwright.transforms import Size, resize_image, resize_mask

log = logging.getLogger("segwright")

SHARE = 0.9
"""Of the memory that is free a block may take so much."""
SUFFIX = ".uint8"

T = TypeVar("T")


class Preloaded:
    """A split whose pixels lie in a block; all else is asked of the split that was decoded. A pickle of it holds no
    pixels: who unpickles it maps the block again."""

    own_sizes = True
    """Image and mask may differ in size: an image at the network's size has its mask at its own."""

    def __init__(self, split: Split, path: Path, layout: Layout) -> None:
        self._split, self._path, self._layout = split, path, layout
        self._block = open_block(path)

    @property
    def name(self) -> str:
        return self._split.name

    def __len__(self) -> int:
        return len(self._split)

    def path(self, index: int) -> Path:
        """The image's file."""
        return self._split.path(index)

    def annotation(self, index: int) -> Path:
        """The file that the mask comes from."""
        return self._split.annotation(index)

    def group(self, index: int) -> str:
        """What the image belongs with where results are told apart."""
        return group_of(self._split, index)

    def image(self, index: int) -> np.ndarray:
        """(h, w, 3) uint8 at the block's size: a view, no copy."""
        return self._layout.image(self._block, index)

    def mask(self, index: int) -> np.ndarray:
        """(h, w) uint8: a view, no copy."""
        return self._layout.mask(self._block, index)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_block": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state | {"_block": open_block(state["_path"])}


def preloaded(config: Config, split: Split, identity: Any, own_masks: bool = False) -> Split:
    """The split as `config.preload` wants it; as it is where nothing is to be preloaded or no room is left.

    Args:
        identity: plain values that decide how files become pixels, besides the files: the reader's configuration.
        own_masks: keep the masks at the images' own size, as evaluation needs them.

    Raises:
        DataError: a file that cannot be read.
    """
    if config.preload in (None, "none"):
        return split
    start_s = time.perf_counter()
    folder, size = cache_folder(config.cache), config.pixels()
    try:
        with locked(folder):
            path, layout, decoded = _find_or_write(split, folder, size, own_masks, identity)
    except (OSError, SegwrightError) as error:
        if isinstance(error, DataError):
            raise
        log.warning("preload: %s is not preloaded, its images are decoded as they are needed: %s", split.name, error)
        return split
    if config.preload == "ram" and _fits(split.name, layout.nbytes):
        warm(path)
    elapsed_s = time.perf_counter() - start_s
    what = f"decoded in {elapsed_s:.1f} s" if decoded else f"found after {elapsed_s:.1f} s"
    rate, gigabytes = len(split) / elapsed_s, layout.nbytes / 1e9
    log.info(
        "preload: %d images of %s, %.2f GB, %s (%.0f images/s): %s", len(split), split.name, gigabytes, what, rate, path
    )
    return Preloaded(split, path, layout)


def cache_folder(given: str | None) -> Path:
    """`input.cache`, else $SEGWRIGHT_CACHE, else segwright in the user's cache folder."""
    if given or os.environ.get("SEGWRIGHT_CACHE"):
        return Path(given or os.environ["SEGWRIGHT_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segwright"


def _fits(name: str, nbytes: int) -> bool:
    """Whether the block fits into memory; says so where it does not."""
    free = available_bytes()
    if free is None or nbytes <= SHARE * free:
        return True
    log.warning(
        "preload: %s takes %.2f GB, but %.2f GB of memory are free; it is left on the disk, as with "
        "input.preload=disk. Lower input.size, or ask for more memory",
        name,
        nbytes / 1e9,
        free / 1e9,
    )
    return False


def _find_or_write(
    split: Split, folder: Path, size: Size | None, own_masks: bool, identity: Any
) -> tuple[Path, Layout, bool]:
    """The block's file, its layout, and whether it had to be made."""
    threads = cores()
    stem = f"{split.name}-{place_hash(split, size, own_masks, identity)}"
    path = folder / f"{stem}-{content_hash(split, threads)}{SUFFIX}"
    layout = _layout(split, size, own_masks, threads)
    if path.exists() and path.stat().st_size == layout.nbytes:
        return path, layout, False
    write_block(path, layout.nbytes, lambda block: _decode(split, block, layout, threads))
    for outdated in set(folder.glob(f"{stem}-*{SUFFIX}")) - {path}:
        outdated.unlink(missing_ok=True)  # of the same files, before they were changed
    return path, layout, True


def _layout(split: Split, size: Size | None, own_masks: bool, threads: int) -> Layout:
    own: list[Size] = []
    if size is None or own_masks:
        own = _parallel(lambda index: own_size(split, index), len(split), threads, f"sizes of {split.name}")
    fixed = [size] * len(split) if size else own
    return Layout.of(fixed, own if own_masks else fixed)


def _decode(split: Split, block: np.ndarray, layout: Layout, threads: int) -> None:
    def one(index: int) -> None:
        try:
            image, mask = read_pair(split, index)
        except OSError as error:  # else it would be taken for an error of writing the block
            raise DataError(f"{split.path(index)} or its mask cannot be read: {error}. Replace it.") from error
        into = layout.image(block, index), layout.mask(block, index)
        pixels = resize_image(image.contiguous(), into[0].shape[:2]).permute(1, 2, 0).numpy()
        ids = resize_mask(mask, into[1].shape).numpy()
        into[0][:], into[1][:] = pixels, ids

    def alone(index: int) -> None:
        with alone_if_large(split.path(index)):
            one(index)

    _parallel(alone, len(split), threads, f"preload {split.name}")


def _parallel(work: Callable[[int], T], count: int, threads: int, title: str) -> list[T]:
    """`work` of every index below `count`, in order, with a bar. Decoders and resizes leave the interpreter alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # one image a thread, not every thread all cores
    results = []
    try:
        with ThreadPoolExecutor(threads) as pool, bar(title, count) as progress:
            for result in pool.map(work, range(count)):
                results.append(result)
                progress.advance()
    finally:
        torch.set_num_threads(before)
    return results
