"""Reads one COCO annotation file into plain records; whatever is wrong with it becomes a note.

Layout: https://cocodataset.org/#format-data, object detection. Only what segmentation needs is read.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segwright.datasets.base import Notes

Id = int | str


@dataclass(frozen=True)
class Category:
    """A class as a file names it. The same one in two files, even where they name different parents."""

    name: str
    id: Id
    supercategory: str = field(default="", compare=False)


@dataclass(frozen=True)
class Picture:
    """An entry of `images`; height and width in pixels."""

    id: Id
    file_name: str
    height: int
    width: int


@dataclass(frozen=True)
class Annotation:
    """An entry of `annotations`; `segmentation` as it stands in the file."""

    image_id: Id
    category_id: Id
    segmentation: Any
    crowd: bool = False
    """Whether it is a group of things rather than one."""


@dataclass(frozen=True)
class CocoFile:
    """The entries of one file that could be read, in its order."""

    categories: list[Category]
    images: list[Picture]
    annotations: list[Annotation]


_Fields = dict[str, tuple[str, Callable[[Any], bool]]]
_ID = ("a whole number or a text", lambda value: isinstance(value, int | str) and not isinstance(value, bool))
_TEXT = ("a text", lambda value: isinstance(value, str))
_SIZE = ("a whole number above 0", lambda value: type(value) is int and value > 0)
_FIELDS: dict[str, _Fields] = {
    "categories": {"id": _ID, "name": _TEXT},
    "images": {"id": _ID, "file_name": _TEXT, "height": _SIZE, "width": _SIZE},
    "annotations": {"image_id": _ID, "category_id": _ID},
}


def read(path: Path, label: str, notes: Notes) -> CocoFile | None:
    """The file's entries, or None if it is no COCO file. `label`: what notes call it."""
    content = _content(path, label, notes)
    if content is None:
        return None
    entries = {key: _good(content[key], key, label, notes) for key in _FIELDS}
    return CocoFile(
        [
            Category(entry["name"], entry["id"], str(entry.get("supercategory") or ""))
            for entry in entries["categories"]
        ],
        [Picture(entry["id"], entry["file_name"], entry["height"], entry["width"]) for entry in entries["images"]],
        [
            Annotation(entry["image_id"], entry["category_id"], entry.get("segmentation"), entry.get("iscrowd") == 1)
            for entry in entries["annotations"]
        ],
    )


def _content(path: Path, label: str, notes: Notes) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        notes.see("no-annotations", label, _siblings(path))
        return None
    except OSError as error:
        notes.see("no-annotations", label, error.strerror or str(error))
        return None
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, or not UTF-8
        notes.see("not-json", label, str(error))
        return None
    if not isinstance(content, dict):
        notes.see("not-coco", label, f"at its top is a {type(content).__name__}, not an object")
        return None
    for key in _FIELDS:
        if not isinstance(content.get(key), list):
            notes.see("not-coco", label, f"'{key}' is no list" if key in content else f"it lacks '{key}'")
    return content if all(isinstance(content.get(key), list) for key in _FIELDS) else None


def _good(entries: list[Any], key: str, label: str, notes: Notes) -> list[dict[str, Any]]:
    """The entries that have what is needed; a note on each of the others."""
    good = []
    for index, entry in enumerate(entries):
        flaw = _flaw(entry, _FIELDS[key])
        if flaw:
            notes.see("bad-entry", label, f"{key}[{index}] {flaw}")
        else:
            good.append(entry)
    return good


def _flaw(entry: Any, fields: _Fields) -> str:
    if not isinstance(entry, dict):
        return "is no object"
    for name, (kind, is_kind) in fields.items():
        if name not in entry:
            return f"lacks '{name}'"
        if not is_kind(entry[name]):
            return f"has {name} = {entry[name]!r:.40}, which is not {kind}"
    return ""


def _siblings(path: Path) -> str:
    found = sorted(other.name for other in path.parent.glob("*.json"))
    return f"the JSON files there are {', '.join(found[:10])}" if found else "there is no JSON file there"
