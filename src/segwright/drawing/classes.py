"""Pictures of masks with several classes: each class its own colour, a legend of those that occur.

Shapes: H x W the picture in pixels, K classes. Colours are RGB uint8. 255 in a mask is never drawn.
"""

from collections.abc import Sequence

import numpy as np

from segwright.drawing.overlays import IGNORE, legend, overlay, palette

Colours = Sequence[Sequence[int]]
BACKGROUND = "background"
"""A first class of this name is left as the photograph is."""


def class_colours(classes: Sequence[str], own: Colours | None = None) -> np.ndarray:
    """(K, 4) uint8 RGBA, the data set's `own` colours or else ours; (2, 4) for one class, the first transparent."""
    if len(classes) == 1:
        return palette(1)
    if own is None:
        if classes[0] != BACKGROUND:
            return palette(len(classes))
        return np.concatenate([np.zeros((1, 4), np.uint8), palette(max(len(classes) - 1, 2))[: len(classes) - 1]])
    colours = np.full((len(classes), 4), 255, np.uint8)
    colours[:, :3] = own
    if classes[0] == BACKGROUND:
        colours[0, 3] = 0
    return colours


def panels(
    image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, classes: Sequence[str], colours: np.ndarray
) -> np.ndarray:
    """Photograph, truth and prediction side by side, with a legend of the classes that occur: (h, 3 W + 8, 3) uint8.

    image (H, W, 3) uint8, truth and prediction (H, W) class ids, colours (K, 4).
    """
    gap = np.full((image.shape[0], 4, 3), 250, np.uint8)
    drawn = [overlay(image, mask, colours) for mask in (truth, prediction)]
    row = np.concatenate([image, gap, drawn[0], gap, drawn[1]], 1)
    seen = np.union1d(truth[truth != IGNORE], prediction[prediction != IGNORE])
    entries = {classes[i]: tuple(int(v) for v in colours[i, :3]) for i in seen.tolist() if colours[i, 3]}
    return np.concatenate([row, legend(row.shape[1], entries)]) if entries else row
