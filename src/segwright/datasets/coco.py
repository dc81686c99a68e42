"""COCO segmentation, one annotation file per split beside its images: the layout that Roboflow exports.

Either a binary task: crack or not, where "crack" is every category whose name the pattern finds; or, with `classes`,
several classes over a background (`coco_classes`). Masks lie at the image's own size, by pycocotools; where annotations
overlap, the smaller one lies on top (`coco_masks.paint`).
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segwright.datasets import coco_classes, coco_file
from segwright.datasets.base import Notes, Source, sound
from segwright.datasets.coco_codes import CODES
from segwright.datasets.coco_example import example
from segwright.datasets.coco_file import Category, CocoFile, Id, Picture
from segwright.datasets.coco_masks import Shape, checked, paint
from segwright.datasets.coco_pictures import usable
from segwright.errors import ConfigError, DataError
from segwright.images import read_image

__all__ = ["CocoSplit", "Config", "build", "example", "recognises", "scan"]


@dataclass(frozen=True, kw_only=True)
class Config:
    root: str
    """Folder that holds the splits' folders."""
    pattern: str = "crack"
    """Regular expression, upper and lower case alike; a category in whose name it is found is positive."""
    train: str = "train"
    """Folder of the training images, inside root."""
    valid: str = "valid"
    """Folder of the validation images, inside root."""
    test: str = "test"
    """Folder of the test images, inside root."""
    annotations: str = "_annotations.coco.json"
    """Name of the annotation file in each split's folder."""
    classes: Any = None
    """`all`: each category is a class; a list of names: these are, in this order; none: one class, by `pattern`."""
    background: str = "background"
    """With `classes`: name of class 0, which is also that of all pixels without an annotation."""
    ignore: str = "ignore"
    """With `classes`: name of the category whose pixels do not count."""

    def __post_init__(self) -> None:
        listed = isinstance(self.classes, list | tuple) and all(isinstance(name, str) for name in self.classes)
        if not (self.classes in (None, "all") or (listed and len(set(self.classes)) == len(self.classes) > 0)):
            raise ConfigError(
                f"data.classes is {self.classes!r}; a class can only be made of a category's name. Give 'all', or a "
                "list of different names, or leave it out for one class by data.pattern."
            )
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(
                f"data.pattern is {self.pattern!r}, which is no regular expression ({error}). "
                "A plain word such as 'crack' is one; put a backslash before special characters."
            ) from None


@dataclass(frozen=True)
class CocoImage:
    """One image and what lies on it. `file_name` is relative to the split's folder."""

    file_name: str
    height: int
    width: int
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class CocoSplit:
    """The usable images of one split, by file name. Masks are painted when asked for."""

    name: str
    folder: Path
    annotations: str
    """Name of the annotation file in the folder."""
    images: tuple[CocoImage, ...]

    def __len__(self) -> int:
        return len(self.images)

    def path(self, index: int) -> Path:
        return self.folder / self.images[index].file_name

    def annotation(self, index: int) -> Path:
        return self.folder / self.annotations

    def image(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB. `DataError` if the file is broken."""
        return read_image(self.path(index))

    def mask(self, index: int) -> np.ndarray:
        """(H, W) uint8 class ids, 255 = ignore."""
        image = self.images[index]
        return paint(image.shapes, image.height, image.width)


def build(config: Config) -> Source:
    """The data set. `DataError`, with everything that is wrong, if anything makes it unusable."""
    return sound(scan(config), config.root)


def scan(config: Config) -> Source:
    """The usable part of the data set, and as findings what is wrong with the rest.

    `DataError` only where there is nothing to read: no such folder, or none of the splits in it.
    """
    notes = Notes(CODES)
    folders = _folders(Path(config.root), config, notes)
    labels = {name: f"{folder.name}/{config.annotations}" for name, folder in folders.items()}
    read = {name: coco_file.read(folder / config.annotations, labels[name], notes) for name, folder in folders.items()}
    files = {name: file for name, file in read.items() if file is not None}
    names = {name: _names(file, files, labels[name], notes) for name, file in files.items()}
    classes = _classes(config, files, names, notes)
    splits = {
        name: _split(name, folders[name], config.annotations, file, names[name], classes.ids, notes)
        for name, file in files.items()
    }
    return Source(classes.names, splits, notes.findings())


def recognises(root: Path) -> bool:
    """Whether a folder looks like this layout, with its usual names."""
    return any((Path(root) / split / Config.annotations).is_file() for split in ("train", "valid", "test"))


def _classes(
    config: Config, files: dict[str, CocoFile], names: dict[str, dict[Id, Category]], notes: Notes
) -> coco_classes.Classes:
    if config.classes is None:
        return coco_classes.by_pattern(files, names, config.pattern, notes)
    return coco_classes.by_name(files, names, config.classes, config.background, config.ignore, notes)


def _folders(root: Path, config: Config, notes: Notes) -> dict[str, Path]:
    """The splits' folders that exist."""
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(f"the data folder {root} {what}. Name the folder that holds {config.train}/ (data.root).")
    wanted = {"train": config.train, "valid": config.valid, "test": config.test}
    folders = {name: root / folder for name, folder in wanted.items() if (root / folder).is_dir()}
    held = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    holds = f"it holds {', '.join(held[:10])}{', ...' if len(held) > 10 else ''}" if held else "it is empty"
    if "train" not in folders:
        hint = f" Is its parent meant, {root.resolve().parent}?" if config.annotations in held else ""
        raise DataError(
            f"the data folder {root} has no folder {config.train}/, so there is nothing to train on; {holds}.{hint} "
            "Name the folder that holds the splits (data.root), or the splits' folders (data.train, data.valid, "
            "data.test)."
        )
    for name in wanted.keys() - folders.keys():
        notes.see("missing-split", wanted[name], holds)
    return folders


def _names(file: CocoFile, files: dict[str, CocoFile], label: str, notes: Notes) -> dict[Id, Category]:
    """Id -> category for one split; ids that its own file lacks as the others have them."""
    own: dict[Id, Category] = {}
    for category in file.categories:
        first = own.setdefault(category.id, category)
        if first.name != category.name:
            notes.see("duplicate-category", label, f"id {category.id} is '{first.name}' and '{category.name}'")
    others = {category.id: category for other in files.values() for category in other.categories}
    return others | own


def _split(
    name: str,
    folder: Path,
    annotations: str,
    file: CocoFile,
    names: dict[Id, Category],
    ids: Mapping[Category, int],
    notes: Notes,
) -> CocoSplit:
    pictures = usable(folder, file.images, notes)
    masks = _shapes(folder.name, file, pictures, names, ids, notes)
    images = [
        CocoImage(picture.file_name, picture.height, picture.width, tuple(masks[picture.id])) for picture in pictures
    ]
    if not images:
        notes.see("empty-split", folder.name)
    elif not any(masks.values()):
        notes.see("nothing-to-learn" if name == "train" else "nothing-to-measure", folder.name)
    return CocoSplit(name, folder, annotations, tuple(sorted(images, key=lambda image: image.file_name)))


def _shapes(
    label: str,
    file: CocoFile,
    pictures: list[Picture],
    names: dict[Id, Category],
    ids: Mapping[Category, int],
    notes: Notes,
) -> dict[Id, list[Shape]]:
    """Image id -> what of a class can be painted on it."""
    by_id = {picture.id: picture for picture in pictures}
    listed = {picture.id for picture in file.images}
    shapes: dict[Id, list[Shape]] = defaultdict(list)
    for entry in file.annotations:
        category, picture = names.get(entry.category_id), by_id.get(entry.image_id)
        if entry.image_id not in listed:
            notes.see("orphan-annotation", label, f"image id {entry.image_id}")
        if category is None:
            notes.see("unknown-category", label, f"category id {entry.category_id}")
        if picture is None or category is None or category not in ids:
            continue
        segmentation, problems = checked(entry.segmentation, picture.height, picture.width)
        for code, detail in problems:
            notes.see(code, f"{label}/{picture.file_name}", detail)
        if segmentation is not None:
            shapes[picture.id].append(Shape(segmentation, ids[category], entry.crowd))
    return shapes
