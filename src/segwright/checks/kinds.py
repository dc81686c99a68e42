"""Kinds of picture: unreadable, damaged, blank, grey among colour, dark, deep, transparent."""

from segwright.checks.survey import Survey
from segwright.datasets.base import Level, Notes

DARK = 64
"""Largest value up to which an image is called dark."""
RARE = 0.2
"""Share up to which grey images among colour ones, or the other way round, are the odd ones."""
CODES: dict[str, tuple[Level, str, str]] = {
    "unreadable-image": (
        "error",
        "images that cannot be read, at which training would stop",
        "Replace them, or take them out.",
    ),
    "unreadable-mask": (
        "error",
        "masks that cannot be read, at which training would stop",
        "Annotate them again, or take them out.",
    ),
    "damaged-image": (
        "warning",
        "JPEG files that are damaged inside; decoders say nothing and go on with shifted or grey pixels",
        "Look at them; fetch them again, or take them out.",
    ),
    "blank-image": (
        "warning",
        "images of one single colour, in which there is nothing to learn",
        "Take them out.",
    ),
    "dark-image": (
        "warning",
        "images in which no value is above 64 of 255; those of a 10- or 12-bit camera look like this when their values "
        "were stored in 16 bit without being scaled",
        "Scale them to the full range of their files.",
    ),
    "grey-among-colour": (
        "warning",
        "grey images in a data set of colour ones, which the model may learn to tell by their lack of colour",
        "See whether they belong here; if they do, train with saturation varied.",
    ),
    "colour-among-grey": (
        "warning",
        "colour images in a data set of grey ones, which the model may learn to tell by their colour",
        "See whether they belong here; if they do, make them grey.",
    ),
    "sixteen-bit": (
        "info",
        "images of more than 8 bits a channel, which are read as 8 bits",
        "",
    ),
    "transparent-image": (
        "warning",
        "images that are transparent in places; what the file stores there, often black or white, becomes part of the "
        "picture",
        "Lay them on a background, or ignore these places in the masks.",
    ),
}


def files(survey: Survey, notes: Notes) -> None:
    """Notes files that cannot be read, but for those that the reader has named."""
    for one in survey.facts:
        for code, file, detail in one.problems:
            if file not in survey.blamed:
                notes.see(code, file, detail)


def look(survey: Survey, notes: Notes) -> None:
    """Notes odd pictures."""
    for one in survey.facts:
        if one.thumbnail is not None and not one.pixel_hash:
            notes.see("blank-image", one.entry.file)
        elif one.highest <= DARK:
            notes.see("dark-image", one.entry.file, f"up to {one.highest}")
        if one.kind is not None and one.kind.deep:
            notes.see("sixteen-bit", one.entry.file)
        if one.clear > 0:
            notes.see("transparent-image", one.entry.file, f"{100 * one.clear:.2g} %")
    _odd_ones(survey, notes)


def _odd_ones(survey: Survey, notes: Notes) -> None:
    seen = [one for one in survey.facts if one.pixel_hash]
    grey = [one for one in seen if one.grey]
    colour = [one for one in seen if not one.grey]
    for code, few, many in (("grey-among-colour", grey, colour), ("colour-among-grey", colour, grey)):
        if many and len(few) <= RARE * len(seen):
            for one in few:
                notes.see(code, one.entry.file)
