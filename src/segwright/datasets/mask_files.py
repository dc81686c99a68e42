"""Masks in image files: class ids as stored, colours that stand for classes, black and white.

H x W is the mask's size in pixels after its own EXIF orientation is applied. K is the number of listed colours.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from segwright.datasets.base import IGNORE
from segwright.errors import DataError
from segwright.images import Picture, decoded, read_image, rgb
from segwright.large import value_counts

LOSSY = (".jpeg", ".jpg", ".webp")
"""Endings of files whose pixels may have changed when they were written."""
WHITE_FROM = 128
"""Grey level from which a pixel of a black and white mask is white."""
_UNKNOWN = 255
_STRIP_PX = 1 << 18
"""Pixels looked up at a time; their colours and codes stay in the processor's cache."""


def read_values(path: str | Path) -> np.ndarray:
    """The stored values, (H, W) uint8, uint16 or int32.

    Grey: the grey levels as stored, whatever their depth (0 and 1 of 1 bit, 0 to 3 of 2 bits); a palette image: the
    palette's indices; an RGB image whose channels are equal: one of them. Transparency is dropped.

    `DataError`, naming the file, if it cannot be read, or holds colours or fractions.
    """
    return decoded(path, _values)


def read_indices(path: str | Path) -> np.ndarray:
    """The class ids that a file stores, (H, W) uint8; kinds of files and errors as `read_values`.

    `DataError` also where a value is above 255 (16-bit files) or below 0.
    """
    values = read_values(path)
    if values.dtype == np.uint8:
        return values
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 255:
        raise DataError(
            f"{path} holds values from {low} to {high}; class ids are 0 to 254, and 255 is ignored. "
            "Renumber them, or list the classes with their values."
        )
    return values.astype(np.uint8)


def read_ids(path: str | Path, classes: int, ignored: tuple[int, ...] = (IGNORE,)) -> np.ndarray:
    """Class ids from 0 to `classes` - 1 as a file stores them, (H, W) uint8; values of `ignored` become 255.

    `DataError`, naming the file, as `read_indices`, and where a value is neither.
    """
    ids = read_indices(path)
    present = np.flatnonzero(value_counts(ids)).tolist()
    unknown = [value for value in present if value >= classes and value not in ignored]
    if unknown:
        listed = ", ".join(map(str, unknown[:10])) + (", ..." if len(unknown) > 10 else "")
        spared = ", ".join(map(str, ignored)) or "none"
        raise DataError(
            f"{path} holds values that stand for no class: {listed}. Classes are 0 to {classes - 1}; ignored: {spared}."
            " Mend the mask, or list these classes where the data set lists its own."
        )
    for value in ignored:
        if value in present:
            ids[ids == value] = IGNORE
    return ids


def read_binary(path: str | Path, ignored: Sequence[int] = ()) -> tuple[np.ndarray, float]:
    """A black and white mask: (H, W) uint8, 1 where it is white, and the share of pixels that were neither.

    In between (JPEG noise, smooth edges) the nearer of the two counts. Grey levels in `ignored` become 255. Colours
    become grey first. `DataError` as `read_image`.
    """
    grey = decoded(path, _grey)
    mask = (grey >= WHITE_FROM).astype(np.uint8)
    mask[np.isin(grey, ignored)] = IGNORE
    return mask, ((grey != 0) & (grey != 255) & (mask != IGNORE)).mean().item()


def read_colours(path: str | Path, colours: np.ndarray) -> tuple[np.ndarray, float]:
    """The nearest listed colour of each pixel: (H, W) uint8, positions in `colours`, and the share of pixels that were
    not exactly a listed colour.

    `colours`: (K, 3) RGB, K from 1 to 255, values 0 to 255. Near in the sense of Euclid in RGB; the first of several.
    `DataError` as `read_image`.
    """
    return nearest_colours(read_image(path), colours)


def nearest_colours(pixels: np.ndarray, colours: np.ndarray) -> tuple[np.ndarray, float]:
    """As `read_colours`, of (H, W, 3) uint8 RGB."""
    palette = np.asarray(colours)
    assert palette.shape[1:] == (3,), palette.shape
    assert 1 <= len(palette) <= _UNKNOWN, len(palette)
    assert np.isin(palette, range(256)).all(), palette
    palette = palette.astype(np.uint8)
    known = _Known.of(palette.tobytes())
    flat = pixels.reshape(-1, 3)
    places = np.empty(len(flat), np.uint8)
    inexact = 0
    for start in range(0, len(flat), _STRIP_PX):
        codes = packed(flat[start : start + _STRIP_PX])
        found = known.places(codes)
        places[start : start + _STRIP_PX] = found
        inexact += int(np.count_nonzero(known.codes[found] != codes))
    return places.reshape(pixels.shape[:2]), inexact / max(len(flat), 1)


def packed(pixels: np.ndarray) -> np.ndarray:
    """(..., 3) uint8 RGB -> (...) int32, 0xRRGGBB."""
    wide = pixels.astype(np.int32)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


def unpacked(codes: np.ndarray) -> np.ndarray:
    """(...) 0xRRGGBB -> (..., 3) uint8 RGB."""
    return np.stack([codes >> 16 & 255, codes >> 8 & 255, codes & 255], axis=-1).astype(np.uint8)


class _Known:
    """Which listed colour is nearest to each of the 16.8 million; worked out when a colour is first met."""

    def __init__(self, palette: np.ndarray) -> None:
        self.codes = packed(palette)
        self._palette = palette.astype(np.float32)
        self._table = np.full(1 << 24, _UNKNOWN, np.uint8)
        self._table[self.codes[::-1]] = np.arange(len(palette), dtype=np.uint8)[::-1]  # the first of equal ones stays

    @staticmethod
    @lru_cache(maxsize=2)
    def of(palette: bytes) -> "_Known":
        """One table of 16 MB a palette."""
        return _Known(np.frombuffer(palette, np.uint8).reshape(-1, 3))

    def places(self, codes: np.ndarray) -> np.ndarray:
        """(N,) 0xRRGGBB -> (N,) positions in the palette."""
        found = self._table[codes]
        new = found == _UNKNOWN
        if new.any():
            fresh = np.unique(codes[new])
            for part in np.array_split(fresh, len(fresh) // 65536 + 1):
                self._table[part] = self._nearest(unpacked(part).astype(np.float32))
            found = self._table[codes]
        return found

    def _nearest(self, pixels: np.ndarray) -> np.ndarray:
        """|p - c|^2 without |p|^2, which is the same for all c; whole numbers below 2^24, so float32 is exact."""
        distances = (self._palette**2).sum(1) - 2 * pixels @ self._palette.T
        return distances.argmin(1).astype(np.uint8)


def _values(picture: Picture) -> np.ndarray:
    image = picture.image
    stored = np.asarray(image)
    if image.mode == "L" and picture.bits in (2, 4):
        return stored // (255 // (2**picture.bits - 1))  # Pillow spread them over 0 to 255
    if image.mode in ("LA", "La", "PA"):
        stored = stored[..., 0]
    if stored.dtype == bool:
        return stored.astype(np.uint8)
    if stored.ndim == 3:
        return _one_channel(picture.colours() if image.mode in ("RGB", "RGBA") else rgb(picture))
    if np.issubdtype(stored.dtype, np.floating):
        return _whole(stored)
    return stored.astype(stored.dtype.newbyteorder("="))


def _one_channel(pixels: np.ndarray) -> np.ndarray:
    if (pixels[..., :1] != pixels[..., 1:]).any():
        raise ValueError("it holds colours, not class ids; list the classes with their colours")
    return pixels[..., 0]


def _whole(values: np.ndarray) -> np.ndarray:
    ids = np.rint(values)
    if not np.array_equal(ids, values) or np.abs(ids).max() > 2**31 - 1:
        raise ValueError("it holds fractions, not class ids")
    return ids.astype(np.int32)


def _grey(picture: Picture) -> np.ndarray:
    if picture.image.mode == "L":
        return np.asarray(picture.image)
    return np.asarray(Image.fromarray(rgb(picture)).convert("L"))
