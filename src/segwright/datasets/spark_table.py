"""What a few of SPARK's masks show, and whether `train.csv` and `val.csv` agree with the folders.

A table's columns: `Image name`, `Class` (the craft), `Bounding box` = "(xmin, ymin, xmax, ymax)" in pixels.
"""

import csv
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from segwright.datasets.base import Notes
from segwright.datasets.mask_files import nearest_colours
from segwright.datasets.pairs import PairSplit, sampled, shown
from segwright.errors import DataError
from segwright.images import read_image

LOOKED_AT = 12
"""Masks of each split that are read."""
FAR = 64
"""A channel this far from the nearest class's colour is more than what JPEG does to a flat area."""
FAR_SHARE = 0.05
"""Of a mask's pixels: JPEG blurs the colours along edges, and edges are few."""
INSIDE_SHARE = 0.9
"""Of a craft's pixels must lie in its box; single stray ones may lie outside."""
COLUMNS = ("Image name", "Class", "Bounding box")

Box = tuple[float, float, float, float]


def look(split: PairSplit, palette: np.ndarray, base: Path, notes: Notes) -> dict[Path, np.ndarray]:
    """Reads some masks; notes what their colours are like. Image file -> (H, W) class ids."""
    ids: dict[Path, np.ndarray] = {}
    inexact = 0.0
    for index in sampled(len(split), LOOKED_AT):
        file = split.annotation(index)
        try:
            pixels = read_image(file)
        except DataError as error:
            notes.see("unreadable-mask", shown(file, base), str(error))
            continue
        nearest, share = nearest_colours(pixels, palette)
        inexact += share
        far = (np.abs(pixels.astype(np.int16) - palette[nearest]).max(axis=2) > FAR).mean()
        if far > FAR_SHARE:
            notes.see("foreign-colour", shown(file, base), f"{100 * far:.3g} % of its pixels")
        ids[split.path(index)] = nearest
    if inexact:
        notes.see("snapped", "", f"{split.name}, {100 * inexact / len(ids):.2g} % of the pixels of {len(ids)} masks")
    return ids


def compare(table: Path, split: PairSplit, ids: dict[Path, np.ndarray], base: Path, notes: Notes) -> None:
    """Notes every row that does not fit the images. `ids`: class ids of those whose boxes are compared."""
    name = shown(table, base)
    rows = _rows(table, name, notes)
    if rows is None:
        return
    images: dict[str, dict[str, Path]] = defaultdict(dict)  # file name -> craft -> file
    for index in range(len(split)):
        images[split.path(index).name][split.group(index)] = split.path(index)
    listed = set()
    for row in rows:
        there, craft = images.get(row[0], {}), row[1]
        path = _of_craft(there, craft)
        label = f"{name}, {row[0]}"
        if not there:
            notes.see("table-no-image", label, craft)
        elif path is None:
            notes.see("table-craft", label, f"the table says '{craft}', the folder '{', '.join(there)}'")
        elif flaw := _box_flaw(row[2], ids.get(path)):
            notes.see("table-box", label, flaw)
        listed |= {path} if path is not None else set(there.values())
    for index in range(len(split)):
        if split.path(index) not in listed:
            notes.see("table-unlisted", shown(split.path(index), base), f"not in {name}")


def _rows(table: Path, name: str, notes: Notes) -> list[tuple[str, str, str]] | None:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        notes.see("table-unreadable", name, str(error))
        return None
    if not rows or any(column not in rows[0] for column in COLUMNS):
        found = ", ".join(f"'{key}'" for key in rows[0]) if rows else "no row"
        notes.see("table-unreadable", name, f"it has {found}")
        return None
    return [(row[COLUMNS[0]] or "", row[COLUMNS[1]] or "", row[COLUMNS[2]] or "") for row in rows]


def _of_craft(there: dict[str, Path], craft: str) -> Path | None:
    """The image in that craft's folder; 'XMM_Newton' is 'XMM Newton'."""
    return {_plain(name): path for name, path in there.items()}.get(_plain(craft))


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def _box_flaw(text: str, ids: np.ndarray | None) -> str:
    """What is wrong with a box; empty if nothing, as far as the mask was looked at."""
    box = _box(text)
    if box is None:
        return f"the box is '{text}'"
    if ids is None or not ids.any():
        return ""
    left, top, right, bottom = box
    rows, columns = np.nonzero(ids)
    inside = (columns >= left - 1) & (columns <= right + 1) & (rows >= top - 1) & (rows <= bottom + 1)
    if inside.mean() >= INSIDE_SHARE:
        return ""
    seen = (columns.min(), rows.min(), columns.max(), rows.max())
    return f"the box is {text}, the mask's is ({', '.join(map(str, seen))})"


def _box(text: str) -> Box | None:
    """(xmin, ymin, xmax, ymax) in pixels."""
    numbers = re.findall(r"-?\d+(?:\.\d+)?", text)
    if len(numbers) != 4:
        return None
    left, top, right, bottom = map(float, numbers)
    return (left, top, right, bottom) if left < right and top < bottom else None
