"""The smallest data set in Roboflow's COCO layout with every kind of annotation: documentation and test data in one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as pycoco

from segwright.png import write_png

Box = tuple[int, int, int, int]
"""top, left, bottom, right, in pixels; bottom and right are not in it."""

HEIGHT, WIDTH = 40, 56

CRACKS: dict[str, dict[str, list[Box]]] = {
    "train": {"one_polygon.png": [(4, 6, 8, 50)], "two_annotations.png": [(2, 10, 38, 13), (20, 3, 24, 30)]},
    "valid": {"compressed_rle.png": [(30, 0, 33, 56)], "crowd.png": [(0, 40, 40, 43)]},
    "test": {"two_polygons.png": [(5, 5, 9, 20), (25, 22, 28, 48)], "no_crack.png": []},
}
"""Which pixels are crack: split -> file -> boxes. As (dark) boxes, so that every form gives the same pixels exactly."""

CATEGORIES = [
    {"id": 0, "name": "pavement", "supercategory": "none"},  # the project's name, as Roboflow writes it; no annotation
    {"id": 1, "name": "crack", "supercategory": "pavement"},
    {"id": 2, "name": "joint", "supercategory": "pavement"},
]


def example(folder: str | Path) -> Path:
    """Writes `train`, `valid` and `test` into `folder`, which is made if needed, and returns it."""
    folder = Path(folder)
    random = np.random.default_rng(0)
    for split, boxes in CRACKS.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        images, annotations = [], []
        for image_id, (name, cracks) in enumerate(boxes.items()):
            write_png(folder / split / name, _picture(cracks, random))
            images.append({"id": image_id, "file_name": name, "height": HEIGHT, "width": WIDTH})
            annotations += [{"image_id": image_id, "category_id": 1, **form} for form in _forms(name, cracks)]
        joint = {"image_id": 0, "category_id": 2, "segmentation": [_polygon((35, 0, 37, WIDTH))], "iscrowd": 0}
        annotations = [{"id": index, **entry} for index, entry in enumerate([*annotations, joint])]
        content = {"categories": CATEGORIES, "images": images, "annotations": annotations}
        (folder / split / "_annotations.coco.json").write_text(json.dumps(content, indent=1))
    return folder


def _picture(cracks: list[Box], random: np.random.Generator) -> np.ndarray:
    grey = random.normal(150, 25, (HEIGHT, WIDTH))
    for top, left, bottom, right in cracks:
        grey[top:bottom, left:right] -= 80
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def _forms(name: str, cracks: list[Box]) -> list[dict[str, Any]]:
    """An image's annotations, in the form that its name says."""
    if name == "compressed_rle.png":
        return [{"segmentation": _compressed(box), "iscrowd": 0} for box in cracks]
    if name == "crowd.png":
        return [{"segmentation": _uncompressed(box), "iscrowd": 1} for box in cracks]
    if name == "two_polygons.png":
        return [{"segmentation": [_polygon(box) for box in cracks], "iscrowd": 0}]
    return [{"segmentation": [_polygon(box)], "iscrowd": 0} for box in cracks]


def _polygon(box: Box) -> list[float]:
    top, left, bottom, right = box
    return [float(value) for value in (left, top, right, top, right, bottom, left, bottom)]


def _pixels(box: Box) -> np.ndarray:
    top, left, bottom, right = box
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    pixels[top:bottom, left:right] = 1
    return pixels


def _compressed(box: Box) -> dict[str, Any]:
    rle = pycoco.encode(_pixels(box))
    return {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode("ascii")}


def _uncompressed(box: Box) -> dict[str, Any]:
    """Run lengths down the columns, zeros first."""
    column_wise = _pixels(box).ravel(order="F")
    changes = np.flatnonzero(np.diff(column_wise, prepend=0))  # a leading 1 changes at 0: a run of no zeros
    return {"size": [HEIGHT, WIDTH], "counts": np.diff(changes, prepend=0, append=column_wise.size).tolist()}
