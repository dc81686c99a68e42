"""A confusion matrix as a picture. matplotlib is imported when it is drawn."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

NUMBERED = 20
"""With more classes than this there is no room for numbers in the cells."""
CELL_IN, MARGIN_IN = 0.55, 2.2


def confusion_png(pixels: np.ndarray, classes: Sequence[str]) -> bytes:
    """Of each true class (row) the percentage that was found as each class (column); a PNG.

    pixels: (K, K) counts, true by found. A class without a true pixel has an empty row.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    total = pixels.sum(1, keepdims=True).astype(float)
    percent = np.divide(100.0 * pixels, total, out=np.full(pixels.shape, np.nan), where=total > 0)
    side = MARGIN_IN + max(CELL_IN * len(classes), 2.0)
    figure = Figure(figsize=(side + 0.6, side), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    image = ax.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    places = range(len(classes))
    ax.set_xticks(
        places, classes, rotation=90 if len(classes) > 6 else 30, ha="right" if len(classes) <= 6 else "center"
    )
    ax.set_yticks(places, classes)
    ax.set(xlabel="found as", ylabel="true class")
    if len(classes) <= NUMBERED:
        _numbers(ax, percent)
    figure.colorbar(image, ax=ax, shrink=0.7, label="% of the true class's pixels")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _numbers(ax: Any, percent: np.ndarray) -> None:
    for row, column in np.argwhere(~np.isnan(percent)).tolist():
        value = percent[row, column]
        text = "0" if value == 0 else "<1" if value < 0.5 else f"{value:.0f}"
        ax.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if value > 55 else "black")
