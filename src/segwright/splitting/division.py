"""Splits for data that come without: by chance from a seed, what belongs together on one side; written down for reuse.

What belongs together: images of equal pixels or that show the same thing (checks.likeness), Roboflow's copies of one
image (`<name>.rf.<hash>.jpg`), and images whose paths have the same `group`. Whole groups are dealt out, in an order
that the seed and the names decide, so that neither the order of files nor where they lie matters. Class by class, from
the rarest, each side gets its share of the images as nearly as whole groups allow.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from segwright.datasets.base import Level, Notes, Source, Split, group_of
from segwright.errors import ConfigError
from segwright.splitting.groups import deal, image_names, look, together

NAMES = ("train", "valid", "test")
FAR_OFF = 0.5
"""By how much of itself a side may miss its size before that is said."""
SAMPLE = 100
"""Images by whose paths it is found whether the data's root moved."""
CODES: dict[str, tuple[Level, str, str]] = {
    "split-made": (
        "info",
        "the data have no validation split, so one was made from the training images",
        "Other runs get the same one, without looking at the images again, by split.file=<run>/split.json.",
    ),
    "split-reused": ("info", "the images were divided as was written down", ""),
    "split-uneven": (
        "warning",
        "a split that is far from the size that was asked for, because groups of images stay together",
        "Set split.near_duplicates=false, narrow split.group, or divide the data by hand.",
    ),
    "cannot-split": (
        "error",
        "training images that cannot be divided, because all of them belong together",
        "Set split.near_duplicates=false if they merely look alike, narrow split.group, or divide them by hand.",
    ),
    "no-group": ("warning", "images whose path split.group does not match, so that each stands for itself", ""),
    "split-missing": (
        "error",
        "images that the division lists and the data do not have",
        "Restore them, or divide anew: without split.file, or in a new run.",
    ),
    "not-in-split": (
        "warning",
        "images that the division does not list, left out",
        "To use them, divide anew: without split.file, or in a new run.",
    ),
    "near-duplicates-not-sought": ("warning", "near duplicates were not looked for, only equal images", ""),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    val_fraction: float = 0.2
    """Share of the training images that become validation where the data have no such split; 0: none."""
    test_fraction: float = 0.0
    """Share that becomes test where the data have neither validation nor test."""
    seed: int = 0
    """Decides which; apart from train.seed, so that several trainings share a split."""
    group: str | None = None
    """Regular expression with (?P<group>...), sought in each image's path; images of one group stay on one side."""
    near_duplicates: bool = True
    """Keep images that show the same thing on one side; every image is read once for it."""
    file: str | None = None
    """A run's split.json, or one like it (lists of paths under train, valid and test): divides the images so."""

    def __post_init__(self) -> None:
        for name in ("val_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"split.{name} is {getattr(self, name)}; it is a share. Give 0 or more, less than 1.")
        if self.val_fraction + self.test_fraction >= 1:
            raise ConfigError(
                f"split.val_fraction {self.val_fraction} and split.test_fraction {self.test_fraction} leave nothing to "
                "train on. Lower them."
            )
        if self.group is not None and not _has_group(self.group):
            raise ConfigError(
                f"split.group is {self.group!r}; it must be a regular expression with a part (?P<group>...), which "
                "says what belongs together, e.g. '(?P<group>[^/_]+)_[0-9]+'."
            )


def _has_group(pattern: str) -> bool:
    try:
        return "group" in re.compile(pattern).groupindex
    except re.error:
        return False


@dataclass(frozen=True)
class Picked:
    """Some images of other splits."""

    name: str
    picks: tuple[tuple[Split, int], ...]

    def __len__(self) -> int:
        return len(self.picks)

    def path(self, index: int) -> Path:
        split, place = self.picks[index]
        return split.path(place)

    def annotation(self, index: int) -> Path:
        split, place = self.picks[index]
        return split.annotation(place)

    def group(self, index: int) -> str:
        """What the image belongs with where results are told apart; empty for nothing."""
        split, place = self.picks[index]
        return group_of(split, place)

    def image(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        split, place = self.picks[index]
        return split.image(place)

    def mask(self, index: int) -> np.ndarray:
        """(H, W) uint8 class ids."""
        split, place = self.picks[index]
        return split.mask(place)


Record = Mapping[str, Sequence[str]]
"""Split -> paths of its images, relative to the data's folder, with forward slashes."""


def divided(source: Source, root: str | Path, config: Config, recorded: Record | None = None) -> Source:
    """The data set with a validation split, and findings about how it came about.

    Where `config.file` is given, it rules. Else a source that has one, or nothing to make one of, stays as it is;
    others are divided anew. Before either, `recorded` counts, if it is of these data: if one image of it is there, also
    where the root is now a folder above or below the one of then.

    Raises:
        ConfigError: there is no such file, or it is none.
    """
    wanted = config.val_fraction + config.test_fraction
    if config.file is None and ("valid" in source.splits or "train" not in source.splits or not wanted):
        return source
    if recorded and (known := seen_from(source, root, recorded)):
        return _as_recorded(source, root, known)
    if config.file is not None:
        return _as_recorded(source, root, read_record(config.file))
    return _anew(source, root, config)


def record(source: Source, root: str | Path) -> dict[str, list[str]] | None:
    """What `divided` did, to do it again; none if it left the source as it was."""
    if not any(isinstance(split, Picked) for split in source.splits.values()):
        return None
    return {name: image_names(split, root) for name, split in source.splits.items() if isinstance(split, Picked)}


def as_json(division: Record, config: Config) -> str:
    """The content of a run's split.json."""
    return json.dumps({"made": asdict(config), **division}, indent=1)


def read_record(path: str | Path) -> dict[str, list[str]]:
    """What a split file says. Raises `ConfigError`."""
    if not Path(path).is_file():
        raise ConfigError(f"there is no split.file {path}. Check the path; it is the split.json of a run.")
    try:
        content = json.loads(Path(path).read_text())
        lists = {name: content[name] for name in NAMES if name in content}
        if not lists or not all(isinstance(name, str) for names in lists.values() for name in names):
            raise ValueError("it has no lists of paths under train, valid and test")
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"split.file {path} cannot be used: {error}. Name the split.json of a run.") from None
    twice = [name for name, times in Counter(name for names in lists.values() for name in names).items() if times > 1]
    if twice:
        raise ConfigError(f"split.file {path} lists {twice[0]} twice, so it has no clear side. Keep one.")
    return lists


def seen_from(source: Source, root: str | Path, lists: Record) -> dict[str, list[str]] | None:
    """The lists with paths as they are from this root; None: they are of other data, for none of their images is here.

    The root of then may have been a folder above or below this one.
    """
    there = {name for split in source.splits.values() for name in image_names(split, root)}
    listed = {name for names in lists.values() for name in names}
    if not there.isdisjoint(listed):
        return {label: list(names) for label, names in lists.items()}
    moves = Counter[tuple[str, str]]()  # what to put before a path, and what to take away there
    for here, then in itertools.product(sorted(there)[:SAMPLE], listed):
        if here.endswith(f"/{then}"):
            moves[here.removesuffix(then), ""] += 1
        elif then.endswith(f"/{here}"):
            moves["", then.removesuffix(here)] += 1
    if not moves:
        return None
    (before, away), _ = moves.most_common(1)[0]
    return {label: [before + name.removeprefix(away) for name in names] for label, names in lists.items()}


def _as_recorded(source: Source, root: str | Path, lists: Record) -> Source:
    notes = Notes(CODES)
    there = {
        name: (label, split, index)
        for label, split in source.splits.items()
        for index, name in enumerate(image_names(split, root))
    }
    for name in sorted({name for names in lists.values() for name in names} - there.keys()):
        notes.see("split-missing", name)
    listed = {name for names in lists.values() for name in names}
    touched = {there[name][0] for name in listed & there.keys()} | {*lists}
    for name in sorted(there.keys() - listed):
        if there[name][0] in touched:
            notes.see("not-in-split", name)
    splits: dict[str, Split] = {
        label: Picked(label, tuple(there[name][1:] for name in lists[label] if name in there)) for label in lists
    }
    splits |= {label: split for label, split in source.splits.items() if label not in touched}
    notes.see("split-reused", "", _sizes(splits))
    return _with(source, splits, notes)


def _with(source: Source, splits: Mapping[str, Split], notes: Notes) -> Source:
    ordered = {name: splits[name] for name in NAMES if name in splits}
    return replace(source, splits=ordered, findings=[*source.findings, *notes.findings()])


def _sizes(splits: Mapping[str, Split]) -> str:
    return ", ".join(f"{name} {len(splits[name])} images" for name in NAMES if name in splits)


def _anew(source: Source, root: str | Path, config: Config) -> Source:
    notes, train = Notes(CODES), source.splits["train"]
    seen = look(train, root, config.near_duplicates)
    groups = together(seen, config.group, config.near_duplicates, notes)
    wanted = {"valid": config.val_fraction}
    if "test" not in source.splits and config.test_fraction:
        wanted["test"] = config.test_fraction
    if len(groups) <= len(wanted):
        notes.see("cannot-split", "", f"{len(seen)} images in {len(groups)} group(s)")
        return _with(source, source.splits, notes)
    sides = deal(groups, [one.classes for one in seen], wanted, [one.name for one in seen], config.seed)
    splits: dict[str, Split] = dict(source.splits)
    for name, places in sides.items():
        splits[name] = Picked(name, tuple((train, seen[place].index) for place in sorted(places)))
        goal = wanted.get(name, 0) * len(seen)
        if goal and abs(len(places) - goal) > max(FAR_OFF * goal, 1):
            notes.see("split-uneven", "", f"{name} has {len(places)} images, not {goal:.0f}")
    bound = sum(len(group) for group in groups if len(group) > 1)
    kept = f"; {bound} images are in groups that stay together" if bound else ""
    notes.see("split-made", "", f"{_sizes(splits)} (seed {config.seed}{kept})")
    return _with(source, splits, notes)
