"""Things that are dark and thin, or bright, or in the way, and no cracks: (generator, scene, light) -> scene."""

import numpy as np

from segwright.painting.fields import Rng, blend, blur, engrave, ramp, texture
from segwright.painting.lines import Line, across, distance


def _joints(rng: Rng, scene: np.ndarray, light: float) -> np.ndarray:
    """One to three parallel joints, at times with one across: straight, even, with a bright edge towards the light."""
    size, angle = scene.shape[:2], rng.choice([0, np.pi / 2]) + rng.normal(0, 0.05)
    width, strength = rng.uniform(2.5, 6), rng.uniform(0.35, 0.75)
    lines = [across(rng, size, angle, 0, width, strength) for _ in range(rng.integers(1, 3))]
    if rng.random() < 0.4:
        lines.append(across(rng, size, angle + np.pi / 2, 0, width, strength))
    field, _ = distance(lines, size)
    return engrave(scene, ramp(field, -0.5, 0.5) * strength, light)


def _pencil(rng: Rng, scene: np.ndarray, light: float) -> np.ndarray:
    """Lines of pencil, chalk or crayon: thin, evenly bent, worn by the ground's grain."""
    size, colour = scene.shape[:2], PENCILS[rng.integers(len(PENCILS))]
    lines = [
        across(rng, size, rng.uniform(0, np.pi), rng.choice([0, rng.uniform(-1.5, 1.5)]), rng.uniform(1, 2), 1)
        for _ in range(rng.integers(1, 4))
    ]
    field, _ = distance(lines, size)
    worn = np.clip(0.7 + 0.3 * texture(rng, size, 2, 2), 0.1, 1)
    return blend(scene, rng.uniform(0.3, 0.6) * ramp(field, -0.5, 0.5) * worn, colour)


PENCILS = ((0.2, 0.2, 0.22), (0.25, 0.3, 0.5), (0.6, 0.22, 0.18), (0.9, 0.9, 0.87))


def _stain(rng: Rng, scene: np.ndarray, light: float) -> np.ndarray:
    """Damp, oil or rust: soft blobs with a ragged edge, at times drawn out downwards."""
    size = scene.shape[:2]
    stretch = rng.choice([1, 1, 4])
    shape = texture(rng, (size[0] // stretch + 1, size[1]), rng.uniform(40, 90) / stretch, 3.5)
    shape = blur(np.repeat(shape, stretch, 0)[: size[0]], stretch) + 0.12 * texture(rng, size, 12, 2)
    start = rng.uniform(0.6, 1.2)
    damp = ramp(shape, start, start + rng.uniform(0.3, 1.2)) * rng.uniform(0.2, 0.5)
    return scene * (1 - damp[..., None] * (1 - STAINS[rng.integers(len(STAINS))]))


STAINS = np.array([[0.1, 0.1, 0.12], [0.25, 0.22, 0.2], [0.75, 0.42, 0.2], [0.2, 0.3, 0.15]])


def _shadow(rng: Rng, scene: np.ndarray, light: float) -> np.ndarray:
    """The shadow of a wall, or of a pole: an edge or a band, sharp or soft, bluish inside."""
    size = scene.shape[:2]
    thin = rng.random() < 0.5
    width = rng.uniform(5, 30) if thin else 2 * max(size)
    line = across(rng, size, rng.uniform(0, np.pi), 0, 0, 1)
    heading = line.points[1] - line.points[0]
    away = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1) - line.points[len(line.points) // 2]
    inside = away @ np.array([heading[1], -heading[0]]) + (0 if thin else rng.uniform(0.5, 3)) * texture(
        rng, size, 60, 3
    )
    soft = rng.uniform(0.7, 5)
    depth = ramp(inside, -soft, soft) * ramp(inside, width + soft, width - soft) * rng.uniform(0.3, 0.6)
    return scene * (1 - depth[..., None] * np.array([1.03, 1, 0.93]))


def _scratches(rng: Rng, scene: np.ndarray, light: float) -> np.ndarray:
    """Bright thin lines where something hard was dragged."""
    size = scene.shape[:2]
    lines = []
    for _ in range(rng.integers(1, 5)):
        line = across(rng, size, rng.uniform(0, np.pi), rng.normal(0, 0.15), rng.uniform(0.8, 1.8), 1)
        first = rng.integers(len(line.points) // 2)
        piece = slice(first, first + rng.integers(40, 160))
        lines.append(Line(*(part[piece] for part in line)))
    field, _ = distance(lines, size)
    worn = np.clip(0.6 + 0.4 * texture(rng, size, 3, 2), 0, 1)
    return blend(scene, rng.uniform(0.3, 0.6) * ramp(field, -0.5, 0.5) * worn, np.clip(scene.mean((0, 1)) + 0.25, 0, 1))


def _stripe(rng: Rng, scene: np.ndarray, light: float) -> np.ndarray:
    """A painted stripe, worn down to the ground in places."""
    size = scene.shape[:2]
    field, _ = distance(
        [across(rng, size, rng.choice([0, np.pi / 2]) + rng.normal(0, 0.15), 0, rng.uniform(14, 36), 1)], size
    )
    worn = ramp(texture(rng, size, 8, 1.6), rng.uniform(-2.4, -1.2), -0.6) * rng.uniform(0.6, 0.9)
    colour = ((0.88, 0.88, 0.85), (0.85, 0.68, 0.2))[rng.integers(2)]
    return blend(scene, ramp(field, -0.5, 0.8) * worn, colour)


THINGS = (_joints, _joints, _pencil, _stain, _stain, _shadow, _shadow, _scratches, _stripe)


def add_cable(rng: Rng, scene: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A cable lying on top, round by its highlight, with its shadow beside it: (scene, what it hides (H, W) bool)."""
    size = scene.shape[:2]
    width = rng.uniform(4, 8)
    field, _ = distance([across(rng, size, rng.uniform(0, np.pi), rng.normal(0, 1.2), width, 1)], size)
    shade = np.roll(blur(ramp(field, -1, 1), 1.5), rng.choice([-3, 3], 2), (0, 1))
    scene = scene * (1 - 0.45 * shade[..., None])
    colour = np.array(((0.1, 0.1, 0.11), (0.75, 0.75, 0.73), (0.55, 0.28, 0.12))[rng.integers(3)])
    gloss = ramp(field, 0, width / 2)[..., None]
    return blend(scene, ramp(field, -0.5, 0.5), colour * (0.55 + 0.6 * gloss) + 0.12 * gloss**4), field >= 0
