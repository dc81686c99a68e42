"""Trees as people write them: nested names with ids, or lists of levels with ranges. Every problem is told at once.

The nested form, any depth, leaves at any of them, ids in any order:

    {sky: 0, construction: {building: 1, walls: {brick: 7, plaster: 3}}, movable: [car, bicyclist]}

The names in a list have their ids from the data's classes. The form of levels (SegHiero's, https://github.com/
Shadowfear36/SegHiero): `fine_names`, `coarse_names`, `coarse_to_fine_map`, and for a third level `super_coarse_names`,
`super_coarse_to_coarse_map`. The names go by id; entry i of a map lists what belongs to group i: an id, [id],
[first, last] with both ends in it, or several of these in one list. The upper map speaks of coarse ids.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from segwright.datasets.base import IGNORE
from segwright.errors import ConfigError, nearest
from segwright.hierarchy.tree import Hierarchy, Path

LEVELS = (
    ("super_coarse_names", "super_coarse_to_coarse_map", "coarse"),
    ("coarse_names", "coarse_to_fine_map", "fine"),
)
"""Of the upper levels, top first: key of the names, key of the map, and the level that the map speaks of."""
LEVEL_KEYS = {"fine_names", *(key for names, below, _ in LEVELS for key in (names, below))}


def read(tree: Any, classes: Sequence[str] = (), where: str = "classes") -> Hierarchy:
    """The tree that a mapping describes, in either form.

    Args:
        tree: what YAML gives.
        classes: names of the data's classes in id order, for leaves that are written by name alone.
        where: what to call the mapping in messages.

    Raises:
        ConfigError: with everything that is wrong, one a line.
    """
    problems: list[str] = []
    if not isinstance(tree, Mapping) or not tree:
        raise ConfigError(
            f"{where} is {tree!r}; a tree is a mapping of names. Write e.g. {{sky: 0, ground: {{road: 1}}}}."
        )
    by_levels = LEVEL_KEYS & tree.keys()
    nodes = _of_levels(tree, where, problems) if by_levels else list(_of_nested(tree, (), (), where, classes, problems))
    if not problems:
        problems += _of_all(nodes, where)
    if problems:
        raise ConfigError(f"{where} is no tree that can be used:" + "".join(f"\n  - {problem}" for problem in problems))
    return _ordered(nodes)


Nodes = list[tuple[Path, int | None]]
"""Every node in the order of writing, a group before what is in it; the id of a leaf, None for a group."""


def _ordered(nodes: Nodes) -> Hierarchy:
    leaves = sorted((number, path) for path, number in nodes if number is not None)
    groups = sorted((path for path, number in nodes if number is None), key=len, reverse=True)
    return Hierarchy((*(path for _, path in leaves), *groups), tuple(number for number, _ in leaves))


def _of_all(nodes: Nodes, where: str) -> Iterator[str]:
    """Problems of the nodes together: a path or an id twice, or an id that no mask can hold."""
    for path, times in Counter(path for path, _ in nodes).items():
        if times > 1:
            yield f"{where}: {'/'.join(path)} is there {times} times. Names in one group differ; rename one."
    places: dict[int, list[str]] = {}
    for path, number in nodes:
        if number is not None:
            places.setdefault(number, []).append("/".join(path))
    for number, paths in places.items():
        named = " and ".join(paths)
        if len(paths) > 1:
            yield f"id {number} is at {named}; its pixels would be several leaves. Give each leaf an id of its own."
        if not 0 <= number < IGNORE:
            yield f"{named} has id {number}; masks hold 0 to {IGNORE - 1}, and {IGNORE} is for ignored pixels."


# the nested form


def _of_nested(
    value: Mapping[Any, Any],
    path: Path,
    above: tuple[int, ...],
    where: str,
    classes: Sequence[str],
    problems: list[str],
) -> Iterator[tuple[Path, int | None]]:
    """The nodes below `path`; `above` are the identities of the mappings that it lies in."""
    place = ".".join((where, *path))
    if id(value) in above:
        problems.append(f"{place} contains itself. A tree has no way back up: remove that alias.")
        return
    if not value:
        problems.append(f"{place} is an empty group. Give it leaves, or remove it.")
    for key, child in value.items():
        here = (*path, str(key))
        if isinstance(child, Mapping):
            yield here, None
            yield from _of_nested(child, here, (*above, id(value)), where, classes, problems)
        elif isinstance(child, list | tuple):
            yield here, None
            yield from _by_name(child, here, where, classes, problems)
        elif _is_id(child):
            yield here, child
        else:
            problems.append(
                f"{place}.{key} is {child!r}; a leaf has an id, a whole number, and a group has names below it."
            )


def _by_name(
    names: Sequence[Any], path: Path, where: str, classes: Sequence[str], problems: list[str]
) -> Iterator[tuple[Path, int | None]]:
    """Leaves that are written without ids."""
    place = ".".join((where, *path))
    if not names:
        problems.append(f"{place} is an empty group. Give it leaves, or remove it.")
    for name in map(str, names):
        if not classes:
            problems.append(
                f"{place} gives {name} without an id, and the data give their classes no names. Write {name}: id."
            )
        elif name not in classes:
            problems.append(f"{place} names {name}, which is no class of the data.{nearest(name, classes)}")
        else:
            yield (*path, name), list(classes).index(name)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# the form of levels


def _of_levels(tree: Mapping[str, Any], where: str, problems: list[str]) -> Nodes:
    problems += [f"{where}.{key}: no such key.{nearest(str(key), LEVEL_KEYS)}" for key in tree.keys() - LEVEL_KEYS]
    level = _names(tree, "fine_names", where, problems)
    below: dict[int, Nodes] = {number: [((name,), number)] for number, name in level.items()}
    for names_key, map_key, kind in reversed(LEVELS):
        if names_key == LEVELS[0][0] and not {names_key, map_key} & tree.keys():
            break  # two levels
        names = _names(tree, names_key, where, problems)
        members = _members(tree, map_key, names, names_key, where, problems)
        problems += _not_once(members, below, f"{where}.{map_key}", kind)
        below = {number: _group(name, members.get(number, []), below) for number, name in names.items()}
    return [node for nodes in below.values() for node in nodes]


def _group(name: str, members: Sequence[int], below: Mapping[int, Nodes]) -> Nodes:
    inside = [node for member in members for node in below.get(member, [])]
    return [((name,), None), *(((name, *path), number) for path, number in inside)]


def _names(tree: Mapping[str, Any], key: str, where: str, problems: list[str]) -> dict[int, str]:
    """id -> name, from a mapping or a list."""
    value = tree.get(key)
    given = dict(enumerate(value)) if isinstance(value, list | tuple) else value
    if not isinstance(given, Mapping) or not given:
        problems.append(f"{where}.{key} is {value!r}; it must give each id a name, e.g. {{0: road, 1: car}}.")
        return {}
    bad = [number for number in given if not _is_id(number)]
    problems += [f"{where}.{key} names {number!r}, which is no id. An id is a whole number." for number in bad]
    return {number: str(name) for number, name in given.items() if _is_id(number)}


def _members(
    tree: Mapping[str, Any], key: str, names: Mapping[int, str], names_key: str, where: str, problems: list[str]
) -> dict[int, list[int]]:
    """Of each group the ids that its entry of the map lists."""
    value = tree.get(key)
    entries = dict(enumerate(value)) if isinstance(value, list | tuple) else value
    if not isinstance(entries, Mapping):
        problems.append(f"{where}.{key} is {value!r}; it must list, for each group, its ids, e.g. [[0, 3], [4]].")
        return {}
    out = {}
    for number, entry in entries.items():
        if number not in names:
            problems.append(f"{where}.{key}: entry {number} ({entry}) has no name in {names_key}.")
            continue
        try:
            out[number] = _expand(entry)
        except ValueError as error:
            problems.append(f"{where}.{key}: entry {number} of {names[number]} is {entry!r}; {error}")
    alone = sorted(names.keys() - entries.keys())
    problems += [f"{where}.{names_key}: {names[number]} ({number}) has no entry in {key}." for number in alone]
    return out


def _expand(entry: Any) -> list[int]:
    """The ids of `3`, `[3]`, `[3, 5]` (a range with both ends), or a list of these. ValueError: none of them."""
    if _is_id(entry):
        return [entry]
    if not isinstance(entry, list | tuple) or not entry:
        raise ValueError("give an id, [id], or [first, last].")
    if len(entry) == 2 and all(_is_id(end) for end in entry):
        if entry[0] > entry[1]:
            raise ValueError("a range goes from its lower to its higher end.")
        return list(range(entry[0], entry[1] + 1))
    return [number for part in entry for number in _expand(part)]


def _not_once(members: Mapping[int, list[int]], below: Mapping[int, Nodes], place: str, kind: str) -> Iterator[str]:
    """Problems of a map: ids in no group, in several, or without a name."""
    times = Counter(number for numbers in members.values() for number in numbers)
    unknown = sorted(times.keys() - below.keys())
    if unknown and below:
        ids = f"{min(below)} to {max(below)}" if len(below) == max(below) - min(below) + 1 else sorted(below)
        yield f"{place} lists {_listed(unknown)}, but {kind}_names has the ids {ids}."
    twice = sorted(number for number, count in times.items() if count > 1)
    if twice:
        yield f"{place} lists {_listed(twice)} more than once; each {kind} id belongs to one group."
    missing = sorted(below.keys() - times.keys())
    if missing:
        yield f"{place} leaves out {_listed(missing)} of {kind}_names; each {kind} id belongs to a group."


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:10]))
    return f"{'id' if len(numbers) == 1 else 'ids'} {shown}{', ...' if len(numbers) > 10 else ''}"
