"""What reading SPARK's layout can find beside what every reader of pairs finds."""

from segwright.datasets import pairs
from segwright.datasets.base import Level

CODES: dict[str, tuple[Level, str, str]] = pairs.CODES | {
    "snapped": (
        "info",
        "masks whose colours are not exactly those of the classes, as JPEG leaves them; each pixel gets the nearest",
        "",
    ),
    "foreign-colour": (
        "warning",
        "masks with many pixels that are far from every class's colour (more than 64 of 255 in a channel)",
        "Compare data.colours with a mask; the order is that of data.classes.",
    ),
    "missing-craft": ("info", "craft without a folder", ""),
    "unreadable-mask": ("error", "masks that cannot be read", "Replace them, or take them and their images out."),
    "table-unreadable": (
        "warning",
        "tables without the columns 'Image name', 'Class' and 'Bounding box'; what they say was not compared",
        "Restore the table, or take it away.",
    ),
    "table-no-image": (
        "warning",
        "rows of a table whose image is not in the folder of its craft and split",
        "Restore the image, or mend the row.",
    ),
    "table-unlisted": ("warning", "images that the table of their split does not list", "Complete the table."),
    "table-craft": (
        "warning",
        "rows of a table that name another craft than the folder their image lies in",
        "Mend the row, or move the image and its mask.",
    ),
    "table-box": (
        "warning",
        "rows of a table whose box is not (xmin, ymin, xmax, ymax), or does not hold the craft that the mask shows",
        "Mend the row; if the box is right, look at the mask.",
    ),
}
"""code -> (level, what it is and why it matters, what to do)."""
