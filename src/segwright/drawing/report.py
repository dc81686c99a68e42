"""report.html: what a run did and how good it is, in one file that needs no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segwright.drawing import page
from segwright.drawing.curves import curves_png
from segwright.files import write_bytes

Sample = tuple[str, np.ndarray, float]
"""Name, picture (H, W, 3) uint8, IoU (NaN where neither truth nor prediction holds anything)."""


def report(
    path: str | Path,
    *,
    title: str,
    facts: Mapping[str, Any],
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    figures: Sequence[tuple[str, Path | bytes]],
    best: Sequence[Sample],
    worst: Sequence[Sample],
    config: str = "",
    tree: str = "",
) -> None:
    """Writes the page, whole or not at all; an empty part is left out.

    metrics: a number, or (value, low, high) with its confidence interval; a mapping of class -> {metric: number} makes
    a table of its own. history: the log's rows, drawn as curves. figures: (caption, PNG or JPEG as path or bytes).
    config: the resolved configuration's text. tree: that of the classes, in lines. Raises `DataError` for a figure of
    another format.
    """
    values = {name: value for name, value in metrics.items() if not isinstance(value, Mapping)}
    tables = {name: value for name, value in metrics.items() if isinstance(value, Mapping)}
    drawn = [("curves over the epochs", curves_png(history)), *figures] if history else figures
    body = [
        f"<h1>{page.text(title)}</h1>",
        page.facts(facts),
        page.section("Metrics", _metrics(values), *(_per_class(name, table) for name, table in tables.items())),
        page.section("Figures", *(page.figure(page.inline(source), caption) for caption, source in drawn)),
        page.section("Worst samples", _samples(worst)),
        page.section("Best samples", _samples(best)),
        page.section(
            "Details",
            page.details("Tree of classes", page.pre(tree)) if tree else "",
            page.details("Epochs", _epochs(history)),
            page.details("Resolved configuration", page.pre(config)),
        ),
    ]
    write_bytes(path, page.document(title, "\n".join(body)).encode("utf-8", "replace"))


def _metrics(values: Mapping[str, Any]) -> str:
    with_interval = any(isinstance(value, tuple | list) for value in values.values())
    rows = []
    for name, value in values.items():
        number, *interval = value if isinstance(value, tuple | list) else (value,)
        between = [f"{interval[0]:.4g} to {interval[1]:.4g}" if interval else ""]
        rows.append([name, number, *(between if with_interval else [])])
    return page.table(["metric", "value", "confidence interval"][: 3 if with_interval else 2], rows)


def _per_class(name: str, table: Mapping[str, Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(column for row in table.values() for column in row))
    return page.table(
        [name, *columns], ([label, *(row.get(column) for column in columns)] for label, row in table.items())
    )


def _epochs(history: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in history for key in row))
    return page.table(columns, ([row.get(column) for column in columns] for row in history))


def _samples(samples: Sequence[Sample]) -> str:
    items = "\n".join(
        page.figure(page.inline(page.jpeg(image)), f"{name}: IoU {_score(iou)}") for name, image, iou in samples
    )
    return f'<div class="samples">\n{items}\n</div>' if items else ""


def _score(iou: float) -> str:
    return f"{iou:.3f}" if iou == iou else "undefined (nothing there, nothing found)"
