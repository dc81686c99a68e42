"""Sizes: of masks beside their images, too small, too large, too mixed; and pictures that lie on a side."""

from segwright.checks.measure import Facts
from segwright.checks.survey import Survey
from segwright.datasets.base import Level, Notes

SMALL_PX = 32
HUGE_PX = 50_000_000
"""Decoded, such an image fills 150 MB in every worker."""
MIXED = 16
"""Ratio of the largest to the smallest area from which one input size cannot suit all."""
CODES: dict[str, tuple[Level, str, str]] = {
    "mask-size": (
        "error",
        "masks of another size than their image (width x height), so that no pixel's class is known",
        "Annotate the images as they are.",
    ),
    "rotated-mask": (
        "error",
        "images that their EXIF orientation turns while their masks lie as the file does, so that masks do not lie on "
        "what they mark",
        "Turn the masks (check --fix does), or save the images upright and without the EXIF tag.",
    ),
    "turned-image": (
        "warning",
        "images that their EXIF orientation turns or mirrors without changing their size; a tool that ignored it has "
        "drawn masks that lie the other way round, which sizes cannot tell",
        "Look at them here as overlays; if masks are turned, save the images upright and turn the masks.",
    ),
    "small-image": (
        "warning",
        "images with a side below 32 pixels (width x height), less than one cell of an encoder's last map",
        "Take them out, or use larger ones.",
    ),
    "huge-image": (
        "warning",
        "images above 50 megapixels (width x height), which fill 150 MB or more in each process that reads them and "
        "would lose their details when shrunk to the network's size",
        "Cut them into tiles.",
    ),
    "mixed-sizes": (
        "warning",
        "splits whose largest image has more than 16 times the pixels of the smallest, so that things appear at very "
        "different scales at one input size",
        "Crop rather than resize (augment.crop), or resize them to one scale beforehand.",
    ),
}


def look(survey: Survey, notes: Notes) -> None:
    """Notes what is wrong with sizes."""
    for one in survey.facts:
        if one.size is not None:
            _each(one, one.size, notes)
    for name, facts in survey.by_split.items():
        sized = [(one.size[0] * one.size[1], one) for one in facts if one.size is not None]
        if sized:
            (least, small), (most, large) = min(sized, key=lambda s: s[0]), max(sized, key=lambda s: s[0])
            if most > MIXED * least:
                detail = f"{name}, {_size(small.size)} to {_size(large.size)}"
                notes.see("mixed-sizes", (small.entry.file, large.entry.file), detail)


def _each(one: Facts, size: tuple[int, int], notes: Notes) -> None:
    if min(size) < SMALL_PX:
        notes.see("small-image", one.entry.file, _size(size))
    if size[0] * size[1] > HUGE_PX:
        notes.see("huge-image", one.entry.file, _size(size))
    orientation = one.kind.orientation if one.kind and one.entry.has_mask_file else 1
    if one.mask_size is not None and one.mask_size != size:
        code = "rotated-mask" if is_rotated(one) else "mask-size"
        notes.see(code, one.entry.mask_file, f"image {_size(size)}, mask {_size(one.mask_size)}")
    elif 2 <= orientation <= 4 or (orientation > 4 and size[0] == size[1]):
        notes.see("turned-image", one.entry.file, f"orientation {orientation}")


def is_rotated(one: Facts) -> bool:
    """Whether the mask fits the image as the file holds it, before its EXIF orientation lays it upright."""
    turned = one.kind is not None and one.kind.orientation > 4 and one.entry.has_mask_file
    return bool(turned and one.kind and one.mask_size == one.kind.stored != one.kind.size)


def _size(size: tuple[int, int] | None) -> str:
    return f"{size[1]} x {size[0]}" if size else ""
