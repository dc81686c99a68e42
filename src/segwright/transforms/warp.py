"""A window of an image, turned by any angle and brought to the network's size in one resampling. Uses OpenCV.

Shapes: image (H, W, 3) uint8, mask (H, W) uint8. Points are (x, y) with (0, 0) at the image's upper left corner, so
that the centre of the first pixel lies at (1/2, 1/2).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from segwright.datasets.base import IGNORE
from segwright.transforms.sizes import Size
from segwright.transforms.windows import Window, visible

# Samples are too small to gain by a second thread, and a pool of threads does not survive the fork of a worker.
cv2.setNumThreads(0)

MARGIN_PX = 2
"""Pixels of the network's size around what is seen: interpolation looks one pixel further."""


class Flips(NamedTuple):
    """Mirrorings: left becomes right, up becomes down."""

    across: bool
    down: bool

    def of(self, array: np.ndarray) -> np.ndarray:
        """The array (h, w, ...) mirrored."""
        if not any(self):
            return array
        return cv2.flip(array, -1 if all(self) else 1 if self.across else 0)


STILL = Flips(across=False, down=False)


def warp(
    image: np.ndarray,
    mask: np.ndarray,
    window: Window,
    degrees: float,
    out: Size,
    flips: Flips = STILL,
    fill: Sequence[int] | np.ndarray = (0, 0, 0),
) -> tuple[np.ndarray, np.ndarray]:
    """What an `out`-sized frame shows of the image when `window` fills it, it is turned about its centre and mirrored.

    The image is bilinear, the mask takes its nearest pixel; what lies outside is `fill`, (3,) uint8, and ignored. Where
    the frame is coarser than the image, the image is averaged first, so that thin lines fade instead of breaking.
    """
    matrix = frame_to_image(window, degrees, out, flips)
    box = _seen(matrix, window, out, (mask.shape[0], mask.shape[1]))
    if not box.height or not box.width:
        return np.broadcast_to(np.asarray(fill, np.uint8), (*out, 3)).copy(), np.full(out, IGNORE, np.uint8)
    image = image[box.top : box.top + box.height, box.left : box.left + box.width]
    mask = mask[box.top : box.top + box.height, box.left : box.left + box.width]
    moved = np.array([[1, 0, -box.left], [0, 1, -box.top], [0, 0, 1]]) @ matrix
    ids = cv2.warpAffine(mask, _centred(moved), out[::-1], flags=_NEAREST, borderValue=IGNORE)
    image, shrunk = _smoothed(image, (window.height / out[0], window.width / out[1]))
    four = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)  # four channels are turned in half of the time of three
    edge = [int(value) for value in fill]
    picture = cv2.warpAffine(four, _centred(shrunk @ moved), out[::-1], flags=_LINEAR, borderValue=edge)
    return cv2.cvtColor(picture, cv2.COLOR_RGBA2RGB), ids


_LINEAR = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
_NEAREST = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
_TO_POINT = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
_TO_INDEX = np.array([[1, 0, -0.5], [0, 1, -0.5]])


def frame_to_image(window: Window, degrees: float, out: Size, flips: Flips = STILL) -> np.ndarray:
    """(3, 3): a point of the frame -> the image's point that is seen there; positive angles turn the picture
    anticlockwise, and then it is mirrored."""
    height, width = out
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = (-1 if flip else 1 for flip in flips)
    to_centre = np.array([[x, 0, -x * width / 2], [0, y, -y * height / 2], [0, 0, 1]])
    turn = np.array([[cos, -sin, width / 2], [sin, cos, height / 2], [0, 0, 1]])
    zoom = np.array([[window.width / width, 0, window.left], [0, window.height / height, window.top], [0, 0, 1]])
    return zoom @ turn @ to_centre


def _centred(matrix: np.ndarray) -> np.ndarray:
    """(2, 3) as OpenCV wants it: pixel indices, whose centres lie half a pixel further."""
    return _TO_INDEX @ matrix @ _TO_POINT


def _seen(matrix: np.ndarray, window: Window, out: Size, have: Size) -> Window:
    """The part of the image that the turned frame covers, and a margin."""
    corners = matrix @ np.array([[0, out[1], 0, out[1]], [0, 0, out[0], out[0]], [1, 1, 1, 1]])
    margin_x, margin_y = (MARGIN_PX * max(1, window.width / out[1]), MARGIN_PX * max(1, window.height / out[0]))
    left, top = math.floor(corners[0].min() - margin_x), math.floor(corners[1].min() - margin_y)
    right, bottom = math.ceil(corners[0].max() + margin_x), math.ceil(corners[1].max() + margin_y)
    part = visible(Window(top, left, bottom - top, right - left), have)
    return Window(part.top, part.left, max(part.height, 0), max(part.width, 0))


def _smoothed(image: np.ndarray, steps: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """The image ready to be sampled at every `steps` (rows, columns) of its pixels, and its matrix (3, 3).

    Whole factors are averaged away; of the rest, r < 2, a kernel of three taps adds the variance (r^2 - 1) / 6 by which
    a bilinear kernel of width r exceeds one of width 1.
    """
    whole = [max(1, math.floor(step)) for step in steps]
    small = [max(1, round(have / n)) for have, n in zip(image.shape[:2], whole, strict=True)]
    scale = [small[i] / image.shape[i] for i in (0, 1)]
    if small != list(image.shape[:2]):
        image = cv2.resize(image, (small[1], small[0]), interpolation=cv2.INTER_AREA)
    variances = [max(0.0, ((step * s) ** 2 - 1) / 6) for step, s in zip(steps, scale, strict=True)]
    if max(variances) > 0:
        rows, columns = (_three_taps(variance) for variance in variances)
        image = cv2.sepFilter2D(image, -1, columns, rows, borderType=cv2.BORDER_REPLICATE)
    return image, np.diag([scale[1], scale[0], 1.0])


def _three_taps(variance: float) -> np.ndarray:
    """A kernel that sums to 1 and has this variance in px^2, below 1."""
    side = min(variance, 0.6) / 2
    return np.array([side, 1 - 2 * side, side], np.float32)
