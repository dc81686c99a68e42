"""What `segwright infer` reads and writes of one image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segwright.drawing.overlays import overlay
from segwright.drawing.page import jpeg
from segwright.errors import SegwrightError
from segwright.images import read_image, reason_of
from segwright.large import value_counts
from segwright.png import PREDICTED, write_png
from segwright.verbs.infer_names import stop_on_long_name

Masks = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Mask (H, W) uint8 and colours (K, 4) uint8 of the classes, under "", and of a tree's upper levels, under their names.
"""
THUMBNAIL_PX = 480


@dataclass(frozen=True)
class Written:
    """What was written of one image."""

    mask: Path
    """The classes' mask."""
    counts: np.ndarray
    """(K,) int64, its pixels of each class; of one class (2,), without and with it."""
    thumbnail: bytes
    """The overlay as a small JPEG; empty where none was asked for."""
    brightest: int
    """The photograph's highest value."""


class NotPredicted(SegwrightError):
    """One image among many that cannot be read or predicted."""


def endings(levels: Sequence[str]) -> list[str]:
    """What follows an image's name in the names of its pictures, the longest last; `levels`: a tree's upper ones."""
    return sorted((level + kind for level in ["", *(f"_{name}" for name in levels)] for kind in PREDICTED), key=len)


def read_photograph(path: Path, stem: Path, levels: Sequence[str]) -> np.ndarray:
    """The image (H, W, 3), if its pictures' names, made of `stem`, are not too long. Raises `NotPredicted`."""
    try:
        stop_on_long_name(stem.name + endings(levels)[-1])
        return read_image(path)
    except SegwrightError as error:
        raise NotPredicted(
            f"{path} is no image that can be read: {reason_of(error, path)}. Give a whole PNG or JPEG."
        ) from None
    except MemoryError:
        raise too_large(path) from None


def too_large(path: Path) -> NotPredicted:
    """What is said of an image for which there is not the memory."""
    return NotPredicted(f"{path} does not fit into memory. Shrink it, or set input.size.")


def write_pictures(
    path: Path, image: np.ndarray, masks: Masks, stem: Path, binary: bool, thumbnail: bool = False
) -> Written:
    """Masks and overlays of the image (H, W, 3) uint8, which was read from `path`. Raises `NotPredicted`."""
    try:
        return _pictures(image, masks, stem, binary, thumbnail)
    except MemoryError:
        raise too_large(path) from None


def _pictures(image: np.ndarray, masks: Masks, stem: Path, binary: bool, thumbnail: bool) -> Written:
    small = b""
    for level, (mask, colours) in masks.items():
        named = f"{stem.name}_{level}" if level else stem.name
        palette = None if binary else colours[:, :3]
        write_png(stem.with_name(named + "_mask.png"), mask * 255 if binary else mask, palette, prediction=True)
        laid = overlay(image, mask, colours)
        write_png(stem.with_name(named + "_overlay.png"), laid, quick=True, prediction=True)
        if thumbnail and not level:
            small = jpeg(laid, THUMBNAIL_PX)
    mask, colours = masks[""]
    return Written(stem.with_name(stem.name + "_mask.png"), value_counts(mask)[: len(colours)], small, int(image.max()))
