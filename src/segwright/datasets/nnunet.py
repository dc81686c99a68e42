"""nnU-Net v2's raw layout, read for natural images. Writing: `nnunet_write`.

    dataset.json    imagesTr/<case>_0000.png    labelsTr/<case>.png    [imagesTs/]    [labelsTs/]    [splits_final.json]

An RGB image is one file `_0000`, or three grey ones `_0000` to `_0002`. The label `ignore`, the highest value there, is
255 here. A background and one other label are a binary task. Layout: nnU-Net, documentation/dataset_format.md,
https://github.com/MIC-DKFZ/nnUNet (Apache-2.0).
"""

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segwright.datasets.base import Notes, Source, sound
from segwright.datasets.class_table import MOST_CLASSES
from segwright.datasets.mask_files import read_ids
from segwright.datasets.nnunet_codes import CODES
from segwright.datasets.nnunet_example import example
from segwright.datasets.pairs import holds, shown
from segwright.errors import ConfigError, DataError
from segwright.images import IMAGE_SUFFIXES, read_image

__all__ = ["Config", "NnunetSplit", "build", "example", "recognises", "scan"]

UNKNOWN = ("?",)
"""The classes where dataset.json does not say them."""


@dataclass(frozen=True, kw_only=True)
class Config:
    root: str
    """The data set's folder, DatasetNNN_Name, which holds dataset.json."""
    fold: int | None = None
    """Fold of `splits` whose two halves are train and valid; none: all labelled images are train."""
    splits: str = "splits_final.json"
    """nnU-Net's file of folds (it writes it into nnUNet_preprocessed/DatasetNNN_Name/); from root if relative."""

    def __post_init__(self) -> None:
        if self.fold is not None and self.fold < 0:
            raise ConfigError(f"data.fold is {self.fold}; folds are counted from 0.")


@dataclass(frozen=True)
class Case:
    """One image: its channels' files and its label file."""

    name: str
    channels: tuple[Path, ...]
    label: Path


@dataclass(frozen=True)
class NnunetSplit:
    """The cases of one split, by name."""

    name: str
    cases: tuple[Case, ...]
    ignored: int | None
    """Value in the label files that is 255 here; none: no value is, 255 neither."""
    labels: int
    """Values 0 to `labels` - 1 are classes."""

    def __len__(self) -> int:
        return len(self.cases)

    def path(self, index: int) -> Path:
        return self.cases[index].channels[0]

    def annotation(self, index: int) -> Path:
        return self.cases[index].label

    def image(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB. `DataError` if a file is broken or channels differ in size."""
        channels = [read_image(path) for path in self.cases[index].channels]
        if len({channel.shape for channel in channels}) > 1:
            raise DataError(f"{self.path(index)}: its channels differ in size. Write them anew.")
        return channels[0] if len(channels) == 1 else np.stack([channel[..., 0] for channel in channels], axis=-1)

    def mask(self, index: int) -> np.ndarray:
        """(H, W) uint8 class ids, 255 = ignore. `DataError` if the file is broken, or holds what is no label."""
        return read_ids(self.cases[index].label, self.labels, () if self.ignored is None else (self.ignored,))


def recognises(root: Path) -> bool:
    """Whether a folder looks like this layout."""
    return (Path(root) / "dataset.json").is_file() and (Path(root) / "imagesTr").is_dir()


def build(config: Config) -> Source:
    """The data set. `DataError`, with everything that is wrong, if anything makes it unusable."""
    return sound(scan(config), config.root)


def scan(config: Config) -> Source:
    """The cases that are there, and as findings what is wrong with the rest.

    `DataError` only where there is nothing to read.
    """
    root = Path(config.root)
    if not recognises(root):
        raise DataError(
            f"the data folder {root} lacks dataset.json or imagesTr/; {holds(root)}. Name the folder DatasetNNN_Name "
            "itself (data.root)."
        )
    notes = Notes(CODES)
    content = _json(root / "dataset.json", root, notes, dict) or {}
    names, ignored = _labels(content.get("labels"), notes)
    if "dataset" in content:
        notes.see("listed-files", "dataset.json")
    labelled = _cases(root, "Tr", content, notes)
    if content and content.get("numTraining") != len(labelled):
        notes.see("num-training", "dataset.json", f"{content.get('numTraining')}, {len(labelled)} images with a label")
    parts = _fold(config, root, labelled, notes) | {"test": _test(root, content, notes)}
    labels = 256 if names == UNKNOWN else max(len(names), 2)  # labels that are an error already are not judged by
    splits = {name: NnunetSplit(name, tuple(cases), ignored, labels) for name, cases in parts.items() if cases}
    if "train" not in splits:
        notes.see("empty-split", "imagesTr")
    return Source(_own_names(content.get("classes"), names), splits, notes.findings())


def _json(path: Path, root: Path, notes: Notes, kind: type) -> Any:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        notes.see("not-json", shown(path, root), str(error))
        return None
    if not isinstance(content, kind):
        notes.see("not-json", shown(path, root), f"at its top is a {type(content).__name__}, not a {kind.__name__}")
        return None
    return content


def _labels(labels: object, notes: Notes) -> tuple[tuple[str, ...], int | None]:
    """Names in id order, and the value that is ignored."""
    if not isinstance(labels, dict) or not labels:
        notes.see("labels", "dataset.json", f"labels is {labels!r:.80}")
        return UNKNOWN, None
    regions = [name for name, value in labels.items() if isinstance(value, list) and len(value) > 1]
    if regions:
        notes.see("regions", "dataset.json", ", ".join(f"{name}: {labels[name]}" for name in regions))
        return UNKNOWN, None
    values = {name: value[0] if isinstance(value, list) and value else value for name, value in labels.items()}
    ignored = values.pop("ignore", None)
    by_value = {value: name for name, value in values.items() if type(value) is int}
    expected = list(range(len(values)))
    if sorted(by_value) != expected or ignored not in (None, len(values)):
        notes.see("labels", "dataset.json", ", ".join(f"{name}: {value}" for name, value in labels.items()))
        return UNKNOWN, None
    if len(values) > MOST_CLASSES:
        notes.see("too-many-labels", "dataset.json", str(len(values)))
    names = tuple(by_value[value] for value in expected)
    return names[1:] if len(names) == 2 else names, ignored


def _own_names(given: object, names: tuple[str, ...]) -> tuple[str, ...]:
    """Where this package wrote the file, what it called the classes: nnU-Net insists on a class 0 called background."""
    if isinstance(given, list) and all(isinstance(name, str) for name in given):
        own, known = tuple(given), names if len(names) > 1 else ("background", *names)
        if own == names or own[1:] == known[1:]:
            return own
    return names


def _cases(root: Path, which: str, content: dict[str, Any], notes: Notes) -> dict[str, Case]:
    """Case -> its files, for those that have image and label; which: `Tr` or `Ts`."""
    ending = str(content.get("file_ending") or ".png")
    if ending.lower() not in IMAGE_SUFFIXES:
        notes.see("unknown-ending", "dataset.json", f"file_ending is {ending}")
        return {}
    images: dict[str, list[Path]] = defaultdict(list)
    for path in _files(root / f"images{which}", ending):
        case = re.sub(r"_\d{4}$", "", path.name.removesuffix(ending))
        images[case].append(path)
    labels = {path.name.removesuffix(ending): path for path in _files(root / f"labels{which}", ending)}
    for case in sorted(images.keys() - labels.keys()):
        notes.see("missing-mask", shown(images[case][0], root))
    for case in sorted(labels.keys() - images.keys()):
        notes.see("missing-image", shown(labels[case], root))
    cases = {}
    for case in sorted(images.keys() & labels.keys()):
        if len(images[case]) in (1, 3):
            cases[case] = Case(case, tuple(images[case]), labels[case])
        else:
            notes.see("channels", shown(images[case][0], root), f"{len(images[case])} files")
    return cases


def _files(folder: Path, ending: str) -> list[Path]:
    return sorted(path for path in folder.glob(f"*{ending}") if not path.name.startswith("."))


def _test(root: Path, content: dict[str, Any], notes: Notes) -> list[Case]:
    """The labelled test cases."""
    ending = str(content.get("file_ending") or ".png")
    if (root / "labelsTs").is_dir() and _files(root / "labelsTs", ending):
        return list(_cases(root, "Ts", content, notes).values())
    images = _files(root / "imagesTs", ending)
    if images:
        notes.see("test-without-masks", "imagesTs", f"{len(images)} files")
    return []


def _fold(config: Config, root: Path, labelled: dict[str, Case], notes: Notes) -> dict[str, list[Case]]:
    """Train and valid by the fold, or all of it as train."""
    if config.fold is None:
        return {"train": list(labelled.values())}
    path = root / config.splits
    folds = _json(path, root, notes, list) or []
    if config.fold >= len(folds):
        notes.see("no-such-fold", shown(path, root), f"data.fold is {config.fold}, there are {len(folds)}")
        return {"train": list(labelled.values())}
    fold = folds[config.fold] if isinstance(folds[config.fold], dict) else {}
    halves: dict[str, Any] = {name: fold.get(key) for name, key in (("train", "train"), ("valid", "val"))}
    if not all(isinstance(cases, list) and all(isinstance(case, str) for case in cases) for cases in halves.values()):
        notes.see("not-json", shown(path, root), "a fold is a list of cases under 'train' and one under 'val'")
        return {"train": list(labelled.values())}
    listed = {case for cases in halves.values() for case in cases}
    for case in sorted(listed - labelled.keys()):
        notes.see("unknown-case", shown(path, root), case)
    for case in sorted(labelled.keys() - listed):
        notes.see("not-in-fold", shown(labelled[case].channels[0], root))
    return {name: [labelled[case] for case in sorted(cases) if case in labelled] for name, cases in halves.items()}
