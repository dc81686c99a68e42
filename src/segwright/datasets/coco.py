"""COCO segmentation, one annotation file per split beside its images: the layout that Roboflow exports.

A binary task: crack or not, where "crack" is every category whose name the pattern finds. Roboflow's placeholder for
the project is left out: a category that another one names as its supercategory and that no annotation of any split
refers to (unless that would leave none). Masks lie at the image's own size, by pycocotools.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segwright.datasets import coco_file, coco_masks
from segwright.datasets.base import Notes, Source, sound
from segwright.datasets.coco_codes import CODES
from segwright.datasets.coco_example import example
from segwright.datasets.coco_file import Category, CocoFile, Id, Picture
from segwright.datasets.coco_pictures import usable
from segwright.errors import ConfigError, DataError
from segwright.images import read_image

__all__ = ["CocoSplit", "Config", "build", "example", "scan"]


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

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(
                f"data.pattern is {self.pattern!r}, which is no regular expression ({error}). "
                "A plain word such as 'crack' is one; put a backslash before special characters."
            ) from None


@dataclass(frozen=True)
class CocoImage:
    """One image and what is positive on it. `file_name` is relative to the split's folder."""

    file_name: str
    height: int
    width: int
    positive: tuple[coco_masks.Segmentation, ...]


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
        """(H, W) uint8, 1 = positive."""
        image = self.images[index]
        return coco_masks.union(image.positive, image.height, image.width)


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
    positive = _positive(files, names, config.pattern, notes)
    splits = {
        name: _split(name, folders[name], config.annotations, file, names[name], positive, notes)
        for name, file in files.items()
    }
    classes = sorted({category.name for category in positive}) or [config.pattern]
    return Source((" / ".join(classes),), splits, notes.findings())


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


def _positive(
    files: dict[str, CocoFile], names: dict[str, dict[Id, Category]], pattern: str, notes: Notes
) -> set[Category]:
    """The categories of all splits that the pattern finds, without placeholders. If there are none, an error note."""
    listed = [category for file in files.values() for category in file.categories]
    categories = set(listed)
    used = {names[name].get(entry.category_id) for name, file in files.items() for entry in file.annotations}
    dummies = {
        category
        for category in categories - used
        if any(other.supercategory == category.name for other in listed if other != category)
    }
    if dummies == categories:
        dummies = set()
    for category in sorted(dummies, key=str):
        notes.see("dummy-category", "", f"'{category.name}'")
    kept = categories - dummies
    positive = {category for category in kept if re.search(pattern, category.name, re.IGNORECASE)}
    if files and not positive:
        there = ", ".join(sorted({f"'{category.name}'" for category in kept})) or "none at all"
        notes.see("no-matching-category", "", f"the pattern is '{pattern}', the categories are {there}")
    for kind, group in (("positive", positive), ("background", kept - positive)):
        for name in sorted({category.name for category in group}) if positive else ():
            notes.see("classes", "", f"'{name}' is {kind}")
    return positive


def _split(
    name: str,
    folder: Path,
    annotations: str,
    file: CocoFile,
    names: dict[Id, Category],
    positive: set[Category],
    notes: Notes,
) -> CocoSplit:
    pictures = usable(folder, file.images, notes)
    masks = _masks(folder.name, file, pictures, names, positive, notes)
    images = [
        CocoImage(picture.file_name, picture.height, picture.width, tuple(masks[picture.id])) for picture in pictures
    ]
    if not images:
        notes.see("empty-split", folder.name)
    elif not any(masks.values()):
        notes.see("nothing-to-learn" if name == "train" else "nothing-to-measure", folder.name)
    return CocoSplit(name, folder, annotations, tuple(sorted(images, key=lambda image: image.file_name)))


def _masks(
    label: str,
    file: CocoFile,
    pictures: list[Picture],
    names: dict[Id, Category],
    positive: set[Category],
    notes: Notes,
) -> dict[Id, list[coco_masks.Segmentation]]:
    """Image id -> the positive segmentations that can be painted."""
    by_id = {picture.id: picture for picture in pictures}
    listed = {picture.id for picture in file.images}
    masks: dict[Id, list[coco_masks.Segmentation]] = defaultdict(list)
    for entry in file.annotations:
        category, picture = names.get(entry.category_id), by_id.get(entry.image_id)
        if entry.image_id not in listed:
            notes.see("orphan-annotation", label, f"image id {entry.image_id}")
        if category is None:
            notes.see("unknown-category", label, f"category id {entry.category_id}")
        if picture is None or category not in positive:
            continue
        segmentation, problems = coco_masks.checked(entry.segmentation, picture.height, picture.width)
        for code, detail in problems:
            notes.see(code, f"{label}/{picture.file_name}", detail)
        if segmentation is not None:
            masks[picture.id].append(segmentation)
    return masks
