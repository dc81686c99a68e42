"""Paints crack photographs, so that the whole path can be tried without a data set of one's own. Floor 3.

A picture is a surface (concrete, asphalt, plaster, pebbles), things on it that are dark and thin but no cracks, cracks
as branching random walks, then light, lens and sensor. The truth is the painted crack itself: a pixel belongs to it
where at least half of it is covered.

Shapes: H x W the picture in pixels, N points of a line. Tones and colours are floats, 0 black and 1 white; points are
(row, column) in pixels; angles are radians, 0 to the right and pi/2 downwards; a distance field holds the depth in px
inside a painted line, negative outside.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from segwright.errors import ConfigError, DataError

Size = tuple[int, int]
Rng = np.random.Generator

JPEG_QUALITY = 92
SMALLEST_PX = 64
"""Below this a crack of 2 to 6 px no longer looks like one."""
PLAIN_EVERY = 10
"""One picture in so many has no crack: a model must learn to say nothing."""
CATEGORIES = [
    {"id": 0, "name": "painted-cracks", "supercategory": "none"},
    {"id": 1, "name": "crack", "supercategory": "painted-cracks"},
]
"""Roboflow's layout: a placeholder named as the project, then the real classes below it."""


class Line(NamedTuple):
    """Something long and thin."""

    points: np.ndarray
    """(N, 2), about a pixel apart."""
    width_px: np.ndarray
    """(N,)"""
    strength: np.ndarray
    """(N,) how much of the ground's tone it takes away, 0 to 1."""


def paint(seed: int, size: Size = (192, 256)) -> tuple[np.ndarray, np.ndarray]:
    """One photograph and its truth: image (H, W, 3) uint8 RGB and mask (H, W) uint8, 1 = crack.

    The same seed gives the same picture. Consecutive seeds go through the surfaces in turn, and every tenth picture has
    no crack, so that small splits are balanced. Raises `ConfigError` for a size or seed that cannot be painted.
    """
    _check(seed, size)
    rng = np.random.default_rng(seed)
    light = rng.uniform(-np.pi, np.pi)
    scene = SURFACES[seed % len(SURFACES)](rng, size, light)
    things = [THINGS[i] for i in rng.permutation(len(THINGS))[: rng.integers(1, 4)]]
    for thing in things:
        scene = thing(rng, scene, light)
    mask = np.zeros(size, bool)
    if seed % PLAIN_EVERY != PLAIN_EVERY - 1:
        scene, mask = _add_cracks(rng, scene, light)
    if rng.random() < 0.2:
        scene, cable = _add_cable(rng, scene)
        mask &= ~cable
    scene = _photograph(rng, scene * _light(rng, size)[..., None])
    return np.round(255 * scene).astype(np.uint8), mask.astype(np.uint8)


def write_dataset(
    folder: str | Path,
    train: int = 48,
    valid: int = 12,
    test: int = 12,
    size: Size = (192, 256),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Paints a COCO data set in Roboflow's layout: `folder/{train,valid,test}/_annotations.coco.json` beside JPEGs.

    Other seeds give other pictures (as long as the counts stay the same); `progress(done, total)` is called after each.
    The folder appears when it is complete. Raises `DataError` if it holds something already or cannot be written.
    """
    folder = Path(folder)
    counts = {"train": train, "valid": valid, "test": test}
    total = sum(counts.values())
    _check(seed, size)
    building = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DataError(
                f"{folder} exists already, and painting would mix with it. Name another place, or remove it."
            )
        done = 0
        for split, count in counts.items():
            for _ in _write_split(building / split, range(seed * total + done, seed * total + done + count), size):
                done += 1
                if progress:
                    progress(done, total)
        building.replace(folder)
    except OSError as error:
        raise DataError(
            f"cannot write the painted pictures to {folder} ({error}). Name a place that can be."
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def best_grey_threshold_iou(images: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> tuple[int, float]:
    """(threshold, IoU) of the best rule "grey <= threshold is crack" over all images together: what a model must beat.

    images: (H, W, 3) uint8 RGB each; masks: (H, W) each, 1 = crack, 255 = not counted. Grey is ITU-R 601-2 luma.
    """
    pixels, cracks = np.zeros(256, np.int64), np.zeros(256, np.int64)
    for image, mask in zip(images, masks, strict=True):
        grey = np.round(image @ np.array([0.299, 0.587, 0.114])).astype(np.int64)
        pixels += np.bincount(grey[mask != 255], minlength=256)
        cracks += np.bincount(grey[mask == 1], minlength=256)
    hits, marked = cracks.cumsum(), pixels.cumsum()
    iou = hits / np.maximum(marked + hits[-1] - hits, 1)
    return int(iou.argmax()), float(iou.max())


def _check(seed: int, size: Size) -> None:
    if seed < 0:
        raise ConfigError(f"the seed is {seed}; NumPy's generator takes none below 0. Use 0 or more.")
    if min(size) < SMALLEST_PX:
        raise ConfigError(
            f"a picture of {size[0]}x{size[1]} px is too small to hold cracks of 2 to 6 px. "
            f"Paint at least {SMALLEST_PX} px either way."
        )


def _write_split(folder: Path, seeds: range, size: Size) -> Iterator[None]:
    """Yields after each picture, so that the caller can count."""
    folder.mkdir(parents=True)
    coco: dict[str, list] = {"categories": CATEGORIES, "images": [], "annotations": []}
    for number, seed in enumerate(seeds):
        image, mask = paint(seed, size)
        name = f"painted_{seed:05d}.jpg"
        Image.fromarray(image).save(folder / name, quality=JPEG_QUALITY)
        coco["images"].append({"id": number, "file_name": name, "height": size[0], "width": size[1]})
        if mask.any():
            coco["annotations"].append({"id": len(coco["annotations"]), "image_id": number, **_annotation(mask)})
        yield
    (folder / "_annotations.coco.json").write_text(json.dumps(coco))


def _annotation(mask: np.ndarray) -> dict:
    code = rle.encode(np.asfortranarray(mask))
    return {
        "category_id": 1,
        "iscrowd": 0,
        "area": int(rle.area(code)),
        "bbox": rle.toBbox(code).tolist(),
        "segmentation": {"size": code["size"], "counts": code["counts"].decode("ascii")},
    }


# Fields


def _texture(rng: Rng, size: Size, scale_px: float, slope: float) -> np.ndarray:
    """Noise (H, W), mean 0 and deviation 1, flat above `scale_px` and falling as f^-slope below: 1 rough, 4 smooth."""
    rows, columns = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None]
    weight = (1 + (rows**2 + columns**2) * scale_px**2 * 4) ** (-slope / 2)
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(size)) * weight, s=size)
    return (field - field.mean()) / field.std()


def _relief(height: np.ndarray, light: float) -> np.ndarray:
    """What a low light from that angle makes of a height field: bright on the near side, dark on the far one."""
    down, right = np.gradient(height)
    return -(np.cos(light) * right + np.sin(light) * down)


def _blur(image: np.ndarray, sigma_px: float) -> np.ndarray:
    """Gaussian blur along the first two axes; the border is mirrored."""
    reach = int(np.ceil(3 * sigma_px))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2)
    for axis in (0, 1):
        pad = [(reach, reach) if a == axis else (0, 0) for a in range(image.ndim)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, pad, "reflect"), 2 * reach + 1, axis)
        image = windows @ (kernel / kernel.sum())
    return image


def _ramp(field: np.ndarray, start: float, end: float) -> np.ndarray:
    """0 at `start`, 1 at `end`, straight between."""
    return np.clip((field - start) / (end - start), 0, 1)


def _blend(scene: np.ndarray, opacity: np.ndarray, colour: Sequence[float] | np.ndarray) -> np.ndarray:
    return scene + opacity[..., None] * (np.asarray(colour) - scene)


# Surfaces: (H, W, 3) each


def _tinted(rng: Rng, tone: np.ndarray, spread: float, warmth: float = 0.0) -> np.ndarray:
    """A grey field with the ground's own colour and a little colour noise."""
    cast = 1 + warmth * np.array([1, 0.1, -1.1]) + rng.normal(0, spread, 3)
    chroma = 0.007 * _texture(rng, tone.shape, 3, 2)[..., None] * rng.normal(0, 1, 3)
    return tone[..., None] * cast + chroma * tone[..., None]


def _asphalt(rng: Rng, size: Size, light: float) -> np.ndarray:
    stones = _texture(rng, size, rng.uniform(1.6, 3.0), 3)
    tone = rng.uniform(0.36, 0.52) + 0.02 * _texture(rng, size, 120, 2)
    tone += rng.uniform(0.03, 0.06) * _relief(stones, light) / 0.6
    tone += 0.15 * _ramp(stones, 1.5, 2.6) - 0.14 * _ramp(_texture(rng, size, 2, 3), 1.6, 2.8)
    return _tinted(rng, tone + 0.018 * rng.standard_normal(size), 0.01, rng.uniform(-0.03, 0.04))


def _concrete(rng: Rng, size: Size, light: float) -> np.ndarray:
    tone = rng.uniform(0.5, 0.7) + 0.035 * _texture(rng, size, 90, 2.2) + 0.018 * _texture(rng, size, 14, 1.5)
    tone += 0.012 * _relief(_texture(rng, size, 3, 2), light)
    tone -= rng.uniform(0.1, 0.3) * _ramp(_texture(rng, size, 3.5, 4), 2.7, 3.2)
    return _tinted(rng, tone, 0.01, rng.uniform(-0.02, 0.05))


def _plaster(rng: Rng, size: Size, light: float) -> np.ndarray:
    tone = rng.uniform(0.66, 0.86) + 0.02 * _texture(rng, size, 110, 2.5)
    tone += rng.uniform(0.015, 0.04) * _relief(_texture(rng, size, rng.uniform(4, 9), 2.2), light) / 0.5
    return _tinted(rng, tone, 0.02, rng.uniform(0.0, 0.14))


def _pebbles(rng: Rng, size: Size, light: float) -> np.ndarray:
    """Washed concrete: flat stones of many tones in rough mortar, one to each cell of a jittered lattice."""
    step = rng.uniform(7, 12)
    shape = (int(size[0] / step) + 6, int(size[1] / step) + 6)
    centres = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) + rng.uniform(-0.45, 0.45, (*shape, 2))
    radius, tones = rng.uniform(0.2, 0.6, shape), rng.normal(0, 0.075, shape)
    where = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1) / step + 2
    where += 0.16 * np.stack([_texture(rng, size, step, 2), _texture(rng, size, step, 2)], -1)
    height, tone = np.full(size, -1.0), np.zeros(size)
    for offset in np.ndindex(3, 3):
        cell = tuple(np.clip(np.round(where).astype(int) + offset - 1, 0, np.array(shape) - 1).transpose(2, 0, 1))
        inside = radius[cell] - np.hypot(*(where - centres[cell]).transpose(2, 0, 1))
        tone = np.where(inside > height, tones[cell], tone)
        height = np.maximum(height, inside)
    stone = _ramp(height, -0.02, 0.1)
    mortar = -0.04 + 0.03 * _texture(rng, size, 2, 1.5)
    ground = rng.uniform(0.48, 0.62) + 0.025 * _texture(rng, size, 60, 2) + 0.015 * _texture(rng, size, 2, 1.5)
    tone = ground + stone * tone + (1 - stone) * mortar + 0.1 * _relief(_blur(stone, 0.7), light)
    return _tinted(rng, tone, 0.01, rng.uniform(0.0, 0.08))


SURFACES = (_asphalt, _concrete, _plaster, _pebbles)


# Lines


def _along(rng: Rng, count: int, every: float) -> np.ndarray:
    """(count,) noise of deviation below 1, straight between knots `every` points apart."""
    knots = rng.standard_normal(int(count / every) + 3)
    return np.interp(np.arange(count) / every, np.arange(len(knots)), knots)


def _distance(lines: Sequence[Line], size: Size) -> tuple[np.ndarray, np.ndarray]:
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


def _across(rng: Rng, size: Size, angle: float, bend: float, width_px: float, strength: float) -> Line:
    """A straight or evenly bent line through the picture, of one width and darkness."""
    count = int(1.5 * np.hypot(*size))
    heading = angle + bend * np.linspace(-0.5, 0.5, count)
    points = np.cumsum(np.stack([np.sin(heading), np.cos(heading)], -1), 0)
    points += np.array(size) * rng.uniform(0.15, 0.85, 2) - points[count // 2]
    return Line(points, np.full(count, width_px), np.full(count, strength))


# Things that are dark and thin, or bright, or in the way, and no cracks: (scene, light) -> scene


def _joints(rng: Rng, scene: np.ndarray, light: float) -> np.ndarray:
    """One to three parallel joints, at times with one across: straight, even, with a bright edge towards the light."""
    size, angle = scene.shape[:2], rng.choice([0, np.pi / 2]) + rng.normal(0, 0.05)
    width, strength = rng.uniform(2.5, 6), rng.uniform(0.35, 0.75)
    lines = [_across(rng, size, angle, 0, width, strength) for _ in range(rng.integers(1, 3))]
    if rng.random() < 0.4:
        lines.append(_across(rng, size, angle + np.pi / 2, 0, width, strength))
    field, _ = _distance(lines, size)
    return _engrave(scene, _ramp(field, -0.5, 0.5) * strength, light)


def _pencil(rng: Rng, scene: np.ndarray, light: float) -> np.ndarray:
    """Lines of pencil, chalk or crayon: thin, evenly bent, worn by the ground's grain."""
    size, colour = scene.shape[:2], PENCILS[rng.integers(len(PENCILS))]
    lines = [
        _across(rng, size, rng.uniform(0, np.pi), rng.choice([0, rng.uniform(-1.5, 1.5)]), rng.uniform(1, 2), 1)
        for _ in range(rng.integers(1, 4))
    ]
    field, _ = _distance(lines, size)
    worn = np.clip(0.7 + 0.3 * _texture(rng, size, 2, 2), 0.1, 1)
    return _blend(scene, rng.uniform(0.3, 0.6) * _ramp(field, -0.5, 0.5) * worn, colour)


PENCILS = ((0.2, 0.2, 0.22), (0.25, 0.3, 0.5), (0.6, 0.22, 0.18), (0.9, 0.9, 0.87))


def _stain(rng: Rng, scene: np.ndarray, light: float) -> np.ndarray:
    """Damp, oil or rust: soft blobs with a ragged edge, at times drawn out downwards."""
    size = scene.shape[:2]
    stretch = rng.choice([1, 1, 4])
    shape = _texture(rng, (size[0] // stretch + 1, size[1]), rng.uniform(40, 90) / stretch, 3.5)
    shape = _blur(np.repeat(shape, stretch, 0)[: size[0]], stretch) + 0.12 * _texture(rng, size, 12, 2)
    start = rng.uniform(0.6, 1.2)
    damp = _ramp(shape, start, start + rng.uniform(0.3, 1.2)) * rng.uniform(0.2, 0.5)
    return scene * (1 - damp[..., None] * (1 - STAINS[rng.integers(len(STAINS))]))


STAINS = np.array([[0.1, 0.1, 0.12], [0.25, 0.22, 0.2], [0.75, 0.42, 0.2], [0.2, 0.3, 0.15]])


def _shadow(rng: Rng, scene: np.ndarray, light: float) -> np.ndarray:
    """The shadow of a wall, or of a pole: an edge or a band, sharp or soft, bluish inside."""
    size = scene.shape[:2]
    thin = rng.random() < 0.5
    width = rng.uniform(5, 30) if thin else 2 * max(size)
    line = _across(rng, size, rng.uniform(0, np.pi), 0, 0, 1)
    heading = line.points[1] - line.points[0]
    away = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1) - line.points[len(line.points) // 2]
    inside = away @ np.array([heading[1], -heading[0]]) + (0 if thin else rng.uniform(0.5, 3)) * _texture(
        rng, size, 60, 3
    )
    soft = rng.uniform(0.7, 5)
    depth = _ramp(inside, -soft, soft) * _ramp(inside, width + soft, width - soft) * rng.uniform(0.3, 0.6)
    return scene * (1 - depth[..., None] * np.array([1.03, 1, 0.93]))


def _scratches(rng: Rng, scene: np.ndarray, light: float) -> np.ndarray:
    """Bright thin lines where something hard was dragged."""
    size = scene.shape[:2]
    lines = []
    for _ in range(rng.integers(1, 5)):
        line = _across(rng, size, rng.uniform(0, np.pi), rng.normal(0, 0.15), rng.uniform(0.8, 1.8), 1)
        first = rng.integers(len(line.points) // 2)
        piece = slice(first, first + rng.integers(40, 160))
        lines.append(Line(*(part[piece] for part in line)))
    field, _ = _distance(lines, size)
    worn = np.clip(0.6 + 0.4 * _texture(rng, size, 3, 2), 0, 1)
    return _blend(
        scene, rng.uniform(0.3, 0.6) * _ramp(field, -0.5, 0.5) * worn, np.clip(scene.mean((0, 1)) + 0.25, 0, 1)
    )


def _stripe(rng: Rng, scene: np.ndarray, light: float) -> np.ndarray:
    """A painted stripe, worn down to the ground in places."""
    size = scene.shape[:2]
    field, _ = _distance(
        [_across(rng, size, rng.choice([0, np.pi / 2]) + rng.normal(0, 0.15), 0, rng.uniform(14, 36), 1)], size
    )
    worn = _ramp(_texture(rng, size, 8, 1.6), rng.uniform(-2.4, -1.2), -0.6) * rng.uniform(0.6, 0.9)
    colour = ((0.88, 0.88, 0.85), (0.85, 0.68, 0.2))[rng.integers(2)]
    return _blend(scene, _ramp(field, -0.5, 0.8) * worn, colour)


THINGS = (_joints, _joints, _pencil, _stain, _stain, _shadow, _shadow, _scratches, _stripe)


def _add_cable(rng: Rng, scene: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A cable lying on top, round by its highlight, with its shadow beside it: (scene, what it hides (H, W) bool)."""
    size = scene.shape[:2]
    width = rng.uniform(4, 8)
    field, _ = _distance([_across(rng, size, rng.uniform(0, np.pi), rng.normal(0, 1.2), width, 1)], size)
    shade = np.roll(_blur(_ramp(field, -1, 1), 1.5), rng.choice([-3, 3], 2), (0, 1))
    scene = scene * (1 - 0.45 * shade[..., None])
    colour = np.array(((0.1, 0.1, 0.11), (0.75, 0.75, 0.73), (0.55, 0.28, 0.12))[rng.integers(3)])
    gloss = _ramp(field, 0, width / 2)[..., None]
    return _blend(scene, _ramp(field, -0.5, 0.5), colour * (0.55 + 0.6 * gloss) + 0.12 * gloss**4), field >= 0


# Cracks


def _add_cracks(rng: Rng, scene: np.ndarray, light: float) -> tuple[np.ndarray, np.ndarray]:
    """(scene, mask (H, W) bool): one to three cracks with their branches, a little ragged."""
    size = scene.shape[:2]
    lines: list[Line] = []
    for _ in range(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1])):
        lines += _crack(rng, size)
    field, strength = _distance(lines, size)
    field += 0.35 * _texture(rng, size, 2.5, 2)
    strength *= 0.82 + 0.18 * _ramp(field, 0, 2)  # deeper where it is wider
    return _engrave(scene, _ramp(field, -0.5, 0.5) * strength, light), field >= 0


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
    angle = heading + 0.3 * _along(rng, count, 60) + kinks
    points = start + np.cumsum(np.stack([np.sin(angle), np.cos(angle)], -1), 0)
    taper = np.minimum(1, np.linspace(4, 0, count)) ** 0.5
    width = np.clip(width_px * (1 + 0.25 * _along(rng, count, 12)) * taper, 1.5, 6.5)
    return Line(points, width, np.clip(strength * (1 + 0.15 * _along(rng, count, 25)), 0.35, 0.92))


def _engrave(scene: np.ndarray, depth: np.ndarray, light: float) -> np.ndarray:
    """Darkens the ground by `depth` (H, W), 0 to 1, towards a dirty brown, and lets the light catch the far edge."""
    rim = np.clip(_relief(_blur(depth, 0.8), light + np.pi), 0, None) * (depth < 0.2)
    return _blend(scene, depth, 0.22 * scene + np.array([0.035, 0.03, 0.025])) + 0.3 * rim[..., None] * scene


# Light, lens and sensor


def _light(rng: Rng, size: Size) -> np.ndarray:
    """(H, W) about 1: a slope, soft patches and the lens's dark corners."""
    down, right = np.meshgrid(*(np.linspace(-1, 1, side) for side in size), indexing="ij")
    angle = rng.uniform(-np.pi, np.pi)
    slope = rng.uniform(0, 0.22) * (np.cos(angle) * right + np.sin(angle) * down)
    patches = 0.04 * _texture(rng, size, 200, 3)
    return (1 + slope + patches) * (1 - rng.uniform(0.02, 0.16) * (down**2 + right**2)) * rng.uniform(0.8, 1.12)


def _photograph(rng: Rng, scene: np.ndarray) -> np.ndarray:
    """Lens blur, white balance, a gentle tone curve and a sensor's noise, finer in green: (H, W, 3) in 0..1."""
    image = _blur(scene, rng.uniform(0.35, 0.7)) * (1 + rng.normal(0, 0.015, 3))
    image = np.clip(image, 0, 1)
    image += 0.15 * (image * image * (3 - 2 * image) - image)
    noise = rng.normal(0, 1, image.shape) * np.array([1.2, 1, 1.4]) * rng.uniform(0.006, 0.018)
    return np.clip(image + noise * np.sqrt(0.3 + image), 0, 1)
