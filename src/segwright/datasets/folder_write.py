"""Any data set as images and masks in folders: `<split>/images`, `<split>/masks` (PNG of class ids), classes.json."""

import json
from pathlib import Path
from typing import Any

from segwright.datasets.base import IGNORE, Source
from segwright.datasets.writing import Advance, copy_image, each, sample, stems
from segwright.files import write_text
from segwright.png import write_png


def write(source: Source, folder: Path, advance: Advance = lambda: None) -> dict[str, Any]:
    """Fills `folder`; gives the keys with which the reader `folder` reads the same classes and masks.

    Image files are copied as they are. `DataError` where an image or mask cannot be read or does not fit.
    """
    for name, split in source.splits.items():
        names = stems(split, set())

        def write_one(index: int, name: str = name, names: list[str] = names) -> None:
            split = source.splits[name]
            image, mask = sample(source, split, index)
            copy_image(split, index, image, folder / name / "images" / names[index])
            write_png(folder / name / "masks" / f"{names[index]}.png", mask)

        each(split, write_one, advance)
    content = {"classes": _classes(source), "ignore_index": IGNORE, "mask_kind": "index"}
    write_text(folder / "classes.json", json.dumps(content, indent=1, ensure_ascii=False))
    return {"kind": "index"}


def _classes(source: Source) -> list[dict[str, Any]]:
    first = 1 if source.num_classes == 1 else 0
    entries: list[dict[str, Any]] = [{"id": number, "name": name} for number, name in enumerate(source.classes, first)]
    for entry, colour in zip(entries, source.colours or (), strict=False):
        entry["color"] = list(colour)
    return entries
