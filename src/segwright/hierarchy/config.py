"""The section `hierarchy` of a configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from segwright.errors import ConfigError, nearest
from segwright.hierarchy.decode import How
from segwright.hierarchy.reading import read
from segwright.hierarchy.tree import Hierarchy


@dataclass(frozen=True, kw_only=True)
class Config:
    classes: dict[str, Any] = field(default_factory=dict)
    """The tree over the data's classes: nested names with a leaf's id (a list of names takes the ids from the data), or
    SegHiero's fine_names, coarse_names and maps; empty: the classes are no tree."""
    coarse_labels: dict[str, str] = field(default_factory=dict)
    """Class of the data -> the tree's group (walls, or construction/walls) that its pixels are known to be of and no
    more; such classes have no leaf, and ids count the others."""
    decode: How = "path"
    """How a pixel's class is found: the path from the top with the highest sum of scores, the best leaf alone, or each
    level by itself."""

    def __post_init__(self) -> None:
        if self.coarse_labels and not self.classes:
            raise ConfigError(
                "hierarchy.coarse_labels names groups, but hierarchy.classes gives no tree that they are of. Write the "
                "tree, or leave the labels out."
            )
        for name, group in self.coarse_labels.items():
            if not isinstance(group, str):
                raise ConfigError(
                    f"hierarchy.coarse_labels.{name} is {group!r}; a label stands for one group. Write the group's "
                    "name, or its path from the top with slashes, e.g. construction/walls."
                )


def tree_of(config: Config, classes: Sequence[str]) -> Hierarchy | None:
    """The tree over the data's classes; None where the config has none. Coarse labels have the ids behind the classes.

    Raises:
        ConfigError: it is no tree, or has other leaves than the data have classes, or lacks a coarse label's group.
    """
    where = "hierarchy.classes"
    if not config.classes:
        return None
    if len(classes) < 2:
        raise ConfigError(f"{where} gives a tree, but the data have one class, {classes[0]}. Leave the tree out.")
    tree = read(config.classes, classes, where)
    foreign = sorted(set(tree.ids) - set(range(len(classes))))
    missing = [f"{name} ({number})" for number, name in enumerate(classes) if number not in tree.ids]
    problems = [f"the data have no class with id {number} ({'/'.join(_path(tree, number))})" for number in foreign]
    problems += [f"the tree has no leaf for the data's {', '.join(missing)}"] if missing else []
    if problems:
        raise ConfigError(
            f"{where} does not fit the data's classes: {'; '.join(problems)}. Every class is one leaf, by its id: "
            + ", ".join(f"{name}: {number}" for number, name in enumerate(classes))
            + "."
        )
    return replace(tree, coarse=tuple(enumerate(_groups(config.coarse_labels, tree), len(classes))))


def _groups(coarse: Mapping[str, str], tree: Hierarchy) -> list[int]:
    """The channel of each coarse label's group, by its path or a name that is its alone. Raises `ConfigError`."""
    paths = {"/".join(tree.paths[group]): group for group in tree.groups}
    by_name: dict[str, list[int]] = {}
    for group in tree.groups:
        by_name.setdefault(tree.paths[group][-1], []).append(group)
    named = {name: groups[0] for name, groups in by_name.items() if len(groups) == 1} | paths
    problems = [
        f"hierarchy.coarse_labels.{name}: {len(by_name[group])} groups of the tree are called '{group}'. Write the "
        f"path of one: {', '.join('/'.join(tree.paths[one]) for one in by_name[group])}."
        if group in by_name
        else f"hierarchy.coarse_labels.{name}: the tree has no group '{group}'.{nearest(group, named)} A label stands "
        f"for a group of the tree; there are: {', '.join(paths)}."
        for name, group in coarse.items()
        if group not in named
    ]
    if problems:
        raise ConfigError(" ".join(problems))
    return [named[group] for group in coarse.values()]


def _path(tree: Hierarchy, number: int) -> tuple[str, ...]:
    return tree.paths[tree.ids.index(number)]
