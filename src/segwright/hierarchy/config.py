"""The section `hierarchy` of a configuration."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from segwright.errors import ConfigError
from segwright.hierarchy.decode import How
from segwright.hierarchy.reading import read
from segwright.hierarchy.tree import Hierarchy


@dataclass(frozen=True, kw_only=True)
class Config:
    classes: dict[str, Any] = field(default_factory=dict)
    """The tree over the data's classes: nested names with a leaf's id (a list of names takes the ids from the data), or
    SegHiero's fine_names, coarse_names and maps; empty: the classes are no tree."""
    decode: How = "path"
    """How a pixel's class is found: the path from the top with the highest sum of scores, the best leaf alone, or each
    level by itself."""


def tree_of(config: Config, classes: Sequence[str]) -> Hierarchy | None:
    """The tree over the data's classes; None where the config has none.

    Raises:
        ConfigError: it is no tree, or has other leaves than the data have classes.
    """
    if not config.classes:
        return None
    where = "hierarchy.classes"
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
    return tree


def _path(tree: Hierarchy, number: int) -> tuple[str, ...]:
    return tree.paths[tree.ids.index(number)]
