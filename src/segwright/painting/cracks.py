"""Cracks as branching random walks of varying width and darkness."""

import numpy as np

from segwright.painting.fields import Rng, Size, engrave, ramp, texture
from segwright.painting.lines import Line, along, distance


def add_cracks(rng: Rng, scene: np.ndarray, light: float) -> tuple[np.ndarray, np.ndarray]:
    """(scene, mask (H, W) bool): one to three cracks with their branches, a little ragged."""
    size = scene.shape[:2]
    lines: list[Line] = []
    for _ in range(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1])):
        lines += _crack(rng, size)
    field, strength = distance(lines, size)
    field += 0.35 * texture(rng, size, 2.5, 2)
    strength *= 0.82 + 0.18 * ramp(field, 0, 2)  # deeper where it is wider
    return engrave(scene, ramp(field, -0.5, 0.5) * strength, light), field >= 0


def _crack(rng: Rng, size: Size) -> list[Line]:
    """A trunk from anywhere near the border towards the other side, and what branches off it."""
    heading = rng.uniform(0, 2 * np.pi)
    towards = np.array([np.sin(heading), np.cos(heading)])
    start = np.array(size) * (rng.uniform(0.3, 0.7, 2) - 0.55 * towards)
    length = np.hypot(*size) * rng.uniform(0.5, 1.2)
    trunk = _walk(rng, start, heading, length, rng.uniform(2.2, 5.5), rng.uniform(0.45, 0.85))
    thin = np.clip(trunk.width_px * np.minimum(1, np.linspace(0, 6, len(trunk.points))) ** 0.5, 1.5, None)
    trunk = trunk._replace(width_px=thin)
    return [trunk, *_branches(rng, trunk, rng.poisson(length / 120))]


def _branches(rng: Rng, trunk: Line, count: int) -> list[Line]:
    lines = []
    for at in rng.integers(len(trunk.points) // 8, len(trunk.points) * 7 // 8, count):
        back = trunk.points[at] - trunk.points[at - 5]
        heading = np.arctan2(*back) + rng.choice([-1, 1]) * rng.uniform(0.45, 1.3)
        length = len(trunk.points) * rng.uniform(0.12, 0.4)
        width = max(trunk.width_px[at] * rng.uniform(0.5, 0.85), 1.8)
        branch = _walk(rng, trunk.points[at], heading, length, width, trunk.strength[at] * rng.uniform(0.8, 1))
        lines += [branch, *_branches(rng, branch, rng.poisson(length / 250))]
    return lines


def _walk(rng: Rng, start: np.ndarray, heading: float, length_px: float, width_px: float, strength: float) -> Line:
    """A random walk that keeps its general heading: wide bends, and kinks every few pixels; it thins out at its end."""
    count = max(int(length_px), 8)
    kinks = np.repeat(rng.normal(0, 0.55, count), rng.geometric(1 / 7, count))[:count]
    angle = heading + 0.3 * along(rng, count, 60) + kinks
    points = start + np.cumsum(np.stack([np.sin(angle), np.cos(angle)], -1), 0)
    taper = np.minimum(1, np.linspace(4, 0, count)) ** 0.5
    width = np.clip(width_px * (1 + 0.25 * along(rng, count, 12)) * taper, 1.5, 6.5)
    return Line(points, width, np.clip(strength * (1 + 0.15 * along(rng, count, 25)), 0.35, 0.92))
