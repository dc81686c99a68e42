"""The smallest data set of images and masks in folders: documentation and test data in one."""

import json
from pathlib import Path

import numpy as np

from segwright.png import write_png

HEIGHT, WIDTH = 40, 56

CLASSES = [
    {"id": 0, "name": "wall", "color": [128, 128, 128]},
    {"id": 1, "name": "crack", "color": [255, 0, 0]},
    {"id": 2, "name": "plant", "color": [0, 160, 0]},
]
VOID = {"id": 255, "name": "not judged", "color": [0, 0, 0]}

Box = tuple[int, int, int, int, int]
"""class id, top, left, bottom, right, in pixels; bottom and right are not in it."""

BOXES: dict[str, dict[str, list[Box]]] = {
    "train": {"crack": [(1, 4, 6, 8, 50)], "both": [(2, 20, 0, 40, 20), (1, 2, 10, 38, 14)]},
    "val": {"edge": [(255, 0, 0, 40, 5), (2, 10, 30, 22, 44), (1, 30, 8, 33, 50)]},
    "test": {"plant": [(2, 5, 5, 30, 40), (1, 33, 2, 36, 40)]},
}
"""What lies on the wall: split -> name -> boxes, later ones on top."""


def example(folder: str | Path) -> Path:
    """Writes `<split>/images/*.png`, `<split>/masks/*.png` (class ids, 255 = ignore) and `classes.json` into `folder`,
    which is made if needed, and returns it."""
    folder, random = Path(folder), np.random.default_rng(0)
    for split, pictures in BOXES.items():
        for name, boxes in pictures.items():
            mask = drawn(boxes)
            write_png(folder / split / "images" / f"{name}.png", _picture(mask, random))
            write_png(folder / split / "masks" / f"{name}.png", mask)
    (folder / "classes.json").write_text(json.dumps({"classes": CLASSES, "void": VOID}, indent=1))
    return folder


def drawn(boxes: list[Box]) -> np.ndarray:
    """(H, W) uint8 class ids."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number, top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = number
    return mask


def _picture(mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
    looks = np.full((256, 3), 150.0)
    looks[1], looks[2] = (60, 55, 50), (70, 120, 60)
    noise = random.normal(0, 12, (*mask.shape, 3))
    return (looks[mask] + noise).clip(0, 255).astype(np.uint8)
