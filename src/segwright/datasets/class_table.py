"""Which class is meant by a mask's value or colour: from a config, or from the files that other tools write.

Understood in a config and in JSON:
- a list: names in id order, or mappings with `name` and, as far as known, `id` and `color` (also `colour`, `rgb`);
  a single name without an id is 1, for all else is background;
- a mapping: name -> id, id -> name, or name -> colour. A colour is [r, g, b] or '#rrggbb';
- a mapping with the key `classes` that holds one of these, and with `ignore_index` or `void` (an entry, or several)
  for what is not scored, and `mask_kind` (index, colours or binary).
Other files: `_classes.csv` (Roboflow: Pixel Value, Class), `class_dict.csv` (name, r, g, b), `labelmap.txt` (CVAT:
name:r,g,b:parts:actions), `classes.txt` (one name a line; `__ignore__`, as Labelme has it, is not counted).
"""

import contextlib
import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from segwright.datasets.base import IGNORE
from segwright.errors import DataError

Colour = tuple[int, int, int]
Kind = Literal["index", "colours", "binary"]
"""Of masks: they hold classes' values, or colours, or are black and white."""

FILES = ("classes.json", "_classes.csv", "class_dict.csv", "labelmap.txt", "classes.txt")
"""Names of files with classes, in the order in which they are looked for."""
MOST_CLASSES = 254
"""Ids are 0 to 253: 255 is ignored, and 254 stands for what is no class."""
_COLOUR_KEYS = ("color", "colour", "rgb")


@dataclass(frozen=True)
class ClassTable:
    """Classes in id order. Ids are positions here, whatever values the masks hold."""

    names: tuple[str, ...]
    values: tuple[int, ...]
    """What an index mask holds for each class."""
    colours: tuple[Colour, ...] | None
    """RGB of each class, if all have one."""
    ignored: frozenset[int] = frozenset({IGNORE})
    """Values that are not scored."""
    ignored_colours: tuple[Colour, ...] = ()
    origin: str = "data.classes"
    kind: Kind | None = None
    """Of the masks, where it is said."""


@dataclass(frozen=True)
class _Entry:
    name: str
    value: int | None = None
    colour: Colour | None = None


def parse(content: Any, origin: str = "data.classes") -> ClassTable:
    """The table that a config or a JSON file describes. Raises `ValueError`: what is wrong, and what to write."""
    if not (isinstance(content, Mapping) and "classes" in content):
        return _table(_entries(content), [], origin)
    kind = content.get("mask_kind")
    if kind not in (None, *get_args(Kind)):
        raise ValueError(f"mask_kind is {kind!r}; there are: {', '.join(get_args(Kind))}.")
    return replace(_table(_entries(content["classes"]), _not_scored(content), origin), kind=kind)


def read(path: Path) -> ClassTable:
    """The table in a file. Raises `DataError`, naming it."""
    if not path.is_file():
        raise DataError(f"there is no file {path} with classes. Check the path in data.classes, or list them there.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            return parse(json.loads(text), path.name)
        if path.suffix.lower() == ".csv":
            return _table(_from_csv(text), [], path.name)
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        return _table(_from_labelmap(lines) if _is_labelmap(lines) else _from_names(lines), [], path.name)
    except (OSError, ValueError) as error:  # JSON's and Unicode's errors are ValueErrors
        raise DataError(
            f"the classes in {path} cannot be used: {error} Mend the file, or list the classes in data.classes."
        ) from None


def without(table: ClassTable, values: Iterable[int], colours: Iterable[Colour]) -> ClassTable:
    """The table in which these values and colours are not scored. Raises `ValueError` if no class is left."""
    values, colours = {*table.ignored, *values}, {*table.ignored_colours, *colours}
    kept = [
        place
        for place, value in enumerate(table.values)
        if value not in values and not (table.colours and table.colours[place] in colours)
    ]
    if not kept:
        raise ValueError(f"all classes of {table.origin} are ignored, so nothing is left to learn.")
    return replace(
        table,
        names=tuple(table.names[place] for place in kept),
        values=tuple(table.values[place] for place in kept),
        colours=tuple(table.colours[place] for place in kept) if table.colours else None,
        ignored=frozenset(values),
        ignored_colours=tuple(sorted(colours)),
    )


def find(folders: Iterable[Path]) -> Path | None:
    """The first file with classes in the first of the folders that has one."""
    for folder in folders:
        for name in FILES:
            if (folder / name).is_file():
                return folder / name
    return None


def _entries(content: Any) -> list[_Entry]:
    if isinstance(content, list | tuple):
        return [_entry(item) for item in content]
    if isinstance(content, Mapping):
        return [_keyed(key, value) for key, value in content.items()]
    raise ValueError(f"the classes are {content!r}; give a list of names, or a mapping of names to ids.")


def _entry(item: Any) -> _Entry:
    if not isinstance(item, Mapping):
        return _Entry(str(item))
    if "name" not in item:
        raise ValueError(f"the class {dict(item)!r} has no name; give each name, and id or color where needed.")
    colour = next((item[key] for key in _COLOUR_KEYS if item.get(key) is not None), None)
    value = item.get("id")
    return _Entry(str(item["name"]), None if value is None else whole(value), None if colour is None else rgb(colour))


def _keyed(key: Any, value: Any) -> _Entry:
    """name -> id, name -> colour, name -> {id, color}, id -> name, or id -> {name, color}."""
    if isinstance(value, Mapping):
        return _entry({"name": key, **value} if "name" not in value else {"id": key, **value})
    if isinstance(value, str) and str(key).isdecimal() and not value.startswith("#"):
        return _Entry(value, int(key))
    if isinstance(value, int) and not isinstance(value, bool):
        return _Entry(str(key), whole(value))
    return _Entry(str(key), None, rgb(value))


def _not_scored(content: Mapping[str, Any]) -> list[_Entry]:
    void = content.get("void")
    found = [_entry(item) for item in (void if isinstance(void, list) else [void] if void else [])]
    index = content.get("ignore_index")
    return found if index is None else [*found, _Entry("ignore_index", whole(index))]


def whole(value: Any) -> int:
    """A mask's value. Raises `ValueError` unless it is a whole number from 0 to 65535."""
    if isinstance(value, bool) or not str(value).strip().isdecimal() or int(value) > 65535:
        raise ValueError(f"an id is {value!r}; an id is a whole number from 0 to 65535.")
    return int(value)


def rgb(value: Any) -> Colour:
    """RGB of [r, g, b] or '#rrggbb'. Raises `ValueError`."""
    if isinstance(value, str) and len(value) == 7 and value.startswith("#"):
        with contextlib.suppress(ValueError):
            value = list(bytes.fromhex(value[1:]))
    numbers = isinstance(value, list | tuple) and len(value) == 3
    if not numbers or not all(str(part).strip().isdecimal() and int(part) <= 255 for part in value):
        raise ValueError(f"a colour is {value!r}; a colour is [red, green, blue], each 0 to 255, or '#rrggbb'.")
    return int(value[0]), int(value[1]), int(value[2])


def _from_names(lines: list[str]) -> list[_Entry]:
    return [_Entry(line) for line in lines if line != "__ignore__"]


def _is_labelmap(lines: list[str]) -> bool:
    return bool(lines) and all(line.count(":") == 3 for line in lines)


def _from_labelmap(lines: list[str]) -> list[_Entry]:
    split = [line.split(":") for line in lines]
    return [_Entry(name, None, rgb(colour.split(","))) for name, colour, *_ in split]


def _from_csv(text: str) -> list[_Entry]:
    rows = list(csv.DictReader(io.StringIO(text), skipinitialspace=True))
    plain = [{str(key).strip().lower(): (value or "").strip() for key, value in row.items()} for row in rows]
    if not plain or not plain[0].keys() & {"class", "name"}:
        raise ValueError("its first line has no column 'Class' or 'name'.")
    return [_csv_entry(row) for row in plain]


def _csv_entry(row: Mapping[str, str]) -> _Entry:
    value = next((row[key] for key in ("pixel value", "id", "value") if row.get(key)), None)
    colour = rgb([row["r"], row["g"], row["b"]]) if {"r", "g", "b"} <= row.keys() else None
    return _Entry(row.get("class") or row.get("name") or "", None if value is None else whole(value), colour)


def _table(entries: list[_Entry], ignored: list[_Entry], origin: str) -> ClassTable:
    given = [entry for entry in entries if entry.value is not None]
    if given and len(given) != len(entries):
        without = next(entry.name for entry in entries if entry.value is None)
        raise ValueError(f"the class '{without}' has no id, but others have. Give all of them an id, or none.")
    first = 1 if len(entries) == 1 else 0  # of a single class, 0 is what is not of it
    numbered = [(entry.value if given else place, entry) for place, entry in enumerate(entries, first)]
    white = given and [value for value, _ in numbered] == [IGNORE]  # a single class on black, so 255 is not ignored
    ignored = [*ignored, *(entry for value, entry in numbered if given and value == IGNORE and not white)]
    gone = {*([] if white else [IGNORE]), *(entry.value for entry in ignored if entry.value is not None)}
    classes = sorted(((value, entry) for value, entry in numbered if value not in gone or not given), key=_value)
    _no_doubles(classes)
    colours = [entry.colour for _, entry in classes]
    return ClassTable(
        names=tuple(entry.name for _, entry in classes),
        values=tuple(value for value, _ in classes if value is not None),
        colours=tuple(colour for colour in colours if colour) if all(colours) else None,
        ignored=frozenset(gone),
        ignored_colours=tuple(entry.colour for entry in ignored if entry.colour is not None),
        origin=origin,
    )


def _value(numbered: tuple[int | None, _Entry]) -> int:
    return numbered[0] or 0


def _no_doubles(classes: list[tuple[int | None, _Entry]]) -> None:
    if not 1 <= len(classes) <= MOST_CLASSES:
        raise ValueError(f"there are {len(classes)} classes; masks of 8 bits can tell 1 to {MOST_CLASSES}.")
    columns: tuple[tuple[str, list[Any]], ...] = (
        ("name", [entry.name for _, entry in classes]),
        ("id", [value for value, _ in classes]),
        ("colour", [entry.colour for _, entry in classes if entry.colour]),
    )
    for what, seen in columns:
        doubled = next((one for one in seen if seen.count(one) > 1), None)
        if doubled is not None or "" in seen:
            raise ValueError(f"two classes have the {what} {doubled!r}." if doubled else "a class has no name.")
