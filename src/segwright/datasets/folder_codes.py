"""What reading a folder of images and masks can find: code -> (level, what it is and why it matters, what to do)."""

from segwright.datasets import pairs
from segwright.datasets.base import Level
from segwright.datasets.folder_masks import MEND_VALUES

CODES: dict[str, tuple[Level, str, str]] = pairs.CODES | {
    "unreadable-mask": ("error", "masks that cannot be read", "Annotate them again, or take them out."),
    "unknown-value": ("error", "mask values that stand for no class, so that nothing true can be learnt", MEND_VALUES),
    "unknown-colour": (
        "error",
        "areas of a mask in a colour that stands for no class; the nearest class would be learnt there",
        "List the colour in data.classes, ignore it with data.ignore=[[r, g, b]], or mend the masks.",
    ),
    "snapped": (
        "warning",
        "masks whose colours were changed, as JPEG and smooth edges do; each pixel was given the nearest colour that "
        "stands for a class, so that borders are only about right",
        "Export the masks as PNG without smoothing, if the originals are there.",
    ),
    "predicted-mask": (
        "warning",
        "masks that segwright infer wrote, left out: a model's own masks would be taken for the truth",
        "Take them away; if they are meant to be learnt from, say so with data.images and data.masks.",
    ),
    "not-in-layout": (
        "warning",
        "image files outside the folders that are read, left out",
        "If they belong to the data, say where they are with data.images and data.masks.",
    ),
    "layout": ("info", "where images and masks were found", ""),
    "kind": ("info", "how the masks are read", ""),
    "classes": ("info", "the classes in id order, and what stands for them in the masks", ""),
    "sampled": (
        "info",
        "not every mask was looked over; one whose values stand for no class stops the run when it is read",
        "",
    ),
}
