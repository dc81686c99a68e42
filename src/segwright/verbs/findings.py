"""Showing what a check found, and stopping on errors."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from segwright.datasets.base import Finding
from segwright.errors import DataError, counted

STYLE = {"error": "bold red", "warning": "yellow", "info": "cyan"}
TABLES = {"per_class", "per_group", "per_level", "ci95", "evaluated_with"}
"""Metrics that are no single number."""


def print_findings(findings: Sequence[Finding], console: Console) -> None:
    """What was seen and what to do, errors first; then how many of each."""
    for finding in sorted(findings, key=lambda f: list(STYLE).index(f.level)):
        console.print(Text(f"{finding.level} {finding.code}", style=STYLE[finding.level]))
        for line in (finding.message, f"-> {finding.fix}" if finding.fix else ""):
            if line:
                console.print(Padding(Text(line), (0, 0, 0, 2)))
    count = {level: sum(finding.level == level for finding in findings) for level in STYLE}
    console.print(f"{counted(count['error'], 'error')}, {counted(count['warning'], 'warning')}")


def stop_on_errors(findings: Sequence[Finding], what_to_do: str) -> None:
    """Raises `DataError` that holds every error-level finding."""
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        lines = [f"  - {finding.code}: {finding.message} {finding.fix}" for finding in errors]
        raise DataError("the data have errors:\n" + "\n".join(lines) + f"\n{what_to_do}")


def summary_table(summary: dict[str, Any], console: Console) -> None:
    """A line a split: images, how many have something on them, sizes, share of each class."""
    if not summary:
        return
    table = Table(pad_edge=False)
    for column in ("split", "images", "annotated", "height x width", "share of pixels"):
        table.add_column(column)
    for name, values in summary["splits"].items():
        size = " x ".join(_range(values[side]) for side in ("height", "width"))
        shares = ", ".join(f"{label} {100 * share:.2f} %" for label, share in values["pixel_share"].items())
        table.add_row(name, str(values["images"]), str(values["annotated_images"]), size, Text(shares))
    console.print(table)


def _range(pair: Sequence[int] | None) -> str:
    return "-" if not pair else str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}..{pair[1]}"


def metrics_table(metrics: dict[str, Any], console: Console) -> None:
    """A line a number, with its 95 % interval where it has one; tables of the classes, the groups, and the classes of
    each level of a tree."""
    table, between = Table(show_header=False, pad_edge=False), metrics.get("ci95", {})
    levels = metrics.get("per_level", {})
    numbers = {name: value for name, value in metrics.items() if name not in TABLES and value is not None}
    for name, value in (numbers | {f"iou_{name}": level["iou"] for name, level in levels.items()}).items():
        table.add_row(name, _short(value), _range_of(between.get(name)))
    console.print(table)
    shares = between.get("per_class_iou", {})
    if "per_class" in metrics:
        _rows("class", metrics["per_class"], console, "95 %", {name: _range_of(pair) for name, pair in shares.items()})
    if "per_group" in metrics:
        images = {name: str(row["num_images"]) for name, row in metrics["per_group"].items()}
        _rows("group", metrics["per_group"], console, "images", images)
    for name, level in levels.items():
        _rows(f"{name} class", level["per_class"], console)


def _rows(
    what: str, rows: dict[str, dict[str, Any]], console: Console, second: str = "", cells: dict[str, str] | None = None
) -> None:
    """A line a class or a group; where `second` names a column, its `cells` stand behind the IoU."""
    lines = Table(pad_edge=False)
    for column in (what, "iou", *([second] if second else []), "dice", "precision", "recall"):
        lines.add_column(column)
    for name, row in rows.items():
        iou, *scores = (_short(row[key]) for key in ("iou", "dice", "precision", "recall"))
        lines.add_row(Text(name), iou, *([(cells or {}).get(name, "")] if second else []), *scores)
    console.print(lines)


def _range_of(pair: Sequence[float] | None) -> str:
    return f"{pair[0]:.4f} to {pair[1]:.4f}" if pair else ""


def _short(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
