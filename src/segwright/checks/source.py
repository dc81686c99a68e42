"""The check of a data set, whichever reader found it, and its summary in numbers."""

from collections import defaultdict
from typing import Any

import numpy as np

from segwright.checks import duplicates
from segwright.checks.codes import CODES
from segwright.checks.measure import Facts, Progress, entries, header, labels, measure, pixels
from segwright.datasets.base import IGNORE, Finding, Notes, Source, by_level

SMALL_PX = 32
MOSTLY = 0.95
"""Share of positive pixels above which a single mask is doubted."""


def check_source(source: Source, *, quick: bool = False, progress: Progress | None = None) -> list[Finding]:
    """Everything that is wrong with the data, the gravest first, what the reader found included.

    `quick` reads headers and compares equal files, but decodes no image: for the start of every training.
    """
    notes = Notes(CODES)
    found = entries(source)
    facts = list(measure(found, header if quick else pixels, progress))
    for one in facts:
        _look(one, notes)
    duplicates.siblings(found, notes)
    if quick:
        duplicates.equal_files(found, notes)
    else:
        duplicates.equal_pixels(facts, notes)
        duplicates.near(facts, notes)
        _masks(source, facts, notes)
    return by_level([*source.findings, *notes.findings()])


def summary(source: Source) -> dict[str, Any]:
    """The data set in plain numbers: `{"classes": [...], "splits": {name: {...}}}`.

    For each split: `images`; `annotated_images` (with a positive pixel; of several classes: with a pixel that counts);
    `unreadable_images`; `pixel_share` of each class among the pixels that count; `ignored_share` among all; `height`
    and `width` as [least, greatest] in pixels. Reads masks and headers, no image.
    """
    groups = _by_split(source, list(measure(entries(source), labels)))
    splits = {name: _numbers(source, groups[name]) for name in source.splits}
    return {"classes": list(source.classes), "splits": splits}


def _numbers(source: Source, facts: list[Facts]) -> dict[str, Any]:
    counts = _total(facts)
    sizes = [one.size for one in facts if one.size is not None]
    annotated = [one for one in facts if one.counts is not None and _is_annotated(source, one.counts)]
    return {
        "images": len(facts),
        "annotated_images": len(annotated),
        "unreadable_images": sum(one.problem is not None for one in facts),
        "pixel_share": _shares(source, counts),
        "ignored_share": float(counts[IGNORE] / max(counts.sum(), 1)),
        "height": [min(h for h, _ in sizes), max(h for h, _ in sizes)] if sizes else None,
        "width": [min(w for _, w in sizes), max(w for _, w in sizes)] if sizes else None,
    }


def _look(one: Facts, notes: Notes) -> None:
    """What can be said of one image by itself."""
    if one.problem is not None:
        notes.see(one.problem[0], one.entry.file, one.problem[1])
    if one.size is not None and min(one.size) < SMALL_PX:
        notes.see("small-image", one.entry.file, f"{one.size[1]} x {one.size[0]}")
    if one.thumbnail is not None and not one.pixel_hash:
        notes.see("blank-image", one.entry.file)


def _masks(source: Source, facts: list[Facts], notes: Notes) -> None:
    """Class ids, and how often each occurs."""
    known = [0, 1, IGNORE] if source.num_classes == 1 else [*range(source.num_classes), IGNORE]
    for one in facts:
        if one.counts is not None:
            unknown = sorted(set(np.flatnonzero(one.counts).tolist()) - set(known))
            if unknown:
                notes.see("mask-value", one.entry.file, ", ".join(map(str, unknown[:10])))
    for name, group in _by_split(source, facts).items():
        shares = _shares(source, _total(group))
        notes.see(
            "class-shares", "", f"{name}: " + ", ".join(f"{key} {100 * part:.3g} %" for key, part in shares.items())
        )
        if source.num_classes == 1:
            _positives(name, group, next(iter(shares.values())), notes)
        elif name == "train":
            for key, part in shares.items():
                if part == 0:
                    notes.see("absent-class", "", key)


def _positives(split: str, facts: list[Facts], share: float, notes: Notes) -> None:
    """Masks of a binary task that are empty or suspiciously full."""
    seen = [(one.entry.file, one.counts) for one in facts if one.counts is not None]
    empty = [file for file, counts in seen if counts[1] == 0]
    if empty:
        code = "mostly-empty" if len(empty) > len(seen) / 2 else "empty-masks"
        notes.see(code, tuple(empty), f"{split}, {len(empty)} of {len(seen)} images")
    if share > 0.5:
        notes.see("inverted", "", f"{split}, {100 * share:.3g} % positive")
    for file, counts in seen:
        if share <= 0.5 and counts[1] > MOSTLY * counts.sum():
            notes.see("mostly-positive", file, f"{100 * counts[1] / counts.sum():.3g} %")


def _by_split(source: Source, facts: list[Facts]) -> dict[str, list[Facts]]:
    groups: dict[str, list[Facts]] = defaultdict(list)
    for one in facts:
        groups[one.entry.split.name].append(one)
    return {name: groups[split.name] for name, split in source.splits.items()}


def _total(facts: list[Facts]) -> np.ndarray:
    """(256,) pixels of each mask value over all images."""
    return np.sum([np.zeros(256, np.int64), *(one.counts for one in facts if one.counts is not None)], axis=0)


def _shares(source: Source, counts: np.ndarray) -> dict[str, float]:
    """Class -> share of the pixels that are not ignored."""
    counted = max(counts.sum() - counts[IGNORE], 1)
    first = 1 if source.num_classes == 1 else 0
    return {name: float(counts[first + index] / counted) for index, name in enumerate(source.classes)}


def _is_annotated(source: Source, counts: np.ndarray) -> bool:
    return bool(counts[1] > 0 if source.num_classes == 1 else counts[:IGNORE].sum() > 0)
