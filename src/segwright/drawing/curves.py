"""The course of a training run, drawn from its log. matplotlib is imported when something is drawn.

A row is one epoch of the log: numbers, or their texts as a CSV gives them; what is missing leaves a gap.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segwright.files import write_bytes

Row = Mapping[str, Any]

PANELS: tuple[tuple[str, str, Callable[[str], bool]], ...] = (
    ("loss", "linear", lambda key: key.endswith("loss")),
    ("score", "linear", lambda key: key.startswith(("valid_", "test_")) and not key.endswith("loss")),
    ("learning rate", "log", lambda key: key.startswith("lr")),
    ("images per second", "linear", lambda key: key.endswith("images_per_s")),
)
"""Title, scale, and which of the log's columns belong there. A panel without any is left out."""


def curves(rows: Sequence[Row], path: str | Path) -> None:
    """Writes the PNG of `curves_png`, whole or not at all. Raises `SegwrightError`."""
    write_bytes(path, curves_png(rows))


def curves_png(rows: Sequence[Row]) -> bytes:
    """Losses, scores, learning rates and speed over the epochs, as far as the rows hold them; a PNG.

    The epoch in which `frozen` turns false is marked. Rows without `epoch` are counted from 1.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _panels(rows)
    lines, columns = max(-(-len(panels) // 2), 1), min(max(len(panels), 1), 2)
    figure = Figure(figsize=(5 * columns, 3.4 * lines), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False).flat
    for unused in axes[len(panels) :]:
        unused.set_axis_off()
    if not panels:
        axes[0].text(0.5, 0.5, "nothing to draw yet", ha="center", va="center")
    epochs = [_number(row.get("epoch", index)) for index, row in enumerate(rows, 1)]
    for ax, (title, scale, series) in zip(axes, panels, strict=False):  # a last place may stay free
        _draw_panel(ax, epochs, series)
        ax.set(title=title, xlabel="epoch", yscale=scale)
        _mark_unfreezing(ax, rows, epochs)
        ax.legend(fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _panels(rows: Sequence[Row]) -> list[tuple[str, str, dict[str, list[float]]]]:
    """(title, scale, column -> values) of each panel that has something to show."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    panels = []
    for title, scale, belongs in PANELS:
        series = {key: [_number(row.get(key)) for row in rows] for key in keys if belongs(key)}
        if scale == "log":
            series = {key: [v if v > 0 else math.nan for v in values] for key, values in series.items()}
        series = {key: values for key, values in series.items() if any(map(math.isfinite, values))}
        if series:
            panels.append((title, scale, series))
    return panels


def _draw_panel(ax: Any, epochs: list[float], series: dict[str, list[float]]) -> None:
    from matplotlib.ticker import MaxNLocator

    for key, values in series.items():
        ax.plot(epochs, values, marker="o" if len(values) < 40 else None, markersize=3, label=key)
    if all(key.endswith("images_per_s") for key in series):
        highest = max(v for values in series.values() for v in values if math.isfinite(v))
        ax.set_ylim(0, 1.1 * highest or 1)  # from 0, or a steady speed looks like a wild one
    ax.grid(alpha=0.3)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _mark_unfreezing(ax: Any, rows: Sequence[Row], epochs: list[float]) -> None:
    frozen = [_is_true(row.get("frozen")) for row in rows]
    for epoch, before, now in zip(epochs[1:], frozen, frozen[1:], strict=False):
        if before and not now:
            ax.axvline(epoch, color="grey", linestyle="--", linewidth=1, label="encoder unfrozen")


def _number(value: Any) -> float:
    """A finite number, or NaN for whatever cannot be drawn."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def _is_true(value: Any) -> bool:
    return str(value).strip().lower() in {"true", "1", "1.0", "yes"}
