"""Long thin things and their distance fields: the depth in px inside a painted line, negative outside.

Points are (row, column) in pixels; angles are radians, 0 to the right and pi/2 downwards.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from segwright.painting.fields import Rng, Size


class Line(NamedTuple):
    """Something long and thin."""

    points: np.ndarray
    """(N, 2), about a pixel apart."""
    width_px: np.ndarray
    """(N,)"""
    strength: np.ndarray
    """(N,) how much of the ground's tone it takes away, 0 to 1."""


def along(rng: Rng, count: int, every: float) -> np.ndarray:
    """(count,) noise of deviation below 1, straight between knots `every` points apart."""
    knots = rng.standard_normal(int(count / every) + 3)
    return np.interp(np.arange(count) / every, np.arange(len(knots)), knots)


def distance(lines: Sequence[Line], size: Size) -> tuple[np.ndarray, np.ndarray]:
    """(distance field, strength of the nearest line), both (H, W): discs set along the lines."""
    field, strength = np.full(size, -9.0), np.zeros(size)
    for line in lines:
        for (row, column), radius, power in zip(line.points, line.width_px / 2, line.strength, strict=True):
            reach = radius + 2
            top, left = max(int(row - reach), 0), max(int(column - reach), 0)
            part = np.s_[top : max(int(row + reach) + 2, 0), left : max(int(column + reach) + 2, 0)]
            rows, columns = np.ogrid[: field[part].shape[0], : field[part].shape[1]]
            inside = radius - np.sqrt((rows + (top - row)) ** 2 + (columns + (left - column)) ** 2)
            nearer = inside > field[part]
            field[part][nearer] = inside[nearer]
            strength[part][nearer] = power
    return field, strength


def across(rng: Rng, size: Size, angle: float, bend: float, width_px: float, strength: float) -> Line:
    """A straight or evenly bent line through the picture, of one width and darkness."""
    count = int(1.5 * np.hypot(*size))
    heading = angle + bend * np.linspace(-0.5, 0.5, count)
    points = np.cumsum(np.stack([np.sin(heading), np.cos(heading)], -1), 0)
    points += np.array(size) * rng.uniform(0.15, 0.85, 2) - points[count // 2]
    return Line(points, np.full(count, width_px), np.full(count, strength))
