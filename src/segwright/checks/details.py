"""Details of pictures: what is left when light and contrast around each pixel are taken out; and sums over squares.

Shapes: N pictures of h x w pixels.
"""

import numpy as np

FLAT = 2.0
"""Grey levels: spread below this is taken for noise and damped."""


def turned(images: np.ndarray, turn: int) -> np.ndarray:
    """(..., h, w) in one of the eight positions: bits 0 and 1 quarter turns, bit 2 mirrored first."""
    mirrored = images[..., ::-1] if turn & 4 else images
    return np.ascontiguousarray(np.rot90(mirrored, turn & 3, axes=(-2, -1)))


def mean_around(images: np.ndarray, radius: int) -> np.ndarray:
    """(..., h, w), the mean over a square around each pixel, mirrored at the border."""
    width = 2 * radius + 1
    around = [(0, 0)] * (images.ndim - 2) + [(radius, radius)] * 2
    return boxes(integral(np.pad(images, around, mode="reflect")), width) / width**2


def integral(images: np.ndarray) -> np.ndarray:
    """(..., h, w) -> (..., h + 1, w + 1): the sum of all above and to the left."""
    ahead = [(0, 0)] * (images.ndim - 2) + [(1, 0)] * 2
    return np.pad(images.cumsum(-2).cumsum(-1), ahead)


def boxes(integral: np.ndarray, side: int) -> np.ndarray:
    """The sum in each square."""
    upper, lower = integral[..., :-side, :], integral[..., side:, :]
    return lower[..., side:] - upper[..., side:] - lower[..., :-side] + upper[..., :-side]


def normalised(images: np.ndarray, radius: int) -> np.ndarray:
    """(..., h, w) details: light and contrast around each pixel taken out."""
    values = images.astype(np.float64)
    values = values - mean_around(values, radius)
    return (values / np.sqrt(mean_around(values**2, radius) + FLAT**2)).astype(np.float32)


def detail(image: np.ndarray) -> float:
    values = image.astype(np.float64)
    return float((values - mean_around(values, 4)).std())


def unit(images: np.ndarray) -> np.ndarray:
    """(N, h, w) -> (N, h * w), each of length 1, so that a product is a correlation."""
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
