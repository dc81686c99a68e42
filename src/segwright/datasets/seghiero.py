"""SegHiero's layout: images and masks of the same file name in two folders for each split, named by its YAML file.

    dataset:  {root, train: {image_subdir, mask_subdir}, val: {image_subdir, mask_subdir}}
    classes:  {fine_names: {0: name, ...}, ...}

Masks hold the fine classes' ids from 0; 255 is ignored. The classes here are the fine ones. Other sections of the file
are not read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from segwright.datasets import pairs
from segwright.datasets.base import Level, Notes, Source, sound
from segwright.datasets.class_table import MOST_CLASSES
from segwright.datasets.mask_files import read_ids
from segwright.datasets.pairs import PairSplit, by_stem, holds, paired
from segwright.datasets.seghiero_example import example
from segwright.errors import ConfigError, DataError

__all__ = ["Config", "build", "example", "recognises", "scan"]

SPLITS = {"train": "train", "valid": "val", "test": "test"}
YAML_FILES = ("config.yaml", "*.yaml", "*.yml")
CODES: dict[str, tuple[Level, str, str]] = pairs.CODES | {
    "no-such-folder": (
        "error",
        "folders that the configuration names but that are not there",
        "Mend image_subdir and mask_subdir (they lie inside dataset.root), or restore the folders.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    root: str = ""
    """Folder that the splits' folders lie in; empty: `root` of the dataset section."""
    yaml: str = ""
    """SegHiero's YAML file, whose sections dataset and classes are read; empty: they stand here."""
    dataset: dict[str, Any] = field(default_factory=dict)
    """Its section of that name; what stands here goes before the file."""
    classes: dict[str, Any] = field(default_factory=dict)
    """Its section of that name; what stands here goes before the file."""


def recognises(root: Path) -> bool:
    """Whether a folder holds a YAML file of SegHiero's."""
    return Path(root).is_dir() and _file_in(Path(root)) is not None


def build(config: Config) -> Source:
    """The data set. `DataError`, with everything that is wrong, if anything makes it unusable."""
    return sound(scan(config), config.root or config.yaml)


def scan(config: Config) -> Source:
    """The pairs that are there, and as findings what is wrong with the rest.

    Raises:
        ConfigError: the sections lack what is needed.
        DataError: no such YAML file or root.
    """
    content, beside = _content(config)
    dataset = {**_section(content, "dataset"), **config.dataset}
    names = _names({**_section(content, "classes"), **config.classes})
    root = Path(config.root) if config.root else _root(str(dataset.get("root") or ""), beside, dataset)
    notes = Notes(CODES)
    read = partial(read_ids, classes=max(len(names), 2))  # of one class, 0 and 1
    splits = {}
    for name, key in SPLITS.items():
        if dataset.get(key) is None:
            notes.see("empty-split" if name == "train" else "missing-split", f"dataset.{key}")
            continue
        found = _pairs(root, dataset[key], key, notes)
        if found:
            splits[name] = PairSplit(name, tuple(found), read)
        else:
            notes.see("empty-split", f"dataset.{key}")
    return Source(names, splits, notes.findings())


def _content(config: Config) -> tuple[Mapping[str, Any], Path]:
    """What the YAML file holds, and the folder it lies in."""
    root = Path(config.root or ".")
    path = Path(config.yaml) if config.yaml else None if config.dataset else _file_in(root)
    if path is None and not config.dataset:
        raise ConfigError(
            f"data.yaml is not given, and {root.resolve()} holds no YAML file with SegHiero's sections dataset and "
            "classes. Name the file with data.yaml, or put the sections under data."
        )
    return ({}, root) if path is None else (_read(path), path.parent)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file. Name SegHiero's YAML file with data.yaml.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read as YAML ({error}). Mend it.") from None
    if not isinstance(content, Mapping):
        raise DataError(f"{path} holds no sections. SegHiero's YAML has dataset and classes. Name that file.")
    return content


def _file_in(folder: Path) -> Path | None:
    """The YAML file with SegHiero's sections in a folder."""
    for path in [path for pattern in YAML_FILES for path in sorted(folder.glob(pattern))]:
        try:
            content = _read(path)
        except DataError:
            continue
        if "fine_names" in _section(content, "classes") and "train" in _section(content, "dataset"):
            return path
    return None


def _section(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = content.get(name)
    return dict(section) if isinstance(section, Mapping) else {}


def _names(classes: dict[str, Any]) -> tuple[str, ...]:
    """The fine classes by id."""
    given = classes.get("fine_names")
    if isinstance(given, list | tuple):
        given = dict(enumerate(given))
    try:
        names = {int(key): str(name) for key, name in dict(given or {}).items()}
    except (TypeError, ValueError):
        names = {}
    if not names or sorted(names) != list(range(len(names))):
        raise ConfigError(
            f"classes.fine_names is {given!r:.200}; the masks' values 0, 1, 2, ... each need a name, without gaps, "
            "e.g. fine_names: {0: road, 1: car}."
        )
    if len(names) > MOST_CLASSES:
        raise ConfigError(
            f"classes.fine_names has {len(names)} names; masks of 8 bits can tell {MOST_CLASSES} apart. Merge some."
        )
    return tuple(names[key] for key in range(len(names)))


def _root(given: str, beside: Path, dataset: dict[str, Any]) -> Path:
    """The folder of the splits' folders; a relative one from the YAML file's folder, or else from the working one."""
    places = [beside / given, Path(given)]
    train = dataset.get("train")
    subdir = str(train.get("image_subdir") or "") if isinstance(train, Mapping) else ""
    found = [place for place in places if (place / subdir).is_dir()] or [place for place in places if place.is_dir()]
    if not found:
        raise DataError(
            f"the data folder {given}: {holds(Path(given))}. Set data.root, or dataset.root in the YAML file."
        )
    return found[0]


def _pairs(root: Path, split: object, key: str, notes: Notes) -> list[pairs.Pair]:
    folders = []
    for name in ("image_subdir", "mask_subdir"):
        subdir = split.get(name) if isinstance(split, Mapping) else None
        if not subdir:
            raise ConfigError(f"dataset.{key} is {split!r}; it needs {name}, the folder inside dataset.root.")
        folder = root / str(subdir)
        if not folder.is_dir():
            notes.see("no-such-folder", str(subdir), f"dataset.{key}.{name}")
        folders.append(folder)
    images, masks = (by_stem(folder, root, notes) for folder in folders)
    return paired(images, masks, root, notes)
