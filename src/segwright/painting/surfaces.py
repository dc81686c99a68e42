"""The grounds that cracks run through: (generator, size) -> scene (H, W, 3) float."""

import numpy as np

from segwright.painting.fields import Rng, Size, blur, ramp, relief, texture

# Surfaces: (H, W, 3) each


def _tinted(rng: Rng, tone: np.ndarray, spread: float, warmth: float = 0.0) -> np.ndarray:
    """A grey field with the ground's own colour and a little colour noise."""
    cast = 1 + warmth * np.array([1, 0.1, -1.1]) + rng.normal(0, spread, 3)
    chroma = 0.007 * texture(rng, tone.shape, 3, 2)[..., None] * rng.normal(0, 1, 3)
    return tone[..., None] * cast + chroma * tone[..., None]


def _asphalt(rng: Rng, size: Size, light: float) -> np.ndarray:
    stones = texture(rng, size, rng.uniform(1.6, 3.0), 3)
    tone = rng.uniform(0.36, 0.52) + 0.02 * texture(rng, size, 120, 2)
    tone += rng.uniform(0.03, 0.06) * relief(stones, light) / 0.6
    tone += 0.15 * ramp(stones, 1.5, 2.6) - 0.14 * ramp(texture(rng, size, 2, 3), 1.6, 2.8)
    return _tinted(rng, tone + 0.018 * rng.standard_normal(size), 0.01, rng.uniform(-0.03, 0.04))


def _concrete(rng: Rng, size: Size, light: float) -> np.ndarray:
    tone = rng.uniform(0.5, 0.7) + 0.035 * texture(rng, size, 90, 2.2) + 0.018 * texture(rng, size, 14, 1.5)
    tone += 0.012 * relief(texture(rng, size, 3, 2), light)
    tone -= rng.uniform(0.1, 0.3) * ramp(texture(rng, size, 3.5, 4), 2.7, 3.2)
    return _tinted(rng, tone, 0.01, rng.uniform(-0.02, 0.05))


def _plaster(rng: Rng, size: Size, light: float) -> np.ndarray:
    tone = rng.uniform(0.66, 0.86) + 0.02 * texture(rng, size, 110, 2.5)
    tone += rng.uniform(0.015, 0.04) * relief(texture(rng, size, rng.uniform(4, 9), 2.2), light) / 0.5
    return _tinted(rng, tone, 0.02, rng.uniform(0.0, 0.14))


def _pebbles(rng: Rng, size: Size, light: float) -> np.ndarray:
    """Washed concrete: flat stones of many tones in rough mortar, one to each cell of a jittered lattice."""
    step = rng.uniform(7, 12)
    shape = (int(size[0] / step) + 6, int(size[1] / step) + 6)
    centres = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) + rng.uniform(-0.45, 0.45, (*shape, 2))
    radius, tones = rng.uniform(0.2, 0.6, shape), rng.normal(0, 0.075, shape)
    where = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1) / step + 2
    where += 0.16 * np.stack([texture(rng, size, step, 2), texture(rng, size, step, 2)], -1)
    height, tone = np.full(size, -1.0), np.zeros(size)
    for offset in np.ndindex(3, 3):
        cell = tuple(np.clip(np.round(where).astype(int) + offset - 1, 0, np.array(shape) - 1).transpose(2, 0, 1))
        inside = radius[cell] - np.hypot(*(where - centres[cell]).transpose(2, 0, 1))
        tone = np.where(inside > height, tones[cell], tone)
        height = np.maximum(height, inside)
    stone = ramp(height, -0.02, 0.1)
    mortar = -0.04 + 0.03 * texture(rng, size, 2, 1.5)
    ground = rng.uniform(0.48, 0.62) + 0.025 * texture(rng, size, 60, 2) + 0.015 * texture(rng, size, 2, 1.5)
    tone = ground + stone * tone + (1 - stone) * mortar + 0.1 * relief(blur(stone, 0.7), light)
    return _tinted(rng, tone, 0.01, rng.uniform(0.0, 0.08))


SURFACES = (_asphalt, _concrete, _plaster, _pebbles)
