"""Any data set as nnU-Net v2 wants it: lossless PNG, labels without gaps, `ignore` the highest of them."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from segwright.datasets.base import IGNORE, Source
from segwright.datasets.writing import Advance, each, sample, stems
from segwright.errors import ConfigError
from segwright.files import write_text
from segwright.png import write_png

NAME = re.compile(r"[A-Za-z0-9][\w-]*")
PARTS = {"train": "Tr", "valid": "Tr", "test": "Ts"}


def write(source: Source, folder: Path, name: str, number: int, advance: Advance = lambda: None) -> Path:
    """Writes `folder`/DatasetNNN_name and returns it.

    Train and valid go into imagesTr; where there is a valid split, splits_final.json holds the two as fold 0 (copy it
    into nnUNet_preprocessed/DatasetNNN_name/ after preprocessing). Images become RGB PNG, whatever they were.

    Raises:
        ConfigError: a name or number that nnU-Net would not find.
        DataError: an image or mask that cannot be read or does not fit.
    """
    if not NAME.fullmatch(name) or not 1 <= number <= 999:
        raise ConfigError(
            f"nnU-Net finds a data set by its folder's name, DatasetNNN_Name; number {number} and name '{name}' make "
            "none. Take a number from 1 to 999 and a name of letters, digits, - and _."
        )
    target = folder / f"Dataset{number:03d}_{name}"
    labels = _labels(source)
    used: set[str] = set()
    cases = {split: stems(source.splits[split], used) for split in source.splits}
    ignores = False
    for split in source.splits:
        ignores |= any(_write_split(source, split, cases[split], target, len(labels), advance))
    if ignores:
        labels["ignore"] = len(labels)
    train, valid = cases.get("train", []), cases.get("valid", [])
    _describe(target, source, labels, len(train) + len(valid), name)
    if valid:
        write_text(target / "splits_final.json", json.dumps([{"train": train, "val": valid}], indent=1))
    return target


def _write_split(
    source: Source, split: str, cases: list[str], target: Path, ignored: int, advance: Advance
) -> list[bool]:
    """Images and labels of a split; whether each has ignored pixels."""
    part, samples = PARTS[split], source.splits[split]

    def write_case(index: int) -> bool:
        image, mask = sample(source, samples, index)
        ids = np.where(mask == IGNORE, ignored, mask).astype(np.uint8)
        write_png(target / f"images{part}" / f"{cases[index]}_0000.png", image)
        write_png(target / f"labels{part}" / f"{cases[index]}.png", ids)
        return bool((mask == IGNORE).any())

    return each(samples, write_case, advance)


def _labels(source: Source) -> dict[str, int]:
    """Name -> id. Class 0 has to be called background there; `classes` in dataset.json keeps its own name."""
    names = list(source.classes) if source.num_classes > 1 else ["background", *source.classes]
    labels = {("background" if index == 0 else name): index for index, name in enumerate(names)}
    if len(labels) < len(names) or "ignore" in labels:
        raise ConfigError(
            f"the classes are {', '.join(source.classes)}; nnU-Net keeps the name 'background' for class 0 and "
            "'ignore' for pixels that do not count, and needs different names. Rename a class."
        )
    return labels


def _describe(target: Path, source: Source, labels: dict[str, int], count: int, name: str) -> None:
    """dataset.json; nnU-Net does not read `name` and `classes`."""
    content: dict[str, Any] = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": labels,
        "numTraining": count,
        "file_ending": ".png",
        "overwrite_image_reader_writer": "NaturalImage2DIO",
        "name": name,
        "classes": list(source.classes),
    }
    write_text(target / "dataset.json", json.dumps(content, indent=1))
