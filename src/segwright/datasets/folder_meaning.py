"""What the masks of a folder mean: the classes, the kind of mask, and what is wrong with them."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from segwright.ahead import cores
from segwright.datasets import class_table
from segwright.datasets.base import IGNORE, Notes
from segwright.datasets.class_table import ClassTable, Colour
from segwright.datasets.folder_masks import (
    Coding,
    Kind,
    Look,
    coding,
    common_colours,
    find_kind,
    look,
    sample,
    table_of_values,
)
from segwright.datasets.mask_files import LOSSY
from segwright.datasets.pairs import sampled, shown
from segwright.errors import DataError
from segwright.images import alone_if_large

KIND_FROM = 64
"""Masks from which their kind is concluded."""
LOOKED_AT = 5000
"""Masks that are looked over, of more a part; where nobody names the classes, all."""


def table_for(root: Path, masks: Iterable[Path], classes: Any) -> ClassTable | None:
    """The classes that a config names, in itself or by a file, or that a file beside the data does.

    `DataError` if a file cannot be used, or two of them differ.
    """
    if isinstance(classes, str):
        return class_table.read(root / classes if (root / classes).is_file() else Path(classes))
    if classes is not None:
        return class_table.parse(classes)
    folders = {folder for mask in masks for folder in mask.parents if folder.is_relative_to(root)}
    deep_last = sorted(folders, key=lambda folder: (len(folder.parts), folder))
    tables = {path: class_table.read(path) for folder in deep_last if (path := class_table.find([folder]))}
    first = next(iter(tables), None)
    for path, table in tables.items():
        if first and replace(table, origin="") != replace(tables[first], origin=""):
            raise DataError(
                f"{shown(first, root)} and {shown(path, root)} list different classes, so a mask's value has no clear "
                "meaning. Make them the same, or list the classes in data.classes."
            )
    return tables[first] if first else None


def meaning(
    root: Path,
    masks: Sequence[Path],
    kind: Kind | Literal["auto"],
    table: ClassTable | None,
    ignored: tuple[list[int], list[Colour], bool],
    notes: Notes,
) -> tuple[Coding, ClassTable]:
    """How masks are read and the classes that they then hold. Looks over the masks and notes what is wrong with them.

    ignored: values, colours, and whether all that stands for no class. `DataError` where the classes cannot be told.
    """
    values, colours, rest = ignored
    table = _scored(table, values, colours)
    found, why = kind == "auto", "data.kind"
    if kind == "auto" and table is not None and table.kind is not None:
        kind, why = table.kind, f"{table.origin} says"
    if kind == "auto":
        kind, why = find_kind(filter(None, map(sample, _some(masks, KIND_FROM))), table, values)
    _refuse_unclear(kind, table, masks)
    if kind == "binary":
        _refuse_ignored(values, colours, masks)
    seen = _some(masks, LOOKED_AT) if table is not None or kind == "binary" else masks
    looks = _looks(seen, coding(kind, table or ClassTable(("any",), (1,), None), greys=values), root, notes)
    _refuse_dark(kind, looks, root)
    if table is None:
        if found and IGNORE not in values:
            _refuse_mixed(kind, looks, root)
        table = table_of_values({value for one in looks.values() for value in one.values} - set(values), kind)
        table = _scored(table, values, colours) or table
    code = coding(kind, table, rest, values)
    if len(seen) < len(masks):
        code = replace(code, strict=kind == "index" and not rest)
        notes.see("sampled", "", f"{len(seen)} of {len(masks)}")
    _judge(looks, code, root, notes)
    changed = _changed(looks)
    notes.see("kind", "", f"{kind}, as {why}" + (f"; {changed:.2%} of the pixels snapped" if changed else ""))
    notes.see("classes", "", _legend(table, kind))
    return code, table


def _scored(table: ClassTable | None, values: list[int], colours: list[Colour]) -> ClassTable | None:
    try:
        return table and class_table.without(table, values, colours)
    except ValueError as error:
        raise DataError(f"{error} Shorten data.ignore.") from None


def _refuse_unclear(kind: Kind, table: ClassTable | None, masks: Sequence[Path]) -> None:
    if kind == "colours" and (table is None or table.colours is None):
        raise DataError(_no_colours(masks, table))
    if kind == "binary" and table is not None and len(table.names) > 2:
        raise DataError(
            f"the masks are black and white, but {table.origin} lists {len(table.names)} classes, of which such masks "
            "tell at most two. List one name, or two, the one that is black first; or set data.kind."
        )


def _refuse_ignored(values: Sequence[int], colours: Sequence[Colour], masks: Sequence[Path]) -> None:
    """Of black and white masks, grey levels between the two can be ignored, where they are stored exactly."""
    listed = ", ".join(map(str, [*values, *colours]))
    if colours or {0, IGNORE} & set(values):
        raise DataError(
            f"data.ignore lists {listed}, but the masks are black and white (kind binary), where only grey levels "
            "from 1 to 254 can be ignored. Give those, or set data.kind to what the masks are."
        )
    if values and any(mask.suffix.lower() in LOSSY for mask in masks):
        raise DataError(
            f"data.ignore lists {listed}, but the masks are black and white JPEG or WebP files, in which a grey level "
            "is no longer exact. Export them as PNG, or leave out data.ignore."
        )


def _refuse_dark(kind: Kind, looks: dict[Path, Look], root: Path) -> None:
    """Black and white masks without any white that are not all black are ids of classes."""
    dark = next((path for path, one in looks.items() if one.changed), None)
    if kind == "binary" and dark and not any(one.values[1] for one in looks.values()):
        raise DataError(
            f"data.kind is binary, but no mask holds white (255), while {shown(dark, root)} holds other values than "
            "black, so all would be read as empty. Leave data.kind out, or set data.kind=index if they are class ids."
        )


def _refuse_mixed(kind: Kind, looks: dict[Path, Look], root: Path) -> None:
    """Some masks of 0 and 1, others of 0 and 255: 255 may be white there or ignored, and nothing says which."""
    held = {path: one.values.keys() - {0} for path, one in looks.items()}
    one = next((path for path, values in held.items() if values == {1}), None)
    white = next((path for path, values in held.items() if values == {IGNORE}), None)
    if kind == "index" and one and white and all(values in (set(), {1}, {IGNORE}) for values in held.values()):
        raise DataError(
            f"some masks hold 0 and 1 ({shown(one, root)}), others 0 and 255 ({shown(white, root)}), so 255 may be "
            "white or what is not scored. If it is not scored, set data.kind=index, or list the classes with their "
            "ids in data.classes; if it is white, write all masks in one way."
        )


def _some(paths: Sequence[Path], at_most: int) -> list[Path]:
    return [paths[index] for index in sampled(len(paths), at_most)]


def _looks(masks: Iterable[Path], code: Coding, root: Path, notes: Notes) -> dict[Path, Look]:
    """What is in each mask that can be read; several are read at a time."""
    masks = list(masks)

    def guarded(path: Path) -> Look | DataError:
        try:
            with alone_if_large(path):
                return look(path, code)
        except DataError as error:
            return error

    with ThreadPoolExecutor(min(4, cores())) as pool:
        results = dict(zip(masks, pool.map(guarded, masks), strict=True))
    for path, result in results.items():
        if isinstance(result, DataError):
            notes.see("unreadable-mask", shown(path, root), str(result))
    return {path: result for path, result in results.items() if isinstance(result, Look)}


def _judge(looks: dict[Path, Look], code: Coding, root: Path, notes: Notes) -> None:
    known = {value for value, _ in code.ids}
    for path, one in looks.items():
        unknown = sorted(one.values.keys() - known) if code.kind == "index" and code.rest != IGNORE else []
        if unknown:
            share = sum(one.values[value] for value in unknown) / one.pixels
            listed = ", ".join(map(str, unknown[:10])) + (", ..." if len(unknown) > 10 else "")
            notes.see("unknown-value", shown(path, root), f"{listed} ({share:.2%} of its pixels)")
        if one.strange:
            notes.see("unknown-colour", shown(path, root), ", ".join(map(str, one.strange)))
    for path, one in sorted(looks.items(), key=lambda item: -item[1].changed):
        if one.changed:
            notes.see("snapped", shown(path, root), f"{one.changed:.2%} of its pixels")


def _changed(looks: dict[Path, Look]) -> float:
    """Share of all pixels that were snapped."""
    return sum(one.changed * one.pixels for one in looks.values()) / max(sum(one.pixels for one in looks.values()), 1)


def _no_colours(masks: Sequence[Path], table: ClassTable | None) -> str:
    """What to say of colour masks whose colours nobody explained."""
    seen = common_colours(_some(masks, KIND_FROM))
    lines = "".join(f"\n    - {{name: ?, color: [{r}, {g}, {b}]}}" for r, g, b in seen)
    have = f"{table.origin} gives no colours" if table else "nothing says which class a colour means"
    return (
        f"the masks hold colours, and {have}, so they cannot be read. Name them (or put a classes.json beside the "
        f"data); the most frequent are:\n  data:\n    classes:{lines}"
    )


def _legend(table: ClassTable, kind: str) -> str:
    meant: Iterable[object] = table.colours or () if kind == "colours" else table.values
    if kind == "binary":
        meant = ("white",) if len(table.names) == 1 else ("black", "white")
    first = 1 if len(table.names) == 1 else 0
    legend = ", ".join(
        f"{i} {name} = {what}" for i, (name, what) in enumerate(zip(table.names, meant, strict=True), first)
    )
    return f"{legend} (from {table.origin})"
