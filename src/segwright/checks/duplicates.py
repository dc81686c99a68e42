"""The same image more than once: equal pixels, equal files, Roboflow's copies, and images that are merely alike."""

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segwright.checks.likeness import MOST, alike
from segwright.checks.measure import Entry, Facts, Progress, is_blank
from segwright.checks.survey import Survey
from segwright.datasets.base import Level, Notes
from segwright.errors import SegwrightError

_ONE_SPLIT = "Keep one of each, or move all of them into one split."
CODES: dict[str, tuple[Level, str, str]] = {
    "duplicate-across": (
        "error",
        "the same image in several splits, so that the model is measured on what it has learnt",
        _ONE_SPLIT + " check --fix drops those in training.",
    ),
    "near-duplicate-across": (
        "warning",
        "images in different splits that show the same thing (r: correlation of their details, 1 = the same), so "
        "that the model is measured on what it has learnt",
        "Look at them. " + _ONE_SPLIT,
    ),
    "siblings-across": (
        "warning",
        "copies that Roboflow made of one image (the part before '.rf.') in different splits, so that the model is "
        "measured on what it has learnt",
        "Split first, then augment: export without augmentation.",
    ),
    "duplicate-within": (
        "warning",
        "the same image several times in one split, so that it counts more",
        "Keep one of each.",
    ),
    "near-duplicate-within": ("info", "images within one split that show the same thing (r: correlation)", ""),
    "near-duplicates-not-sought": ("info", "near duplicates were not looked for, only equal images", ""),
}


@dataclass(frozen=True)
class Pair:
    """Two images that are equal or alike."""

    code: str
    """The finding that names them."""
    first: Entry
    second: Entry
    how: str
    """How alike, and what was done to the first."""


def look(survey: Survey, notes: Notes, progress: Progress | None = None) -> list[Pair]:
    """Notes equal and like images and gives their pairs, the most alike first."""
    named = siblings([one.entry for one in survey.facts], notes)
    return [*named, *equal_pixels(survey.facts, notes), *near(survey.facts, notes, progress)]


def equal_pixels(facts: Sequence[Facts], notes: Notes) -> list[Pair]:
    """Images whose pixels are the same, whatever the files are; each with the first of its kind."""
    return _note_equal(((one.pixel_hash, one.entry) for one in facts if one.pixel_hash), notes)


def equal_files(entries: Sequence[Entry], notes: Notes) -> None:
    """Files that are the same byte for byte, but for blank images. Only files of equal length are read."""
    by_length = _groups((entry.path.stat().st_size, entry) for entry in entries if entry.path.is_file())
    hashed = [(_file_hash(entry.path), entry) for group in by_length for entry in group]
    for group in _groups(hashed):
        if not _is_blank(group[0]):
            _note_equal(((0, entry) for entry in group), notes)


def siblings(entries: Sequence[Entry], notes: Notes) -> list[Pair]:
    """`<name>.rf.<hash>.jpg` with the same name in several splits; each with the last of another split."""
    named = ((entry.path.name.rsplit(".rf.", 1)[0], entry) for entry in entries if ".rf." in entry.path.name)
    pairs = []
    for group in _groups(named):
        last = group[-1]
        others = [entry for entry in group if entry.split.name != last.split.name]
        if others:
            notes.see("siblings-across", tuple(entry.file for entry in group))
            pairs += [Pair("siblings-across", entry, last, "one name before '.rf.'") for entry in others]
    return pairs


def near(facts: Sequence[Facts], notes: Notes, progress: Progress | None = None) -> list[Pair]:
    """Images that are alike without being equal. Of equal ones, one of each split is compared."""
    distinct: dict[tuple[str, str], Facts] = {}
    for one in facts:
        if one.pixel_hash and one.thumbnail is not None:
            distinct.setdefault((one.pixel_hash, one.entry.split.name), one)
    seen = list(distinct.values())
    if len(seen) > MOST:
        notes.see("near-duplicates-not-sought", "", f"{len(seen)} images are more than the {MOST} that are compared")
        return []
    pairs = []
    for found in alike([one.thumbnail for one in seen if one.thumbnail is not None], progress):
        if seen[found.first].pixel_hash == seen[found.second].pixel_hash:
            continue  # equal: another finding's business
        first, second = seen[found.first].entry, seen[found.second].entry
        code = "near-duplicate-within" if first.split.name == second.split.name else "near-duplicate-across"
        how = f"r {found.correlation:.2f}{found.how and ', '}{found.how}"
        notes.see(code, (first.file, second.file), how)
        pairs.append(Pair(code, first, second, how))
    return pairs


def _note_equal(keyed: Iterable[tuple[Hashable, Entry]], notes: Notes) -> list[Pair]:
    pairs = []
    for group in _groups(keyed):
        across = len({entry.split.name for entry in group}) > 1
        code = "duplicate-across" if across else "duplicate-within"
        notes.see(code, tuple(entry.file for entry in group))
        pairs += [Pair(code, group[0], other, "equal pixels") for other in group[1:]]
    return pairs


def _groups(keyed: Iterable[tuple[Hashable, Entry]]) -> list[list[Entry]]:
    """Entries with equal keys, where there are at least two."""
    groups: dict[Hashable, list[Entry]] = defaultdict(list)
    for key, entry in keyed:
        groups[key].append(entry)
    return [group for group in groups.values() if len(group) > 1]


def _file_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_blank(entry: Entry) -> bool:
    try:
        return is_blank(entry.split.image(entry.index))
    except SegwrightError:
        return True  # broken: another finding's business
