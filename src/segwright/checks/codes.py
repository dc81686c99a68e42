"""What looking at the images and masks can find: code -> (level, what it is and why it matters, what to do)."""

from segwright.datasets.base import Level

_ONE_SPLIT = "Keep one of each, or move all of them into one split."
CODES: dict[str, tuple[Level, str, str]] = {
    "unreadable-image": ("error", "images that cannot be read", "Replace them, or take them out."),
    "unreadable-mask": ("error", "masks that cannot be read", "Annotate them again, or take them out."),
    "mask-size": (
        "error",
        "masks of another size than their image (width x height)",
        "Annotate the images as they are.",
    ),
    "mask-value": ("error", "mask values that stand for no class", "Map them to class ids, or to 255 to ignore them."),
    "duplicate-across": (
        "error",
        "the same image in several splits, so that the model is measured on what it has learnt",
        _ONE_SPLIT,
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
    "blank-image": ("warning", "images of one single colour", "Take them out."),
    "small-image": (
        "warning",
        "images with a side below 32 pixels (width x height)",
        "Take them out, or use larger ones.",
    ),
    "inverted": (
        "warning",
        "splits where most pixels are positive; are the masks inverted?",
        "Look at a few masks; if they are inverted, invert them.",
    ),
    "mostly-positive": ("warning", "masks with more than 95 % positive pixels", "Look at them; they may be inverted."),
    "mostly-empty": (
        "warning",
        "splits where most images have no positive pixel, so that batches hold little to learn from",
        "If they were left unannotated, annotate them or take them out.",
    ),
    "absent-class": (
        "warning",
        "classes without a pixel in the training split, which cannot be learnt",
        "Annotate some.",
    ),
    "near-duplicate-within": ("info", "images within one split that show the same thing (r: correlation)", ""),
    "empty-masks": ("info", "images without a positive pixel", ""),
    "class-shares": ("info", "share of pixels by class", ""),
    "near-duplicates-not-sought": ("info", "near duplicates were not looked for, only equal images", ""),
}
