"""What the values of mask files mean: found out from some of them, looked over in all, and read for training.

Kinds: `index`, values that are (or stand for) class ids, palette images included; `colours`, colours that stand for
classes; `binary`, black and white, 1 where white.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segwright.datasets.base import IGNORE
from segwright.datasets.class_table import MOST_CLASSES, ClassTable, Colour, Kind
from segwright.datasets.mask_files import (
    LOSSY,
    nearest_colours,
    packed,
    read_binary,
    read_colours,
    read_values,
    unpacked,
)
from segwright.errors import DataError
from segwright.images import image_kind, read_image
from segwright.large import value_counts

NO_CLASS = 254
"""What a value that stands for no class becomes, so that a check finds it; scanning reports it as an error."""
FAR = 32.0
"""Distance in RGB from every listed colour above which a lossy file's pixel may be of another colour: compression
moves flat areas by less."""
NEAR_BLACK_OR_WHITE = 32
SMOOTH = 16
"""More grey levels than this, or none of the lowest, are no ids of classes."""
MOSTLY = 0.98
"""Share of pixels near black or white from which a grey mask with other values is taken for a binary one."""
DEEPEST = 65535


@dataclass(frozen=True)
class Coding:
    """Reads mask files into class ids. Picklable."""

    kind: Kind
    ids: tuple[tuple[int, int], ...] = ()
    """index: (stored value, class id or 255); binary: (grey level, 255), those that are neither black nor white"""
    colours: tuple[tuple[Colour, int], ...] = ()
    """colours: (RGB, class id or 255)"""
    rest: int = NO_CLASS
    """index: what every other value becomes."""
    strict: bool = False
    """index: refuse other values instead."""

    def __call__(self, path: Path) -> np.ndarray:
        """(H, W) uint8 class ids, 255 = ignore. `DataError` if the file cannot be read, or holds what is no class."""
        if self.kind == "binary":
            return read_binary(path, [value for value, _ in self.ids])[0]
        if self.kind == "colours":
            places, _ = read_colours(path, np.array([colour for colour, _ in self.colours]))
            return np.array([number for _, number in self.colours], np.uint8)[places]
        values = read_values(path)
        if self.strict and (unknown := sorted(set(np.unique(values).tolist()) - dict(self.ids).keys())):
            raise DataError(f"{path} holds values that stand for no class: {_listed(unknown)}. {MEND_VALUES}")
        if values.dtype == np.uint8:
            return self._table(256)[values]
        return self._table(DEEPEST + 3)[values.astype(np.int32).clip(-1, DEEPEST + 1)]  # -1: the table's last entry

    def _table(self, length: int) -> np.ndarray:
        table = np.full(length, self.rest, np.uint8)
        for value, number in self.ids:
            if value < length:
                table[value] = number
        return table


MEND_VALUES = (
    "List their classes in data.classes, ignore them with data.ignore=[...] (or data.ignore=rest), or mend them."
)


def coding(kind: Kind, table: ClassTable, rest: bool = False, greys: Iterable[int] = ()) -> Coding:
    """How masks of that kind become positions in the table's names; of one name, 1, all else being 0.

    rest: values that stand for no class are ignored. greys: of a binary mask, the grey levels that are.
    """
    if kind == "binary":
        return Coding(kind, ids=tuple((value, IGNORE) for value in sorted(greys)))
    binary = len(table.names) == 1
    numbers = range(1, 2) if binary else range(len(table.names))
    if kind == "colours":
        assert table.colours is not None
        colours = {(0, 0, 0): 0} if binary else {}
        colours |= dict.fromkeys(table.ignored_colours, IGNORE) | dict(zip(table.colours, numbers, strict=True))
        return Coding(kind, colours=tuple(colours.items()))
    ids = {0: 0} if binary else {}
    ids |= dict.fromkeys(table.ignored, IGNORE) | dict(zip(table.values, numbers, strict=True))
    return Coding(kind, ids=tuple(sorted(ids.items())), rest=IGNORE if rest else NO_CLASS)


# which kind


@dataclass(frozen=True)
class Sample:
    """One mask, looked at to find out of which kind all are."""

    coloured: bool
    lossy: bool
    values: frozenset[int] = frozenset()
    extremes: float = 0.0
    """Share of values near 0 or 255."""
    shown: frozenset[tuple[int, Colour]] = frozenset()
    """Of a palette image, the values that it holds and the colours that they show."""
    plain: bool = True
    """Whether it is stored in one channel, as no mask of colours is."""


def sample(path: Path) -> Sample | None:
    """What one mask holds; none where it cannot be read."""
    lossy = path.suffix.lower() in LOSSY
    try:
        mode = image_kind(path).mode
        plain = mode not in ("RGB", "RGBA", "CMYK", "YCbCr")
        if not plain and _is_coloured(read_image(path)):
            return Sample(True, lossy, plain=plain)
        values = read_values(path)
        shown = _shown(values, read_image(path)) if mode == "P" else frozenset()
    except DataError:
        return None
    extremes = ((values <= NEAR_BLACK_OR_WHITE) | (values >= 255 - NEAR_BLACK_OR_WHITE)).mean().item()
    return Sample(False, lossy, frozenset(np.unique(values).tolist()), extremes, shown, plain)


def _shown(values: np.ndarray, pixels: np.ndarray) -> frozenset[tuple[int, Colour]]:
    """(H, W) indices and the (H, W, 3) that they stand for -> the pairs that occur."""
    both = np.unique(values.astype(np.int64) << 24 | packed(pixels))
    colours = unpacked(both & 0xFFFFFF).tolist()
    return frozenset((value, (r, g, b)) for value, (r, g, b) in zip((both >> 24).tolist(), colours, strict=True))


def _is_coloured(pixels: np.ndarray) -> bool:
    return bool((pixels[..., :1] != pixels[..., 1:]).any())


def find_kind(samples: Iterable[Sample], table: ClassTable | None, ignored: Iterable[int] = ()) -> tuple[Kind, str]:
    """The kind, and what it was concluded from. Raises `DataError` where masks are of none.

    ignored: values that somebody said are not to be scored; they say nothing about the kind.
    """
    seen = list(samples)
    values = frozenset[int]().union(*(one.values for one in seen)).difference(ignored)
    names = len(table.names) if table else 0
    if any(one.coloured for one in seen):
        others = _without_strays(seen, table)
        kind, why = find_kind(others, table, ignored) if others else ("colours", "")
        return ("index", why) if kind == "index" else ("colours", "they hold colours")
    if table and table.colours and _are_colours(seen, table, values):
        return "colours", "their colours, not their values, are those of the classes"
    own = {*table.values, *table.ignored, *([0] if names == 1 else [])} if table else {0, 1}
    if values <= own and not (names <= 2 and values == {0, IGNORE}):
        return "index", f"values {_listed(sorted(values))}"
    if names <= 2 and (values <= {0, IGNORE} or _is_black_and_white(seen, values)):
        return "binary", "they are black and white"
    if any(one.lossy for one in seen):
        raise DataError(
            "the masks are lossy files (JPEG, WebP) of grey levels, so their values are no longer those that were "
            "written, and no class can be told from them. Export them as PNG, or list the classes with their colours "
            "in data.classes."
        )
    return "index", f"values {_listed(sorted(values))}"


def _without_strays(seen: list[Sample], table: ClassTable | None) -> list[Sample]:
    """The masks of one channel, if those with colours are so few that they are there by mistake; else none.

    Where the table has colours, masks of black and white alone may be colour masks that a program stored smaller.
    """
    others = [one for one in seen if not one.coloured]
    values = frozenset[int]().union(*(one.values for one in others))
    telling = values - ({0, IGNORE} if table and table.colours else {0})
    few = len(seen) < 2 * len(others)
    return others if few and telling and all(one.plain and not one.lossy for one in others) else []


def _is_black_and_white(seen: list[Sample], values: frozenset[int]) -> bool:
    """Whether grey levels are black and white with noise or smooth edges, and not the ids of a few classes."""
    blurred = any(one.lossy for one in seen) or len(values) > SMOOTH or not values & {*range(1, SMOOTH)}
    both = min(values, default=255) == 0 and max(values, default=0) >= 255 - NEAR_BLACK_OR_WHITE
    return blurred and both and min(one.extremes for one in seen) >= MOSTLY


def _are_colours(seen: list[Sample], table: ClassTable, values: frozenset[int]) -> bool:
    """Whether masks without obvious colours are colour masks: greys, or a palette with other indices."""
    assert table.colours is not None
    if any(one.lossy for one in seen):
        return True
    pairs = frozenset[tuple[int, Colour]]().union(*(one.shown for one in seen))
    shown = {colour for _, colour in pairs} or {(v, v, v) for v in values}
    listed = shown <= {*table.colours, *table.ignored_colours, *([(0, 0, 0)] if len(table.names) == 1 else [])}
    if values <= {*table.values, *table.ignored, *([0] if len(table.names) == 1 else [])}:
        meant = dict(zip(table.values, table.colours, strict=True))
        return listed and any(meant.get(value, colour) != colour for value, colour in pairs)
    return listed


def common_colours(masks: Iterable[Path], most: int = 12) -> list[Colour]:
    """The colours that fill most of these masks, in steps of 17 where a file is lossy."""
    counts = Counter[int]()
    for path in masks:
        pixels = read_image(path)
        if path.suffix.lower() in LOSSY:
            pixels = ((pixels.astype(np.int32) + 8) // 17 * 17).clip(0, 255).astype(np.uint8)
        found, numbers = np.unique(packed(pixels), return_counts=True)
        counts.update(dict(zip(found.tolist(), numbers.tolist(), strict=True)))
    codes = np.array([code for code, _ in counts.most_common(most)], np.int32)
    return [(int(r), int(g), int(b)) for r, g, b in unpacked(codes)]


# looking over


@dataclass(frozen=True)
class Look:
    """What was seen of one mask."""

    pixels: int
    values: Counter[int]
    """Pixels of each value; binary: of 0 and 1, as read"""
    changed: float = 0.0
    """colours, binary: share of pixels that were not exactly a listed colour, or black or white"""
    strange: tuple[Colour, ...] = ()
    """colours: of areas that are of no listed colour"""


def look(path: Path, code: Coding) -> Look:
    """One mask. `DataError` if it cannot be read."""
    if code.kind == "index":
        values = read_values(path)
        if values.dtype == np.uint8:
            counts = value_counts(values)
            return Look(values.size, Counter({int(v): int(counts[v]) for v in np.flatnonzero(counts)}))
        found, numbers = np.unique(values, return_counts=True)
        return Look(values.size, Counter(dict(zip(found.tolist(), numbers.tolist(), strict=True))))
    if code.kind == "binary":
        mask, changed = read_binary(path, [value for value, _ in code.ids])
        found, numbers = np.unique(mask, return_counts=True)
        return Look(mask.size, Counter(dict(zip(found.tolist(), numbers.tolist(), strict=True))), changed)
    pixels = read_image(path)
    palette = np.array([colour for colour, _ in code.colours])
    places, changed = nearest_colours(pixels, palette)
    strange = _areas(pixels, palette[places], path.suffix.lower() in LOSSY) if changed else ()
    return Look(places.size, Counter(), changed, strange)


def _areas(pixels: np.ndarray, nearest: np.ndarray, lossy: bool) -> tuple[Colour, ...]:
    """Colours of areas that are of no listed colour, the largest first, at most three.

    A lossy file: 5 x 5 pixels all far from every listed colour; the blur at an edge is narrower. Any other: 3 x 3
    pixels of one colour.
    """
    if lossy:
        off = ((pixels.astype(np.int32) - nearest) ** 2).sum(-1) > FAR**2
        cores = _eroded(off, 5)
        colours = pixels[2:-2, 2:-2][cores] // 32 * 32 + 16 if cores.any() else pixels[:0, 0]
    else:
        codes = packed(pixels)
        off = codes != packed(nearest.astype(np.uint8))
        same = (codes[1:] == codes[:-1])[:, 1:] & (codes[:, 1:] == codes[:, :-1])[1:]
        cores = _eroded(off, 3)
        cores &= _eroded(same, 2)
        colours = pixels[1:-1, 1:-1][cores]
    found, counts = np.unique(packed(colours), return_counts=True)
    return tuple(tuple(map(int, one)) for one in unpacked(found[np.argsort(-counts)[:3]]))  # type: ignore[misc]


def _eroded(where: np.ndarray, side: int) -> np.ndarray:
    """(H, W) -> (H - side + 1, W - side + 1): whether all of a square are true. Empty where the image is smaller."""
    if min(where.shape) < side:
        return np.zeros((max(where.shape[0] - side + 1, 0), max(where.shape[1] - side + 1, 0)), bool)
    rows = where[: len(where) - side + 1].copy()
    for step in range(1, side):
        rows &= where[step : len(where) - side + 1 + step]
    out = rows[:, : rows.shape[1] - side + 1].copy()
    for step in range(1, side):
        out &= rows[:, step : rows.shape[1] - side + 1 + step]
    return out


# classes that nobody named


def table_of_values(values: Iterable[int], kind: Kind) -> ClassTable:
    """`class_<value>` for each value seen; `foreground` for masks of black and white, of 0 and 1, or of 0 alone.

    Raises `DataError` for more values than there can be classes.
    """
    seen = sorted(set(values) - {IGNORE})
    if kind == "binary" or seen in ([0], [1], [0, 1]):
        return ClassTable(("foreground",), (1,), None, origin="the masks")
    if not 1 <= len(seen) <= MOST_CLASSES:
        raise DataError(
            f"the masks hold {len(seen)} different values ({_listed(seen)}), which is no number of classes. If they "
            "are pictures, name the masks' folder (data.masks); else list the classes in data.classes."
        )
    return ClassTable(tuple(f"class_{value}" for value in seen), tuple(seen), None, origin="the masks")


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:10])) + (", ..." if len(values) > 10 else "")
