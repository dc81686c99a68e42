"""Any data set as COCO, in Roboflow's layout: `<split>/<image>` and `<split>/_annotations.coco.json`.

A class's pixels on an image are one annotation, as run lengths. Class 0 is not annotated if it is called background.
COCO has no pixels that do not count; they are a category of their own, which the reader's `ignore` names.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as pycoco

from segwright.datasets.base import IGNORE, Source
from segwright.datasets.coco import Config
from segwright.datasets.writing import Advance, copy_image, each, sample, stems
from segwright.files import write_text

Entries = list[dict[str, Any]]
BACKGROUND = "all else"
"""What the background is called where the only class has its name."""


def write(source: Source, folder: Path, advance: Advance = lambda: None) -> dict[str, Any]:
    """Fills `folder`; gives the keys with which the reader `coco` reads the same classes and masks.

    Image files are copied as they are. `DataError` where an image or mask cannot be read or does not fit.
    """
    ids = category_ids(source)
    written = {name: _images(source, name, folder, ids, advance) for name in source.splits}
    ignored = any(entry["category_id"] == ids[IGNORE] for _, marks in written.values() for entry in marks)
    listed = {value: number for value, number in ids.items() if value != IGNORE or ignored}
    categories = [{"id": number, "name": _name(source, value), "supercategory": ""} for value, number in listed.items()]
    for name, (images, annotations) in written.items():
        content = {"images": images, "annotations": annotations, "categories": categories}
        write_text(folder / name / Config.annotations, json.dumps(content))
    return {"classes": list(source.classes), **_names(source)}


def _names(source: Source) -> dict[str, str]:
    """The reader's names of class 0 and of what does not count where its own are others, or are those of classes."""
    first = source.classes[0]
    zero = first if source.num_classes > 1 else BACKGROUND if first == Config.background else Config.background
    named = {"background": zero, "ignore": _name(source, IGNORE)}
    return {key: name for key, name in named.items() if name != getattr(Config, key)}


def category_ids(source: Source) -> dict[int, int]:
    """Mask value -> category id, for every value that is annotated."""
    first = 1 if source.num_classes == 1 or source.classes[0] == Config.background else 0
    last = max(source.num_classes, 2)
    return {value: value for value in range(first, last)} | {IGNORE: last}


def _name(source: Source, value: int) -> str:
    if value == IGNORE:
        return Config.ignore if Config.ignore not in source.classes else "pixels that do not count"
    return source.classes[0] if source.num_classes == 1 else source.classes[value]


def _images(source: Source, name: str, folder: Path, ids: dict[int, int], advance: Advance) -> tuple[Entries, Entries]:
    """The split's image files, and its entries of `images` and `annotations`."""
    split = source.splits[name]
    names = stems(split, set())

    def write_one(index: int) -> tuple[dict[str, Any], Entries]:
        image, mask = sample(source, split, index)
        path = copy_image(split, index, image, folder / name / names[index])
        height, width = mask.shape
        entry = {"id": index, "file_name": path.name, "height": height, "width": width}
        return entry, [
            _annotation(mask, value, ids[value], index) for value in np.unique(mask).tolist() if value in ids
        ]

    written = each(split, write_one, advance)
    annotations = [annotation for _, marks in written for annotation in marks]
    return [entry for entry, _ in written], [{"id": number, **entry} for number, entry in enumerate(annotations, 1)]


def _annotation(mask: np.ndarray, value: int, category: int, image: int) -> dict[str, Any]:
    rle = pycoco.encode(np.asfortranarray(mask == value))
    return {
        "image_id": image,
        "category_id": category,
        "segmentation": {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")},
        "area": int(pycoco.area(rle)),
        "bbox": pycoco.toBbox(rle).tolist(),
        "iscrowd": 0,
    }
