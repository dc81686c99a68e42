"""The same image more than once: equal pixels, equal files, Roboflow's copies, and images that are merely alike."""

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

from segwright.checks.likeness import MOST, alike
from segwright.checks.measure import Entry, Facts
from segwright.datasets.base import Notes
from segwright.errors import SegwrightError


def equal_pixels(facts: Sequence[Facts], notes: Notes) -> None:
    """Images whose pixels are the same, whatever the files are."""
    _note_equal(((one.pixel_hash, one.entry) for one in facts if one.pixel_hash), notes)


def equal_files(entries: Sequence[Entry], notes: Notes) -> None:
    """Files that are the same byte for byte, but for blank images. Only files of equal length are read."""
    by_length = _groups((entry.path.stat().st_size, entry) for entry in entries if entry.path.is_file())
    hashed = [(_file_hash(entry.path), entry) for group in by_length for entry in group]
    for group in _groups(hashed):
        if not _is_blank(group[0]):
            _note_equal(((0, entry) for entry in group), notes)


def siblings(entries: Sequence[Entry], notes: Notes) -> None:
    """`<name>.rf.<hash>.jpg` with the same name in several splits."""
    named = ((entry.path.name.rsplit(".rf.", 1)[0], entry) for entry in entries if ".rf." in entry.path.name)
    for group in _groups(named):
        if len({entry.split.name for entry in group}) > 1:
            notes.see("siblings-across", tuple(entry.file for entry in group))


def near(facts: Sequence[Facts], notes: Notes) -> None:
    """Images that are alike without being equal."""
    distinct: dict[str, Facts] = {}
    for one in facts:
        if one.pixel_hash and one.thumbnail is not None:
            distinct.setdefault(one.pixel_hash, one)
    seen = list(distinct.values())
    if len(seen) > MOST:
        notes.see("near-duplicates-not-sought", "", f"{len(seen)} images are more than the {MOST} that are compared")
        return
    for pair in alike([one.thumbnail for one in seen if one.thumbnail is not None]):
        first, second = seen[pair.first].entry, seen[pair.second].entry
        code = "near-duplicate-within" if first.split.name == second.split.name else "near-duplicate-across"
        how = f", {pair.how}" if pair.how else ""
        notes.see(code, (first.file, second.file), f"r {pair.correlation:.2f}{how}")


def _note_equal(keyed: Iterable[tuple[Hashable, Entry]], notes: Notes) -> None:
    for group in _groups(keyed):
        across = len({entry.split.name for entry in group}) > 1
        notes.see("duplicate-across" if across else "duplicate-within", tuple(entry.file for entry in group))


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
        image = entry.split.image(entry.index)
    except SegwrightError:
        return True  # broken: another finding's business
    return bool(image.min() == image.max())
