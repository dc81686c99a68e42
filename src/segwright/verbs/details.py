"""What an evaluation writes beside its numbers: counts of each image, of each group, the confusion matrix, a page.

metrics_<split>.json  per_image_<split>.csv  confusion_<split>.csv  confusion_<split>.png  evaluation_<split>.html
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segwright import bootstrap
from segwright.datasets.base import Source, Split, group_of
from segwright.drawing.confusion import confusion_png
from segwright.drawing.report import Sample, report
from segwright.errors import DataError
from segwright.files import write_bytes, write_text
from segwright.metrics import class_scores, scores
from segwright.splitting.groups import image_names
from segwright.verbs.scoring import Tally

COUNTED = ("tp", "fp", "fn")
"""Columns of the per-image table are `tp:<class>` and so on, in pixels."""
OTHER = "other"
"""What is not the only class of a binary task."""


def summarise(tally: Tally, split: Split, classes: Sequence[str], threshold: float | None) -> dict[str, Any]:
    """The numbers of `metrics_<split>.json`. `threshold`: what was used, for one class."""
    total, rows = tally.counts.total(), tally.counts.rows
    metrics: dict[str, Any] = {**scores(total)}
    if tally.near:
        metrics["f1_2px"] = tally.near.f1()
    metrics |= {"threshold": threshold, "num_images": len(split), **intervals(rows, classes)}
    if len(classes) > 1:
        metrics["per_class"] = class_scores(total, classes)
    metrics |= per_group(rows, [group_of(split, index) for index in range(len(split))], classes)
    if tally.tree:
        metrics |= {**tally.tree.counts.scores(), "per_level": tally.tree.per_level()}
    return metrics


def intervals(rows: Sequence[np.ndarray], classes: Sequence[str]) -> dict[str, Any]:
    """95 % intervals of the scores by the bootstrap over images; those of the classes' IoU where there are several."""
    if len(rows) < 2:
        return {}
    drawn = bootstrap.draw(np.stack(rows))
    ious, dices = bootstrap.iou(drawn), bootstrap.dice(drawn)
    found: dict[str, Any] = {
        "iou": bootstrap.interval(bootstrap.mean_of_present(ious), len(rows)),
        "dice": bootstrap.interval(bootstrap.mean_of_present(dices), len(rows)),
        "method": f"bootstrap over images, {bootstrap.DRAWS} draws",
    }
    if len(classes) > 1:
        found["per_class_iou"] = {name: bootstrap.interval(ious[:, i], len(rows)) for i, name in enumerate(classes)}
    return {"ci95": json.loads(json.dumps(found))}  # lists, as the file will have them


def per_group(rows: Sequence[np.ndarray], groups: Sequence[str], classes: Sequence[str]) -> dict[str, Any]:
    """Scores of the images of each group; nothing where the data have none."""
    named = [name for name in dict.fromkeys(groups) if name]
    table: dict[str, dict[str, Any]] = {}
    for name in named:
        own = np.sum([row for row, group in zip(rows, groups, strict=True) if group == name], axis=0)
        table[name] = {**scores(own), "num_images": groups.count(name)}
        if len(classes) > 1:
            table[name]["per_class_iou"] = {one: _iou(own[i]) for i, one in enumerate(classes)}
    return {"per_group": table} if table else {}


def _iou(counts: np.ndarray) -> float | None:
    return float(counts[0] / counts.sum()) if counts.sum() else None


def write_counts(path: Path, rows: Sequence[np.ndarray], split: Split, root: str, classes: Sequence[str]) -> None:
    """The per-image table: image, group, IoU, Dice (empty where no pixel counts) and the counts of each class."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "group", "iou", "dice", *(f"{kind}:{name}" for name in classes for kind in COUNTED)])
    for index, (name, row) in enumerate(zip(image_names(split, root), rows, strict=True)):
        score = scores(row)
        shown = [f"{score[key]:.6f}" if len(row) == 1 or row.any() else "" for key in ("iou", "dice")]
        writer.writerow([name, group_of(split, index), *shown, *row.ravel()])
    write_text(path, text.getvalue())


def read_counts(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    """Image names, classes and the counts (N, K, 3) of a per-image table. Raises `DataError`."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            head, *lines = csv.reader(file)
        classes = [name.removeprefix("tp:") for name in head if name.startswith("tp:")]
        first = head.index(f"tp:{classes[0]}")
        counts = np.array([[int(cell) for cell in line[first:]] for line in lines]).reshape(len(lines), len(classes), 3)
    except (OSError, ValueError, IndexError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read as an evaluation's counts of each image ({error}). Evaluate again: segwright "
            "evaluate --weights RUN/best.pth --output RUN/evaluation."
        ) from None
    return [line[0] for line in lines], classes, counts


def write_confusion(path: Path, pixels: np.ndarray, classes: Sequence[str]) -> None:
    """The matrix, (K, K) pixels true by found, (2, 2) for one class, as CSV."""
    names = _both(classes)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true class", *names])
    writer.writerows([name, *row] for name, row in zip(names, pixels.tolist(), strict=True))
    write_text(path, text.getvalue())


def draw_confusion(path: Path, pixels: np.ndarray, classes: Sequence[str]) -> bytes:
    """The matrix as a PNG file; gives its content."""
    png = confusion_png(pixels, _both(classes))
    write_bytes(path, png)
    return png


def _both(classes: Sequence[str]) -> list[str]:
    """The matrix's classes: a binary one has what is not the class, too."""
    return [OTHER, *classes] if len(classes) == 1 else list(classes)


def with_intervals(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The single scores of an evaluation, as a page shows them: a number, or (value, low, high)."""
    between = metrics.get("ci95", {})
    return {
        name: (value, *between[name]) if between.get(name) else value
        for name, value in metrics.items()
        if isinstance(value, int | float) and name not in {"num_images", "threshold"}
    }


def write_page(
    path: Path, metrics: Mapping[str, Any], source: Source, confusion: bytes, best: list[Sample], worst: list[Sample]
) -> None:
    """All of it on one page that needs no network."""
    shown = with_intervals(metrics)
    levels = metrics.get("per_level", {})
    shown |= {f"iou_{name}": level["iou"] for name, level in levels.items()}
    tables = {"class": metrics.get("per_class", {}), "group": metrics.get("per_group", {})}
    tables |= {f"{name} class": level["per_class"] for name, level in levels.items()}
    rows = {
        kind: {name: {k: v for k, v in row.items() if not isinstance(v, dict | list)} for name, row in table.items()}
        for kind, table in tables.items()
        if table
    }
    report(
        path,
        title=f"Evaluation of {metrics['weights']}",
        facts={
            "images": metrics["num_images"],
            "classes": ", ".join(source.classes),
            "threshold": metrics["threshold"],
        },
        metrics=shown | rows,
        history=[],
        figures=[("confusion: each row is a true class", confusion)],
        best=best,
        worst=worst,
    )
