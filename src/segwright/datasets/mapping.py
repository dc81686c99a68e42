"""Classes merged, renamed, dropped and ignored, whatever reader the data come from.

Each class of the data has one fate. What is left is numbered from 0 without gaps, in the order of the data's ids; a
merged class stands where the first of its members stood. A source of one class is binary: 0 is its background, which
has no name.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from segwright.datasets.base import IGNORE, Finding, Source, Split, group_of
from segwright.datasets.class_table import MOST_CLASSES
from segwright.errors import ConfigError, nearest

NO_CLASS = MOST_CLASSES
"""What a mask value becomes that stood for no class before: it still stands for none, so that a check finds it."""


@dataclass(frozen=True, kw_only=True)
class Config:
    merge: dict[str, list[str]] = field(default_factory=dict)
    """New class -> classes of the data that become it; it may have the name of one of them."""
    rename: dict[str, str] = field(default_factory=dict)
    """Class of the data -> its new name."""
    drop: list[str] = field(default_factory=list)
    """Classes that become background."""
    ignore: list[str] = field(default_factory=list)
    """Classes that count neither in the loss nor in the scores."""
    background: str | None = None
    """The class that dropped ones become; none: the one that is called background."""
    binary: bool = False
    """Where background and one class are left: one class against the rest (a sigmoid and a threshold)."""

    def __post_init__(self) -> None:
        named = [*(one for those in self.merge.values() for one in those), *self.drop, *self.ignore]
        doubled = [name for name, count in Counter(named).items() if count > 1]
        doubled += [name for name in self.rename if name in named]
        if doubled:
            raise ConfigError(
                f"classes: '{doubled[0]}' stands in two places of merge, rename, drop and ignore, but a pixel can "
                "become one thing only. Name it once."
            )


@dataclass(frozen=True)
class MappedSplit:
    """Another split with other class ids."""

    split: Split
    table: bytes
    """New id of each of the 256 mask values."""

    @property
    def name(self) -> str:
        return self.split.name

    def __len__(self) -> int:
        return len(self.split)

    def path(self, index: int) -> Path:
        return self.split.path(index)

    def annotation(self, index: int) -> Path:
        return self.split.annotation(index)

    def group(self, index: int) -> str:
        return group_of(self.split, index)

    def image(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        return self.split.image(index)

    def mask(self, index: int) -> np.ndarray:
        """(H, W) uint8, the new ids."""
        return np.frombuffer(self.table, np.uint8)[self.split.mask(index)]


def mapped(source: Source, config: Config) -> Source:
    """The data set with the config's classes, and a finding that says what became what; the same where none changes.

    Raises:
        ConfigError: a name that the data do not have, two classes of one name, nothing left to tell apart.
    """
    if config == Config():
        return source
    _refuse_unknown(config, source.classes)
    fates = _fates(source, config)
    names = list(dict.fromkeys(fate for fate in fates if isinstance(fate, str)))
    binary = _is_binary(source, config, names)
    table = _table(source, config, fates, names, binary)
    kept = [name for name in names if not (binary and name == _background(source, config))]
    splits: dict[str, Split] = {name: MappedSplit(split, table) for name, split in source.splits.items()}
    colours = [source.colours[fates.index(name)] for name in kept] if source.colours is not None else None
    finding = Finding("info", "class-map", _told(source, fates, table))
    return replace(source, classes=kept, splits=splits, colours=colours, findings=[*source.findings, finding])


def set_apart(source: Source, names: Sequence[str], all_needed: bool = True) -> Source:
    """The data set with these classes as coarse labels: no longer among its classes, and behind them in the masks.

    `all_needed` false: a name that the data do not have keeps its id, which then occurs nowhere.

    Raises:
        ConfigError: a name that the data do not have, or fewer than two classes left.
    """
    if not names:
        return source
    problems = [
        f"hierarchy.coarse_labels: the data have no class '{name}'.{nearest(name, source.classes)} It names classes of "
        "the data; leave out what they do not have."
        for name in names
        if all_needed and name not in source.classes
    ]
    if problems:
        raise ConfigError(" ".join(problems))
    kept = [name for name in source.classes if name not in names]
    if len(kept) < 2:
        raise ConfigError(
            f"hierarchy.coarse_labels leaves {', '.join(kept) or 'no class'} of the data's "
            f"{', '.join(source.classes)}, and a tree needs two leaves to tell apart. Name only classes that stand for "
            "groups."
        )
    colours = [source.colours[list(source.classes).index(name)] for name in kept] if source.colours else None
    splits = _renumbered(source.splits, source.classes, [*kept, *names])
    return replace(source, classes=kept, splits=splits, colours=colours, coarse=tuple(names), whole=source)


def put_back(source: Source, splits: Mapping[str, Split]) -> Source:
    """Splits of a data set whose coarse labels were set apart, with classes, ids and colours as the data have them."""
    if source.whole is None:
        return Source(source.classes, splits, colours=source.colours)
    whole = source.whole
    numbered = _renumbered(splits, [*source.classes, *source.coarse], whole.classes)
    return Source(whole.classes, numbered, colours=whole.colours)


def in_order(source: Source, classes: Sequence[str]) -> Source:
    """The data set with the same classes in another order: masks, names and colours."""
    if list(source.classes) == list(classes):
        return source
    places = [list(source.classes).index(name) for name in classes]
    splits = _renumbered(source.splits, [*source.classes, *source.coarse], [*classes, *source.coarse])
    colours = [source.colours[place] for place in places] if source.colours is not None else None
    return replace(source, classes=list(classes), splits=splits, colours=colours)


def _renumbered(splits: Mapping[str, Split], old: Sequence[str], new: Sequence[str]) -> dict[str, Split]:
    """Splits whose masks number the names `old`, with the numbers that these have in `new`."""
    table = np.full(256, NO_CLASS, np.uint8)
    table[IGNORE] = IGNORE
    table[: len(old)] = [list(new).index(name) if name in new else NO_CLASS for name in old]
    return {name: MappedSplit(split, table.tobytes()) for name, split in splits.items()}


Fate = str | int
"""A class's new name, or IGNORE, or 0 for the nameless background of a binary source."""


def _fates(source: Source, config: Config) -> list[Fate]:
    """What becomes of each class."""
    _refuse_doubles(source, config)
    fates: list[Fate] = []
    for name in source.classes:
        if name in config.ignore:
            fates.append(IGNORE)
        elif name in config.drop:
            fates.append(0 if source.num_classes == 1 else _renamed(config, _needed_background(source, config)))
        else:
            fates.append(_renamed(config, name))
    return fates


def _refuse_doubles(source: Source, config: Config) -> None:
    """Raises `ConfigError` if two classes that nobody merged get one name."""
    merged = {old for members in config.merge.values() for old in members}
    alone = [name for name in source.classes if name not in {*merged, *config.drop, *config.ignore}]
    called = Counter([*config.merge, *(_renamed(config, name) for name in alone)])
    doubled = next((name for name, count in called.items() if count > 1), None)
    if doubled is not None:
        raise ConfigError(
            f"classes: two classes would be called '{doubled}'. To make them one, list them all under "
            f"classes.merge.{doubled}; else choose another name."
        )


def _renamed(config: Config, name: str) -> str:
    """What a class of the data is called in the end."""
    return config.rename.get(name) or next((new for new, old in config.merge.items() if name in old), name)


def _background(source: Source, config: Config) -> str | None:
    """The background's name in the end; none if there is none."""
    named = config.background or next((name for name in source.classes if name.lower() == "background"), None)
    return _renamed(config, named) if named else None


def _needed_background(source: Source, config: Config) -> str:
    name = config.background or next((name for name in source.classes if name.lower() == "background"), None)
    if name is None or name in (*config.drop, *config.ignore):
        raise ConfigError(
            f"classes.drop turns {', '.join(config.drop)} into background, but no class that stays is called "
            "background. Name the one that is with classes.background, or use classes.ignore."
        )
    return name


def _is_binary(source: Source, config: Config, names: Sequence[str]) -> bool:
    if not names:
        raise ConfigError("classes: every class is dropped or ignored, so nothing is left to learn. Keep one.")
    if source.num_classes == 1 or not config.binary:
        if len(names) == 1 and source.num_classes > 1:
            raise ConfigError(
                f"classes: only '{names[0]}' is left, so there is nothing to tell it from. Keep the background, too "
                "(and set classes.binary=true for one class against the rest)."
            )
        return False
    background = _background(source, config)
    if len(names) != 2 or background not in names:
        raise ConfigError(
            f"classes.binary is true, but {', '.join(names)} are left, not one class and the background. Merge or drop "
            "the others, and name the background with classes.background if it is not called so."
        )
    return True


def _table(source: Source, config: Config, fates: Sequence[Fate], names: Sequence[str], binary: bool) -> bytes:
    """New id of each mask value."""
    table = np.full(256, NO_CLASS, np.uint8)
    table[IGNORE] = IGNORE
    if source.num_classes == 1:
        table[0], ids = 0, dict.fromkeys(names, 1)
    elif binary:
        ids = {name: int(name != _background(source, config)) for name in names}
    else:
        ids = {name: place for place, name in enumerate(names)}
    first = 1 if source.num_classes == 1 else 0
    for place, fate in enumerate(fates, first):
        table[place] = ids[fate] if isinstance(fate, str) else fate
    return table.tobytes()


def _refuse_unknown(config: Config, classes: Sequence[str]) -> None:
    """Raises `ConfigError` for names that are no class of the data."""
    groups: Mapping[str, Sequence[str]] = {
        "merge": [one for those in config.merge.values() for one in those],
        "rename": list(config.rename),
        "drop": config.drop,
        "ignore": config.ignore,
        "background": [config.background] if config.background is not None else [],
    }
    problems = [
        f"classes.{key}: the data have no class '{name}'.{nearest(name, classes)}"
        for key, those in groups.items()
        for name in those
        if name not in classes
    ]
    if problems:
        raise ConfigError(" ".join(problems))


def _told(source: Source, fates: Sequence[Fate], table: bytes) -> str:
    """`0 road <- road, pavement; ignored <- void`."""
    first = 1 if source.num_classes == 1 else 0
    members: dict[str, list[str]] = {}
    for place, (name, fate) in enumerate(zip(source.classes, fates, strict=True), first):
        label = f"{table[place]} {fate}" if isinstance(fate, str) else "ignored" if fate == IGNORE else "background"
        members.setdefault(label, []).append(name)
    return "classes: " + "; ".join(f"{label} <- {', '.join(names)}" for label, names in members.items()) + "."
