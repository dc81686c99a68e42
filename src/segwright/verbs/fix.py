"""`segwright check --fix`: a copy of the data set in which is mended what can be mended without asking.

Safe means that nothing is invented: values that stand for no class become ignored, masks are turned as their images
are, pairs that cannot be used and copies across splits are left out. What needs a person's eye (inverted masks, blank
images, classes that are missing) stays as it is.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from segwright.checks import Checked
from segwright.checks.measure import Entry, Facts
from segwright.checks.sizes import is_rotated
from segwright.datasets.base import IGNORE, Source, Split
from segwright.datasets.mapping import put_back
from segwright.errors import DataError
from segwright.files import draft_folder, write_text
from segwright.images import IMAGE_SUFFIXES, upright

UNUSABLE = ("unreadable-image", "unreadable-mask", "mask-size", "mask-is-image")
"""Findings whose pairs are left out."""
ALIKE = ("near-duplicate-across", "siblings-across")
"""Findings of pairs whose image in the earlier split is left out, so that what is measured was not learnt."""
MENDED = frozenset({*UNUSABLE, *ALIKE, "mask-value", "rotated-mask", "duplicate-across", "duplicate-within"})
"""All findings that are none of the copy's."""
ORDER = ("train", "valid", "test")


@dataclass(frozen=True)
class Fix:
    """One thing that was done in the copy."""

    file: str
    code: str
    """The finding that it mends."""
    action: str


@dataclass(frozen=True)
class FixedSplit:
    """Some samples of a split, with their masks mended."""

    split: Split
    kept: tuple[int, ...]
    orientations: tuple[int, ...]
    """EXIF orientation that each kept mask is turned by; 1: as it is."""
    known: frozenset[int]
    """Mask values that stay; all others become ignored."""

    @property
    def name(self) -> str:
        return self.split.name

    def __len__(self) -> int:
        return len(self.kept)

    def path(self, index: int) -> Path:
        return self.split.path(self.kept[index])

    def annotation(self, index: int) -> Path:
        return self.split.annotation(self.kept[index])

    def image(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        return self.split.image(self.kept[index])

    def mask(self, index: int) -> np.ndarray:
        """(H, W) uint8, nothing but known values."""
        table = np.array([value if value in self.known else IGNORE for value in range(256)], np.uint8)
        return upright(table[self.split.mask(self.kept[index])], self.orientations[index])


def fixed(checked: Checked) -> tuple[Source, list[Fix]]:
    """The data set without what is unusable or doubled, and what was done to it. Writes nothing."""
    survey, fixes = checked.survey, _dropped(checked)
    gone = {fix.file for fix in fixes}
    splits: dict[str, Split] = {}
    for name, facts in survey.by_split.items():
        kept = [one for one in facts if one.entry.file not in gone]
        fixes += [fix for one in kept for fix in _mended(one, survey.known)]
        splits[name] = FixedSplit(
            survey.source.splits[name],
            tuple(one.entry.index for one in kept),
            tuple(_orientation(one) for one in kept),
            frozenset(survey.known),
        )
    return put_back(survey.source, splits), fixes


def write_fixed(checked: Checked, root: Path, folder: Path, write: Callable[[Source, Path], object]) -> list[Fix]:
    """The mended copy of the data in `root` in `folder` by `write`, whole or not at all, and `fixes.json`.

    Raises:
        DataError: there is something, or it is in `root`; nothing usable would be left.
        SegwrightError: it cannot be written.
    """
    if folder.exists():
        raise DataError(f"{folder} exists; a corrected copy overwrites nothing. Name a folder that is not there.")
    if folder.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{folder} lies in the data's own folder {root} and would become a part of it. Name another.")
    source, fixes = fixed(checked)
    fixes += not_read(checked, root)
    empty = [name for name, split in source.splits.items() if not len(split)]
    if empty or "train" not in source.splits:
        raise DataError(f"nothing usable would be left in {', '.join(empty or ['train'])}. Mend the data by hand.")
    found = [{"code": one.code, "files": one.files} for one in checked.findings if one.level != "info"]
    done = {"fixes": [asdict(fix) for fix in fixes], "findings": found}
    with draft_folder(folder) as draft:
        write(source, draft)
        write_text(draft / "fixes.json", json.dumps(done, indent=2))
    return fixes


def not_read(checked: Checked, root: Path) -> list[Fix]:
    """Images and masks in `root` that findings name and the reader itself left out."""
    entries = [one.entry for one in checked.survey.facts]
    known = {path.resolve() for entry in entries for path in (entry.path, entry.mask_path)}
    found: dict[str, Fix] = {}
    for finding in checked.findings:
        for file in finding.files if finding.level != "info" else ():
            path = root / file
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and path.resolve() not in known:
                found.setdefault(file, Fix(file, finding.code, "left out"))
    return list(found.values())


def _dropped(checked: Checked) -> list[Fix]:
    """What is left out: unusable pairs, copies in an earlier split than their like, copies within a split."""
    entries = {one.entry.file: one.entry for one in checked.survey.facts}
    images = {one.entry.mask_file: one.entry.file for one in checked.survey.facts} | {file: file for file in entries}
    dropped: dict[str, Fix] = {}
    for finding in checked.findings:
        if finding.code in UNUSABLE:
            for file in finding.files:
                if file in images:
                    dropped.setdefault(images[file], Fix(images[file], finding.code, "left out"))
    usable = [one for one in checked.survey.facts if one.entry.file not in dropped]
    for code, entry, other in _doubled(usable):
        dropped[entry.file] = Fix(entry.file, code, f"left out; {other.file} stays")
    for code, entry, other in _alike(checked):
        if other.file not in dropped:
            dropped.setdefault(entry.file, Fix(entry.file, code, f"left out; {other.file} stays"))
    return list(dropped.values())


def _doubled(facts: Sequence[Facts]) -> list[tuple[str, Entry, Entry]]:
    """(finding, entry to leave out, entry that stays) of equal images: the last split that has one keeps its own.

    Where all are in one split, one stays.
    """
    groups = defaultdict[str, list[Entry]](list)
    for one in facts:
        if one.pixel_hash:
            groups[one.pixel_hash].append(one.entry)
    found = []
    for group in groups.values():
        last = max(group, key=_rank)  # the first of its split
        earlier = [entry for entry in group if _rank(entry) < _rank(last)]
        code = "duplicate-across" if earlier else "duplicate-within"
        found += [(code, entry, last) for entry in earlier or group if entry is not last]
    return found


def _alike(checked: Checked) -> list[tuple[str, Entry, Entry]]:
    """The same of images that are alike, later splits first: what is left out there need not be left out for."""
    pairs = []
    for pair in checked.pairs:
        if pair.code in ALIKE:
            earlier, later = sorted((pair.first, pair.second), key=_rank)
            pairs.append((pair.code, earlier, later))
    return sorted(pairs, key=lambda pair: -_rank(pair[1]))


def _rank(entry: Entry) -> int:
    return ORDER.index(entry.split.name)


def _mended(one: Facts, known: set[int]) -> list[Fix]:
    fixes = []
    if one.mask is not None:
        strange = sum(int(count) for value, count in enumerate(one.mask.counts) if value not in known)
        if strange:
            action = f"{strange} pixels of values that stand for no class became {IGNORE}, ignored"
            fixes.append(Fix(one.entry.mask_file, "mask-value", action))
    if is_rotated(one):
        action = f"mask turned by EXIF orientation {_orientation(one)}, as its image is"
        fixes.append(Fix(one.entry.mask_file, "rotated-mask", action))
    return fixes


def _orientation(one: Facts) -> int:
    """What the mask is to be turned by."""
    return one.kind.orientation if one.kind and is_rotated(one) else 1
