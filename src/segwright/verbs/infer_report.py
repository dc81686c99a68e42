"""What `segwright infer` says of all images together: how much of each is which class, and a page to look at.

N images, K classes.
"""

import csv
import io
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from segwright.checks.kinds import DARK
from segwright.drawing.overlays import legend
from segwright.drawing.page import details, document, facts, figure, inline, section, table, text
from segwright.errors import DataError
from segwright.files import printable, write_text
from segwright.png import PREDICTED, is_prediction
from segwright.verbs.infer_files import Written

log = logging.getLogger("segwright")

SHARES = "mask_shares.csv"
"""Beside the masks; no reader of data sets takes a table of this name."""
PAGE = "masks.html"
MEANING = "mask_classes.json"
"""Beside masks of several classes: what their values stand for."""
TITLE = "Predicted masks"
MARKS = {SHARES: "image,mask,", PAGE: f"<title>{TITLE}</title>", MEANING: '"mask": ['}
"""What the first bytes of each hold, by which they are known."""
HEAD_BYTES = 1000
NAMED = 3
"""Classes that a picture's caption names, the largest first."""
LEGEND_PX = 360


def write_report(
    folder: Path,
    weights: str,
    classes: Sequence[str],
    colours: np.ndarray,
    written: Mapping[str, Written],
    failed: Mapping[str, str],
) -> None:
    """`mask_shares.csv` and `masks.html` into the pictures' folder.

    colours (K, 4) uint8, of one class (2, 4); written: by the image's name; failed: by its path.
    """
    first = 1 if len(classes) == 1 else 0
    counts = np.array([one.counts for one in written.values()], float).reshape(len(written), first + len(classes))
    shares = (counts / counts.sum(1, keepdims=True))[:, first:]
    write_text(folder / SHARES, _table(classes, written, shares))
    drawn = [place for place in range(len(classes)) if colours[first + place, 3]]
    entries = {classes[place]: tuple(map(int, colours[first + place, :3])) for place in drawn}
    together = (counts.sum(0) / max(counts.sum(), 1))[first:]
    pictures = [
        figure(inline(one.thumbnail), f"{name}: {_largest(classes, share, drawn)}")
        for (name, one), share in zip(written.items(), shares, strict=True)
        if one.thumbnail
    ]
    known = facts({"weights": weights, "images": len(written), "files that could not be predicted": len(failed)})
    shown = "" if len(pictures) == len(written) else f"<p>The first {len(pictures)} of {len(written)} images.</p>"
    body = [
        f"<h1>{TITLE}</h1>",
        known,
        details("files that could not be predicted", table(["file", "what is wrong"], failed.items())),
        section(
            "Classes",
            figure(inline(_png(legend(LEGEND_PX, entries))), "how they are drawn"),
            table(["class", "share of all pixels"], zip(classes, map(percent, together), strict=True)),
            f"<p>Of each image: {text(SHARES)}.</p>",
        ),
        section("Images", shown, f'<div class="samples">{"".join(pictures)}</div>') if pictures else "",
    ]
    write_text(folder / PAGE, document(TITLE, "\n".join(part for part in body if part)))


def percent(share: float) -> str:
    """A share from 0 to 1 in words: what is there is never called 0."""
    return f"{share:.1%}" if share == 0 or share >= 0.001 else "under 0.1%"


def _table(classes: Sequence[str], written: Mapping[str, Written], shares: np.ndarray) -> str:
    lines = io.StringIO(newline="")
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["image", "mask", *classes])
    for (name, one), row in zip(written.items(), shares, strict=True):
        writer.writerow([printable(name), printable(one.mask.name), *(f"{share:.6g}" for share in row)])
    return lines.getvalue()


def stop_on_other_report(folder: Path) -> None:
    """Raises `DataError` where a report would overwrite what `infer` did not write."""
    for name, mark in MARKS.items():
        path = folder / name
        if os.path.lexists(path) and not _holds(path, mark):
            raise DataError(
                f"{path} would be overwritten, and infer did not write it. Choose another --save, or move it away."
            )


def tell(folder: Path, written: Mapping[str, Written], pictures: Collection[str]) -> None:
    """Says what a user may not expect: dark images, and masks that are none of this call's `pictures`."""
    dark = {name: one.brightest for name, one in written.items() if one.brightest <= DARK}
    if dark:
        name, brightest = next(iter(dark.items()))
        log.warning(
            "%d images are dark, as %s, whose brightest value is %d of 255: a model trained on others finds little in "
            "them. If they hold fewer bits than their files, as 12 in 16, stretch their values first",
            len(dark),
            printable(name),
            brightest,
        )
    others = [path for path in folder.glob(f"*{PREDICTED[0]}") if path.name not in pictures]
    if older := sum(map(is_prediction, others)):
        log.warning("%d masks in %s are of earlier calls; %s and %s are of this one alone", older, folder, SHARES, PAGE)


def _holds(path: Path, mark: str) -> bool:
    try:
        with path.open("rb") as file:
            return mark.encode() in file.read(HEAD_BYTES)
    except OSError:
        return False


def _largest(classes: Sequence[str], share: np.ndarray, drawn: Sequence[int]) -> str:
    there = sorted((place for place in drawn if share[place] > 0), key=lambda place: -share[place])
    return ", ".join(f"{classes[place]} {percent(share[place])}" for place in there[:NAMED]) or "nothing found"


def _png(picture: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()
