"""Classes that some split lacks, or that are too rare; and how much of the picture each takes."""

from segwright.checks.survey import Survey
from segwright.datasets.base import Level, Notes

FEW_PX = 200
"""Pixels in all training images together below which a class cannot be learnt."""
FEW_IMAGES = 3
CODES: dict[str, tuple[Level, str, str]] = {
    "absent-class": (
        "warning",
        "classes without a pixel in the training split, which cannot be learnt",
        "Annotate some, move images that have them, or take the class out.",
    ),
    "unlearnt-class": (
        "warning",
        "classes that are measured but not learnt: in a later split but not in training, so their IoU will be 0",
        "Move some of these images into training.",
    ),
    "unmeasured-class": (
        "warning",
        "classes that a later split lacks, so that its numbers say nothing of them",
        "Move some images that have them there.",
    ),
    "rare-class": (
        "warning",
        "classes with fewer than 200 pixels, or in fewer than 3 images, of the training split",
        "Annotate more of them, or merge them into another class.",
    ),
    "class-shares": ("info", "share of pixels by class", ""),
}


def look(survey: Survey, notes: Notes) -> None:
    """Notes absent and rare classes and the shares of all."""
    for split in survey.by_split:
        if survey.masks(split):
            parts = ", ".join(f"{name} {100 * part:.3g} %" for name, part in survey.shares(split).items())
            notes.see("class-shares", "", f"{split}: {parts}")
    if "train" in survey.by_split and survey.masks("train"):
        for value, name in survey.classes:
            _class(survey, value, name, notes)


def _class(survey: Survey, value: int, name: str, notes: Notes) -> None:
    holders = {split: _holders(survey, split, value) for split in survey.by_split if survey.masks(split)}
    learnt, measured = holders.pop("train"), {split: files for split, files in holders.items() if files}
    if not learnt and not survey.is_binary:
        notes.see("absent-class", "", name)
        for split, files in measured.items():
            notes.see("unlearnt-class", tuple(files), f"{name} in {split}")
    if learnt:
        pixels = int(survey.total("train")[value])
        if (pixels < FEW_PX or len(learnt) < FEW_IMAGES) and _tells(survey, value):
            notes.see("rare-class", tuple(learnt), f"{name}, {pixels} pixels in {_images(len(learnt))}")
        for split in holders.keys() - measured.keys():
            notes.see("unmeasured-class", "", f"{name} in {split}")


def _tells(survey: Survey, value: int) -> bool:
    """Whether rarity means anything: of a handful of images nothing is in more than a handful."""
    return len(survey.masks("train")) >= 10 * FEW_IMAGES or int(survey.total("train")[value]) < FEW_PX


def _holders(survey: Survey, split: str, value: int) -> list[str]:
    return [one.entry.mask_file for one in survey.masks(split) if one.mask and one.mask.counts[value]]


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
