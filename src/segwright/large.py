"""Large images: how many are held at a time, and going over one by strips, so that what is made of it stays small.

H x W is an image's height and width in pixels. ARTeFACT's largest image has 244 million pixels: 0.7 GB as RGB, and 2 GB
more with 8 bytes for each pixel, which is what NumPy's bincount makes of a mask.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from threading import Lock

import numpy as np

LARGE_PX = 32_000_000
"""Images from here on are worked on one at a time: each fills some hundred megabytes."""
STRIP_PX = 1 << 18
"""Pixels of a strip, at least one row; what is computed from them stays in the processor's cache."""

_one_large = Lock()


def alone(size: tuple[int, int] | None) -> AbstractContextManager[object]:
    """A context that one thread at a time is in with an image (H, W) above `LARGE_PX`; none waits with a smaller one,
    or with one whose size is not known. A thread that is in it must not enter it again."""
    return _one_large if size is not None and is_large(size) else nullcontext()


def is_large(size: tuple[int, int]) -> bool:
    """Whether an image (H, W) is to be worked on alone."""
    return size[0] * size[1] > LARGE_PX


def strips(shape: tuple[int, ...]) -> Iterator[slice]:
    """The rows of (H, W, ...), in order, by strips."""
    rows = max(1, STRIP_PX // max(shape[1], 1))
    for start in range(0, shape[0], rows):
        yield slice(start, start + rows)


def value_counts(ids: np.ndarray) -> np.ndarray:
    """(H, W) uint8 -> (256,) int64, the pixels of each value."""
    counts = np.zeros(256, np.int64)
    for rows in strips(ids.shape):
        counts += np.bincount(ids[rows].ravel(), minlength=256)
    return counts
