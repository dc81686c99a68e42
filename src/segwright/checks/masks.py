"""Masks that are wrong by themselves, or beside the others: values, empty, full, inverted, ignored, copied."""

import math
from collections import defaultdict
from statistics import median

import numpy as np

from segwright.checks.likeness import best_overlay
from segwright.checks.measure import Facts, mask_shows_image
from segwright.checks.survey import Survey
from segwright.datasets.base import IGNORE, Level, Notes

MOSTLY = 0.95
"""Share of one value from which a single mask is doubted."""
MOST_IGNORED = 0.9
SPECKLED = 0.2
"""Share of steps from pixel to pixel that change the class; from here on a mask looks like noise or a photograph."""
STRANGE = 0.1
"""Share of values without a class from which a mask may be another picture."""
UNRELATED = 0.5
"""Images whose details correlate less than this show different things."""
CODES: dict[str, tuple[Level, str, str]] = {
    "mask-value": (
        "error",
        "mask values that stand for no class (value: pixels)",
        "Map them to class ids, or to 255 to ignore them (check --fix ignores them).",
    ),
    "mask-is-image": (
        "error",
        "masks whose file shows the image itself, so that the wrong file was saved",
        "Save the masks again.",
    ),
    "speckled-mask": (
        "warning",
        "masks that change their class at every few pixels, like noise or a photograph",
        "Look at them; they may have been shrunk, compressed, or saved from the wrong picture.",
    ),
    "inverted": (
        "warning",
        "splits where most pixels are positive; are the masks inverted?",
        "Look at a few masks; if they are inverted, invert them.",
    ),
    "inverted-mask": (
        "warning",
        "masks that would be like the others if positive and background changed places",
        "Look at them; invert those that are inverted.",
    ),
    "mostly-positive": ("warning", "masks with more than 95 % positive pixels", "Look at them; they may be inverted."),
    "constant-mask": (
        "warning",
        "masks of one single class, as a drawing program gives them that fills instead of outlining",
        "Look at them; take them out if nothing was annotated.",
    ),
    "mostly-empty": (
        "warning",
        "splits where most images have nothing annotated, so that batches hold little to learn from",
        "If they were left unannotated, annotate them or take them out.",
    ),
    "empty-masks": ("info", "images with nothing annotated", ""),
    "ignored-mask": (
        "warning",
        "masks of which every pixel is ignored (255), so that nothing is learnt from them and nothing measured",
        "Annotate them, or take them out.",
    ),
    "mostly-ignored": (
        "warning",
        "masks of which more than 90 % is ignored (255)",
        "See whether 255 stands for a class in them.",
    ),
    "copied-mask": (
        "warning",
        "the same mask for images that show different things, as when files were copied under a wrong name",
        "Look which image it belongs to; annotate the others.",
    ),
}


def look(survey: Survey, notes: Notes) -> None:
    """Notes doubtful masks."""
    for one in survey.facts:
        _each(survey, one, notes)
    for name in survey.by_split:
        _empty(survey, name, notes)
    if survey.is_binary:
        inverted = _inverted(survey, notes)
        for name in survey.by_split:
            _positives(survey, name, inverted, notes)
    _copied(survey, notes)


def _each(survey: Survey, one: Facts, notes: Notes) -> None:
    file = one.entry.mask_file
    if one.mask is None:
        if one.size is not None and mask_shows_image(one.entry):
            notes.see("mask-is-image", file)
        return
    counts, pixels = one.mask.counts, one.mask.counts.sum()
    present = np.flatnonzero(counts).tolist()
    unknown = sorted(set(present) - survey.known)
    if unknown and file not in survey.blamed:
        notes.see("mask-value", file, ", ".join(f"{value}: {counts[value]}" for value in unknown[:10]))
    strange = one.mask.steps > SPECKLED or counts[unknown].sum() > STRANGE * pixels
    if strange and mask_shows_image(one.entry):
        notes.see("mask-is-image", file)
    elif one.mask.steps > SPECKLED:
        notes.see("speckled-mask", file, f"{100 * one.mask.steps:.2g} % of steps")
    if counts[IGNORE] == pixels:
        notes.see("ignored-mask", file)
    elif counts[IGNORE] > MOST_IGNORED * pixels:
        notes.see("mostly-ignored", file, f"{100 * counts[IGNORE] / pixels:.3g} %")
    classes = [value for value in present if value != IGNORE]
    if (
        len(classes) == 1
        and counts[IGNORE] <= MOST_IGNORED * pixels
        and not survey.is_binary
        and classes[0] != survey.background
        and not unknown
    ):
        notes.see("constant-mask", file, survey.labels[classes[0]])


def _empty(survey: Survey, split: str, notes: Notes) -> None:
    """Masks without anything but background, where there is a background."""
    background, seen = survey.background, survey.masks(split)
    if background is None:
        return
    empty = [
        one.entry.mask_file
        for one in seen
        if one.mask and one.mask.counts[background] > 0
        if one.mask.counts[background] + one.mask.counts[IGNORE] == one.mask.counts.sum()
    ]
    if empty:
        code = "mostly-empty" if len(empty) > len(seen) / 2 else "empty-masks"
        notes.see(code, tuple(empty), f"{split}, {len(empty)} of {len(seen)} images")


def _positives(survey: Survey, split: str, inverted: set[str], notes: Notes) -> None:
    """Masks of a binary task that are suspiciously full, but for those that were called inverted."""
    share = next(iter(survey.shares(split).values()))
    if share > 0.5:
        notes.see("inverted", "", f"{split}, {100 * share:.3g} % positive")
        return
    for one in survey.masks(split):
        part = _positive_share(one)
        if part > MOSTLY and one.entry.mask_file not in inverted:
            notes.see("mostly-positive", one.entry.mask_file, f"{100 * part:.3g} %")


def _inverted(survey: Survey, notes: Notes) -> set[str]:
    """Single masks whose complement is as full as the others are, while they themselves are not; their names.

    Shares are compared as log odds, which a swap of positive and background only gives another sign.
    """
    masks = [one for name in survey.by_split for one in survey.masks(name)]
    seen = [(_log_odds(share), one) for one in masks if 0 < (share := _positive_share(one)) < 1]
    if len(seen) < 5:
        return set()
    middle = median(odds for odds, _ in seen)
    spread = max(median(abs(odds - middle) for odds, _ in seen), 0.5)
    found = set()
    for odds, one in seen:
        if odds > 0 and abs(-odds - middle) <= 3 * spread < abs(odds - middle):
            notes.see("inverted-mask", one.entry.mask_file, f"{100 * _positive_share(one):.3g} % positive")
            found.add(one.entry.mask_file)
    return found


def _positive_share(one: Facts) -> float:
    assert one.mask is not None
    counted = one.mask.counts.sum() - one.mask.counts[IGNORE]
    return float(one.mask.counts[1] / max(counted, 1))


def _log_odds(share: float) -> float:
    return math.log(share / (1 - share))


def _copied(survey: Survey, notes: Notes) -> None:
    """Equal masks that are not of one value, under images that are not alike."""
    groups: dict[str, list[Facts]] = defaultdict(list)
    for one in survey.facts:
        if one.mask is not None and np.count_nonzero(one.mask.counts) > 1 and one.thumbnail is not None:
            groups[one.mask.digest].append(one)
    for group in groups.values():
        first, *others = group
        strangers = [other for other in others if not _same_scene(first, other)]
        if strangers:
            notes.see("copied-mask", tuple(one.entry.mask_file for one in (first, *strangers)))


def _same_scene(first: Facts, second: Facts) -> bool:
    if first.pixel_hash == second.pixel_hash:
        return True
    assert first.thumbnail is not None
    assert second.thumbnail is not None
    return best_overlay(first.thumbnail, second.thumbnail) >= UNRELATED
