"""The page that `segwright check --html` writes: which pictures are shown, and how they are drawn."""

from collections import defaultdict
from itertools import zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

from segwright.checks import Checked
from segwright.checks.measure import Entry
from segwright.datasets.base import Finding, Source, leaves_alone
from segwright.drawing.check_report import Double, Picture, check_report
from segwright.drawing.classes import class_colours
from segwright.drawing.overlays import overlay
from segwright.errors import SegwrightError

SUSPICIOUS = 36
"""Pictures on the page that findings name; as many of each finding as there is room for."""
DOUBLES = 24
SAMPLES = 12
DRAWN_PX = 720
"""Pictures are shrunk to this before they are drawn on."""


def check_page(path: str | Path, checked: Checked, root: str) -> None:
    """Writes the page, whole or not at all. Pictures that cannot be read are left out."""
    survey = checked.survey
    doubtful = _suspicious(checked)
    splits = {name: len(facts) for name, facts in survey.by_split.items()}
    check_report(
        path,
        title=f"Check of {Path(root).resolve().name or root}",
        facts={
            "folder": root,
            "classes": ", ".join(survey.source.classes),
            **{f"{name}, images": count for name, count in splits.items()},
        },
        findings=checked.findings,
        shares={name: survey.shares(name) for name in splits if survey.masks(name)},
        sizes=[one.size for one in survey.facts if one.size is not None],
        suspicious=_drawn(survey.source, doubtful[:SUSPICIOUS]),
        doubles=_doubles(checked),
        samples=_drawn(survey.source, _samples(checked, {entry.file for entry, _ in doubtful})),
    )


def _suspicious(checked: Checked) -> list[tuple[Entry, str]]:
    """Images that errors and warnings name, with the findings' codes: first one of each finding, then a second ..."""
    named = {file: one.entry for one in checked.survey.facts for file in (one.entry.mask_file, one.entry.file)}
    paired = {pair.code for pair in checked.pairs}
    queues = [
        [(named[file], finding) for file in finding.files if file in named]
        for finding in checked.findings
        if finding.level != "info" and finding.code not in paired
    ]
    codes: dict[str, list[Finding]] = defaultdict(list)
    entries: dict[str, Entry] = {}
    for entry, finding in (item for row in zip_longest(*queues) for item in row if item):
        codes[entry.file].append(finding)
        entries[entry.file] = entry
    return [(entries[file], ", ".join(finding.code for finding in found)) for file, found in codes.items()]


def _samples(checked: Checked, seen: set[str]) -> list[tuple[Entry, str]]:
    """Other images, spread evenly over each split."""
    chosen = []
    for name, facts in checked.survey.by_split.items():
        rest = [one.entry for one in facts if one.entry.file not in seen]
        each = min(len(rest), -(-SAMPLES // len(checked.survey.by_split)))
        chosen += [(rest[int(place)], name) for place in np.linspace(0, len(rest) - 1, each)]
    return chosen


def _drawn(source: Source, entries: list[tuple[Entry, str]]) -> list[Picture]:
    pictures = (_picture(source, entry, f"{entry.file}: {note}") for entry, note in entries)
    return [picture for picture in pictures if picture is not None]


def _doubles(checked: Checked) -> list[Double]:
    """Across splits first."""
    found = sorted(checked.pairs, key=lambda pair: "across" not in pair.code)[:DOUBLES]
    drawn = []
    for pair in found:
        pictures = [_picture(checked.survey.source, entry, entry.file) for entry in (pair.first, pair.second)]
        if pictures[0] and pictures[1]:
            drawn.append(Double(pictures[0], pictures[1], f"{pair.code}: {pair.how}"))
    return drawn


def _picture(source: Source, entry: Entry, caption: str) -> Picture | None:
    """The mask over the image; beside it where they differ in size; none where the image cannot be read."""
    try:
        image = entry.split.image(entry.index)
    except SegwrightError:
        return None
    small = Image.fromarray(image)
    small.thumbnail((DRAWN_PX, DRAWN_PX))
    try:
        mask = entry.split.mask(entry.index)
    except SegwrightError:
        return Picture(np.asarray(small), caption + " (its mask cannot be read)")
    drawn = _laid_over(source, np.asarray(small), mask)
    if mask.shape == image.shape[:2]:
        return Picture(drawn, caption)
    plain = np.full((small.height, small.width, 3), 40, np.uint8)
    return Picture(np.concatenate([np.asarray(small), _laid_over(source, plain, mask)], 1), caption)


def _laid_over(source: Source, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    fitted = np.array(Image.fromarray(mask).resize((image.shape[1], image.shape[0]), Image.Resampling.NEAREST))
    drawn = leaves_alone(fitted, source.num_classes)
    return overlay(image, drawn, class_colours(source.classes, source.colours))
