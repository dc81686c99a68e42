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

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from segwright.errors import ConfigError, DataError
from segwright.painting.cracks import add_cracks
from segwright.painting.fields import Size, lighting, photograph
from segwright.painting.surfaces import SURFACES
from segwright.painting.things import THINGS, add_cable

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
        scene, mask = add_cracks(rng, scene, light)
    if rng.random() < 0.2:
        scene, cable = add_cable(rng, scene)
        mask &= ~cable
    scene = photograph(rng, scene * lighting(rng, size)[..., None])
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
