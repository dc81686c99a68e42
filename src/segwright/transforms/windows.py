"""Where a training sample is cut out of an image.

Shapes: mask (H, W) uint8 with 255 = ignored. A window may be larger than the image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from segwright.datasets.base import IGNORE
from segwright.large import value_counts
from segwright.transforms.config import Config
from segwright.transforms.sizes import Size


class Window(NamedTuple):
    """A rectangle of an image's own pixels; parts of it may lie outside."""

    top: int
    left: int
    height: int
    width: int


def draw_window(mask: np.ndarray, size: Size, rng: np.random.Generator, config: Config) -> Window:
    """Top left of the window of `size`: near a pixel of a drawn class, else anywhere that wastes nothing."""
    if config.rare and rng.random() < config.rare:
        near = _pixel_of_a_class(mask, rng)
        if near is not None:
            return _around(near, mask.shape, size, rng)
    if rng.random() < config.foreground:
        near = _pixel(mask, np.flatnonzero((mask != 0) & (mask != IGNORE)), rng)
        if near is not None:
            return _around(near, mask.shape, size, rng)
    slack = [mask.shape[i] - size[i] for i in (0, 1)]
    top, left = (int(rng.integers(min(s, 0), max(s, 0) + 1)) for s in slack)
    return Window(top, left, *size)


def visible(window: Window, have: Size) -> Window:
    """The window's part that lies in an image of size `have`."""
    top, left = max(window.top, 0), max(window.left, 0)
    bottom, right = min(window.top + window.height, have[0]), min(window.left + window.width, have[1])
    return Window(top, left, bottom - top, right - left)


def _pixel_of_a_class(mask: np.ndarray, rng: np.random.Generator) -> tuple[int, int] | None:
    present = np.flatnonzero(value_counts(mask)[:IGNORE])
    if not len(present):
        return None
    chosen = rng.choice(present)
    return _pixel(mask, np.flatnonzero(mask == chosen), rng)


def _pixel(mask: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> tuple[int, int] | None:
    """(row, column) of one of the flat `places`; None where there are none."""
    if not len(places):
        return None
    row, column = divmod(int(places[int(rng.integers(len(places)))]), mask.shape[1])
    return row, column


def _around(near: tuple[int, int], have: Sequence[int], size: Size, rng: np.random.Generator) -> Window:
    """A window with the pixel in its middle half, inside the image where it fits."""
    shift = (rng.uniform(0.25, 0.75) * size[0], rng.uniform(0.25, 0.75) * size[1])
    top, left = (_clip(round(near[i] - shift[i]), size[i], have[i]) for i in (0, 1))
    return Window(top, left, *size)


def _clip(corner: int, window: int, have: int) -> int:
    """A corner that keeps the window inside the image where it fits."""
    return max(min(corner, have - window), 0) if window <= have else max(min(corner, 0), have - window)
