"""Several runs in one picture: their scores as bars with intervals, their courses as lines. matplotlib when drawn."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

Bar = tuple[float, float, float]
"""Value and the ends of its interval; NaN where unknown."""
PER_ROW = 12
"""Groups of bars in a row of the picture."""


def bars_png(groups: Mapping[str, Mapping[str, Bar]], what: str) -> bytes:
    """Group -> run -> bar; every group has every run. A PNG."""
    names = list(groups)
    rows = [names[i : i + PER_ROW] for i in range(0, len(names), PER_ROW)]
    figure = _figure(10, 3.2 * len(rows))
    axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    runs = list(groups[names[0]])
    width = 0.8 / len(runs)
    for ax, row in zip(axes, rows, strict=True):
        for number, run in enumerate(runs):
            places = [place + (number - (len(runs) - 1) / 2) * width for place in range(len(row))]
            _bars(ax, places, [groups[name][run] for name in row], width, run)
        ax.set_xticks(range(len(row)), row, rotation=20 if len(row) > 6 else 0)
        ax.set(ylim=(0, 1), ylabel=what, xlim=(-0.6, len(row) - 0.4))
        ax.grid(alpha=0.3, axis="y")
    axes[0].legend(fontsize="small", ncols=min(len(runs), 4))
    return _png(figure)


def _bars(ax: Any, places: Sequence[float], bars: Sequence[Bar], width: float, label: str) -> None:
    values = [0.0 if math.isnan(value) else value for value, _, _ in bars]
    ax.bar(places, values, 0.9 * width, label=label)
    known = [(place, bar) for place, bar in zip(places, bars, strict=True) if not any(map(math.isnan, bar))]
    for place, (value, low, high) in known:  # the interval need not hold the value
        below, above = max(value - low, 0), max(high - value, 0)
        ax.errorbar(place, value, [[below], [above]], color="black", capsize=2, linewidth=1)


def courses_png(courses: Mapping[str, Sequence[tuple[float, float]]], across: str, what: str) -> bytes:
    """Run -> points; a PNG."""
    figure = _figure(10, 3.6)
    ax = figure.subplots()
    for run, points in courses.items():
        ax.plot([x for x, _ in points], [y for _, y in points], marker="o" if len(points) < 40 else None, label=run)
    ax.set(xlabel=across, ylabel=what)
    ax.set_ylim(bottom=0)
    ax.grid(alpha=0.3)
    ax.legend(fontsize="small")
    return _png(figure)


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
