"""The check of a data set, whichever reader found it, and its summary in numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from segwright.checks import duplicates, kinds, sizes
from segwright.checks.codes import CODES, FAMILIES
from segwright.checks.measure import Facts, Progress, entries, header, labels, measure, pixels
from segwright.checks.survey import Survey
from segwright.datasets.base import IGNORE, Finding, Notes, Source, by_level


@dataclass(frozen=True)
class Checked:
    """What a check of everything found, and what it saw."""

    findings: list[Finding]
    survey: Survey
    pairs: list[duplicates.Pair]
    """Images that are alike or equal, the most alike first."""

    @property
    def summary(self) -> dict[str, Any]:
        """As `summary`, without reading anything again."""
        return numbers(self.survey)


def look(source: Source, progress: Progress | None = None) -> Survey:
    """Decodes every image and mask, each once."""
    return Survey(source, list(measure(entries(source), pixels, progress)))


def judge(survey: Survey, progress: Progress | None = None) -> Checked:
    """Looks for everything in what was seen; the findings are the gravest first."""
    notes = Notes(CODES)
    kinds.files(survey, notes)
    pairs = duplicates.look(survey, notes, progress)
    for family in FAMILIES:
        family.look(survey, notes)
    return Checked(by_level([*survey.source.findings, *notes.findings()]), survey, pairs)


def check_quick(source: Source, progress: Progress | None = None) -> list[Finding]:
    """For the start of every training: headers, ends of files and equal files. Decodes only what looks cut off."""
    notes = Notes(CODES)
    found = entries(source)
    survey = Survey(source, list(measure(found, header, progress)))
    kinds.files(survey, notes)
    sizes.look(survey, notes)
    duplicates.siblings(found, notes)
    duplicates.equal_files(found, notes)
    return by_level([*source.findings, *notes.findings()])


def check_source(source: Source, *, quick: bool = False, progress: Progress | None = None) -> list[Finding]:
    """Everything that is wrong with the data, the gravest first, what the reader found included."""
    return check_quick(source, progress) if quick else judge(look(source, progress)).findings


def summary(source: Source) -> dict[str, Any]:
    """The data set in plain numbers: `{"classes": [...], "splits": {name: {...}}}`.

    For each split: `images`; `annotated_images` (with a positive pixel; of several classes: with a pixel that counts);
    `unreadable_images`; `pixel_share` of each class among the pixels that count; `ignored_share` among all; `height`
    and `width` as [least, greatest] in pixels. Reads masks and headers, no image.
    """
    return numbers(Survey(source, list(measure(entries(source), labels))))


def numbers(survey: Survey) -> dict[str, Any]:
    """`summary` of what was seen."""
    splits = {name: _numbers(survey, name, facts) for name, facts in survey.by_split.items()}
    return {"classes": list(survey.source.classes), "splits": splits}


def _numbers(survey: Survey, split: str, facts: list[Facts]) -> dict[str, Any]:
    counts = survey.total(split)
    sizes = np.array([one.size for one in facts if one.size is not None])
    ranges = np.stack([sizes.min(0), sizes.max(0)], 1).tolist() if len(sizes) else [None, None]
    return {
        "images": len(facts),
        "annotated_images": sum(one.mask is not None and survey.is_annotated(one.mask.counts) for one in facts),
        "unreadable_images": sum(any("unreadable" in code for code, _, _ in one.problems) for one in facts),
        "pixel_share": survey.shares(split),
        "ignored_share": float(counts[IGNORE] / max(counts.sum(), 1)),
        "height": ranges[0],
        "width": ranges[1],
    }
