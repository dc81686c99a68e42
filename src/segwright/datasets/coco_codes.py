"""What reading COCO data can find: code -> (level, what it is and why it matters, what to do)."""

from segwright.datasets.base import Level

_EXPORT = "Export the data set again, or mend the file."
CODES: dict[str, tuple[Level, str, str]] = {
    "no-annotations": (
        "error",
        "a split's folder without its annotation file, so its masks are unknown",
        "Put the file there, or name it with data.annotations; take the folder away if it is no split.",
    ),
    "not-json": ("error", "an annotation file that is no JSON", _EXPORT),
    "not-coco": (
        "error",
        "a JSON file that is no COCO annotation file, which has the lists 'images', 'annotations' and 'categories'",
        _EXPORT,
    ),
    "bad-entry": ("error", "entries of an annotation file that cannot be used", _EXPORT),
    "duplicate-category": ("error", "category ids with two names, so annotations have no clear class", _EXPORT),
    "duplicate-image-id": (
        "error",
        "image ids used twice, so annotations have no clear image",
        "Number the images anew.",
    ),
    "duplicate-file-name": (
        "error",
        "images listed twice, so that each entry holds only a part of the truth",
        "Merge the entries' annotations under one id.",
    ),
    "no-matching-category": (
        "error",
        "no category matches the pattern, so nothing would be positive",
        "Set data.pattern to one of these names, or to a regular expression that finds it; data.classes=all makes each "
        "category a class.",
    ),
    "no-such-class": (
        "error",
        "classes that no category of the files is called",
        "Take names that are there into data.classes, or set it to all.",
    ),
    "too-many-classes": (
        "error",
        "more classes, with the background, than the 254 that masks of 8 bits can tell apart",
        "List those that matter in data.classes.",
    ),
    "unknown-category": ("error", "annotations of a category that no file lists", _EXPORT),
    "unsafe-path": (
        "error",
        "image names that are absolute or leave the split's folder; following them could read any file",
        "Use names relative to the split's folder, without '..'.",
    ),
    "missing-image": ("error", "images that are listed but not there", "Restore them, or take their entries out."),
    "unreadable-image": ("error", "images that cannot be read", "Replace them, or take them and their entries out."),
    "size-mismatch": (
        "error",
        "images of another size than their annotations are for (width x height, EXIF orientation applied), so that "
        "masks would not lie on them",
        "Annotate the images as they are now, or restore those that were annotated.",
    ),
    "bad-segmentation": ("error", "segmentations that cannot be painted", "Draw them again, or take them out."),
    "empty-split": ("error", "a split without a usable image", "Fill it, or take its folder away."),
    "nothing-to-learn": (
        "error",
        "a training split without one positive annotation",
        "Annotate some, or change data.pattern.",
    ),
    "nothing-to-measure": (
        "warning",
        "a split without one positive annotation, so its IoU says nothing",
        "Move some annotated images there.",
    ),
    "short-polygon": ("warning", "polygons of fewer than 3 points, left out", "Draw them again, or take them out."),
    "no-segmentation": (
        "warning",
        "annotations without a segmentation (a box at most), left out",
        "Export as segmentation, not as detection.",
    ),
    "orphan-annotation": ("warning", "annotations of images that are not listed, left out", _EXPORT),
    "unlisted-image": (
        "warning",
        "images in a split's folder that its annotation file does not list, left out",
        "List them (without annotations if there is nothing on them), or take them away.",
    ),
    "missing-split": ("info", "splits that are not there", ""),
    "dummy-category": ("info", "categories left out: only the parent of others, and not annotated", ""),
    "classes": ("info", "which categories are positive and which background", ""),
}
