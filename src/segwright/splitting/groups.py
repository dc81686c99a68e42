"""Which images belong together, and how groups of them are dealt out to the splits."""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segwright.ahead import cores
from segwright.checks.likeness import MOST, alike, thumbnail
from segwright.datasets.base import IGNORE, Notes, Split
from segwright.errors import SegwrightError
from segwright.images import alone_if_large
from segwright.large import value_counts
from segwright.progress import bar


@dataclass(frozen=True)
class Seen:
    """What decides where an image goes."""

    name: str
    index: int
    classes: frozenset[int] = frozenset()
    """Ids in its mask."""
    digest: str = ""
    thumbnail: np.ndarray | None = None


def image_names(split: Split, root: str | Path) -> list[str]:
    """What the images are called: the path from the root; where one file holds several, `#2` and so on behind it."""
    paths = [Path(os.path.relpath(split.path(index), root)).as_posix() for index in range(len(split))]
    seen = Counter[str]()
    names = []
    for path in paths:
        seen[path] += 1
        names.append(path if seen[path] == 1 else f"{path}#{seen[path]}")
    return names


def look(split: Split, root: str | Path, with_images: bool) -> list[Seen]:
    """Every image, by name; those that cannot be read stand for themselves."""
    named = sorted((name, index) for index, name in enumerate(image_names(split, root)))

    def one(item: tuple[str, int]) -> Seen:
        try:
            with alone_if_large(split.path(item[1])):
                return _look(split, *item, with_images)
        except SegwrightError:
            return Seen(*item)

    seen = []
    with bar("divide", len(named)) as progress, ThreadPoolExecutor(min(4, cores())) as pool:
        for result in pool.map(one, named):
            seen.append(result)
            progress.advance()
    return seen


def _look(split: Split, name: str, index: int, with_image: bool) -> Seen:
    classes = frozenset(np.flatnonzero(value_counts(split.mask(index))).tolist()) - {IGNORE}
    if not with_image:
        return Seen(name, index, classes)
    image = split.image(index)
    digest = hashlib.sha256(str(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return Seen(name, index, classes, digest.hexdigest() if image.min() != image.max() else "", thumbnail(image))


def together(seen: Sequence[Seen], pattern: str | None, near: bool, notes: Notes) -> list[list[int]]:
    """Places of images that belong together, each in one group.

    pattern: `Config.group`. near: look for those that show the same thing, too. Notes what the pattern does not match.
    """
    keys: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, one in enumerate(seen):
        if one.digest:
            keys["pixels", one.digest].append(place)
        if ".rf." in one.name:
            keys["rf", one.name.rsplit(".rf.", 1)[0]].append(place)
        if pattern is not None:
            match = re.search(pattern, one.name)
            if match is None or match["group"] is None:
                notes.see("no-group", one.name)
            else:
                keys["group", match["group"]].append(place)
    return joined(len(seen), [*keys.values(), *_alike(seen, notes)] if near else list(keys.values()))


def _alike(seen: Sequence[Seen], notes: Notes) -> list[list[int]]:
    first: dict[str, int] = {}
    for place, one in enumerate(seen):
        if one.digest:
            first.setdefault(one.digest, place)
    places = list(first.values())
    if len(places) > MOST:
        notes.see("near-duplicates-not-sought", "", f"{len(places)} images are more than the {MOST} that are compared")
        return []
    found = alike([thumb for place in places if (thumb := seen[place].thumbnail) is not None])
    return [[places[pair.first], places[pair.second]] for pair in found]


def joined(count: int, sets: Iterable[Sequence[int]]) -> list[list[int]]:
    """0 .. count - 1 in groups, those that occur in one set in one group; groups and members in order."""
    parent = list(range(count))

    def top(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for members in sets:
        for other in members[1:]:
            one, two = sorted((top(members[0]), top(other)))
            parent[two] = one
    groups: dict[int, list[int]] = defaultdict(list)
    for place in range(count):
        groups[top(place)].append(place)
    return list(groups.values())


def deal(
    groups: Sequence[Sequence[int]],
    classes: Sequence[frozenset[int]],
    wanted: Mapping[str, float],
    names: Sequence[str],
    seed: int,
) -> dict[str, list[int]]:
    """Side -> places, `train` getting what is left; every side, train too, gets at least one group.

    groups: places that stay together. classes, names: of each place. wanted: side -> its share of all places.

    A group counts with its rarest class. For each such class, from the rarest on, a side is dealt groups in the seed's
    order as long as each brings it nearer to its share; what it then lacks or has too much goes into the next class.
    """
    assert len(groups) > len(wanted), "a group for each side"
    ordered = sorted(groups, key=lambda group: hashlib.sha256(f"{seed}/{names[group[0]]}".encode()).digest())
    strata = _strata(ordered, classes)
    side_of = ["train"] * len(ordered)
    free = len(ordered)
    for later, (side, share) in zip(reversed(range(len(wanted))), wanted.items(), strict=True):
        goal = got = 0.0
        for members in strata:
            goal += share * sum(len(ordered[number]) for number in members)
            for number in members:
                enough = free > later + 1  # one for each later side and one for train stay
                if enough and side_of[number] == "train" and got + len(ordered[number]) / 2 <= goal:
                    side_of[number] = side
                    got += len(ordered[number])
                    free -= 1
        if side not in side_of:
            left = [number for number, taken in enumerate(side_of) if taken == "train"]
            side_of[min(left, key=lambda number: len(ordered[number]))] = side
            free -= 1
    return {
        side: [place for group, own in zip(ordered, side_of, strict=True) if own == side for place in group]
        for side in ("train", *wanted)
    }


def _strata(groups: Sequence[Sequence[int]], classes: Sequence[frozenset[int]]) -> list[list[int]]:
    """Numbers of the groups by the rarest class in them, the rarest first; those without any class last."""
    images = Counter(number for present in classes for number in present)
    strata: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        present = {one for place in group for one in classes[place]}
        strata[min(((images[one], one) for one in present), default=(len(classes) + 1, -1))].append(number)
    return [strata[key] for key in sorted(strata)]
