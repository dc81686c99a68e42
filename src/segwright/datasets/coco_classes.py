"""Which of a COCO data set's categories are which class: one positive by pattern, or several by name.

Roboflow's placeholder for the project is left out either way: a category that another one names as its supercategory
and that no annotation of any split refers to, unless that would leave none.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from segwright.datasets.base import IGNORE, Notes
from segwright.datasets.class_table import MOST_CLASSES
from segwright.datasets.coco_file import Category, CocoFile, Id
from segwright.errors import nearest

Names = Mapping[str, Mapping[Id, Category]]
"""Split -> id -> category."""


@dataclass(frozen=True)
class Classes:
    """Classes in id order (one: binary), and the id that each category is painted as."""

    names: tuple[str, ...]
    ids: Mapping[Category, int]


def by_pattern(files: Mapping[str, CocoFile], names: Names, pattern: str, notes: Notes) -> Classes:
    """One class: every category that the pattern finds is 1. If there are none, an error note."""
    kept = _kept(files, names, notes)
    positive = {category for category in kept if re.search(pattern, category.name, re.IGNORECASE)}
    if files and not positive:
        there = ", ".join(sorted({f"'{category.name}'" for category in kept})) or "none at all"
        notes.see("no-matching-category", "", f"the pattern is '{pattern}', the categories are {there}")
    for kind, group in (("positive", positive), ("background", kept - positive)):
        for name in sorted({category.name for category in group}) if positive else ():
            notes.see("classes", "", f"'{name}' is {kind}")
    together = " / ".join(sorted({category.name for category in positive})) or pattern
    return Classes((together,), dict.fromkeys(positive, 1))


def by_name(
    files: Mapping[str, CocoFile],
    names: Names,
    wanted: str | Sequence[str],
    background: str,
    ignore: str,
    notes: Notes,
) -> Classes:
    """The background as 0, then every category by its least id and name, or those wanted in their order.

    Categories of one name are one class, whichever ids the splits give them. The one called `ignore` is 255.
    """
    kept = _kept(files, names, notes)
    there = _in_order(kept)
    foreground = [name for name in (there if isinstance(wanted, str) else wanted) if name not in (background, ignore)]
    for name in foreground:
        if name not in there:
            notes.see("no-such-class", "", f"'{name}'.{nearest(name, there)}")
    if not foreground:
        notes.see("no-such-class", "", f"none but '{background}' and '{ignore}' is there")
    if len(foreground) > MOST_CLASSES - 1:
        notes.see("too-many-classes", "", str(len(foreground)))
        foreground = foreground[: MOST_CLASSES - 1]
    ids = {background: 0, **{name: index for index, name in enumerate(foreground, start=1)}, ignore: IGNORE}
    for name in there:
        notes.see("classes", "", f"'{name}' is {ids.get(name, 'background')}")
    binary = len(foreground) == 1 and background not in (there if isinstance(wanted, str) else wanted)
    classes = foreground if binary else [background, *foreground]
    return Classes(tuple(classes), {category: ids[category.name] for category in kept if category.name in ids})


def _in_order(categories: Iterable[Category]) -> list[str]:
    """Their names, each once: by the least id (numbers before texts), then by name."""
    least: dict[str, tuple[bool, int, str]] = {}
    for category in categories:
        key = (isinstance(category.id, str), category.id if isinstance(category.id, int) else 0, str(category.id))
        least[category.name] = min(key, least.get(category.name, key))
    return sorted(least, key=lambda name: (least[name], name))


def _kept(files: Mapping[str, CocoFile], names: Names, notes: Notes) -> set[Category]:
    """The categories of all splits without placeholders."""
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
    return categories - dummies
