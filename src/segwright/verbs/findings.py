"""Showing what a check found, and stopping on errors."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segwright.datasets.base import Finding
from segwright.errors import DataError

STYLE = {"error": "bold red", "warning": "yellow", "info": "cyan"}


def findings_table(findings: Sequence[Finding], console: Console) -> None:
    """A line a finding, errors first."""
    table = Table(show_lines=False, pad_edge=False)
    for column in ("level", "code", "what was seen", "what to do"):
        table.add_column(column, overflow="fold")
    for finding in sorted(findings, key=lambda f: list(STYLE).index(f.level)):
        files = f"\n{few(finding.files)}" if finding.files else ""
        row = (finding.code, finding.message + files, finding.fix)
        table.add_row(Text(finding.level, style=STYLE[finding.level]), *(Text(cell) for cell in row))
    console.print(table)


def few(files: Sequence[str], shown: int = 5) -> str:
    """The first files, and how many more."""
    more = len(files) - shown
    return ", ".join(files[:shown]) + (f" and {more} more" if more > 0 else "")


def stop_on_errors(findings: Sequence[Finding], what_to_do: str) -> None:
    """Raises `DataError` that holds every error-level finding."""
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        lines = [f"  - {f.code}: {f.message}{' (' + few(f.files) + ')' if f.files else ''} {f.fix}" for f in errors]
        raise DataError("the data have errors:\n" + "\n".join(lines) + f"\n{what_to_do}")


def summary_table(summary: dict[str, Any], console: Console) -> None:
    """A line a split: images, sizes, share of each class."""
    if not summary:
        return
    table = Table(pad_edge=False)
    splits = summary.get("splits", summary)
    for column in ("split", *next(iter(splits.values()))):
        table.add_column(column, overflow="fold")
    for name, values in splits.items():
        table.add_row(name, *(_short(value) for value in values.values()))
    console.print(table)


def metrics_table(metrics: dict[str, Any], console: Console) -> None:
    """A line a number; a table of the classes where there are several."""
    table = Table(show_header=False, pad_edge=False)
    for name, value in metrics.items():
        if name != "per_class" and value is not None:
            table.add_row(name, _short(value))
    console.print(table)
    if "per_class" in metrics:
        classes = Table(pad_edge=False)
        for column in ("class", "iou", "dice", "precision", "recall"):
            classes.add_column(column)
        for name, values in metrics["per_class"].items():
            classes.add_row(Text(name), *(_short(value) for value in values.values()))
        console.print(classes)


def _short(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
