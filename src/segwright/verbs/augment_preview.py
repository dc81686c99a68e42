"""What the network will see: augmented training samples with their masks, drawn on one sheet."""

from pathlib import Path

import numpy as np

from segwright.data import TrainingSet
from segwright.datasets.base import IGNORE, leaves_alone
from segwright.drawing.classes import class_colours
from segwright.drawing.overlays import grid, overlay
from segwright.errors import DataError
from segwright.png import write_png
from segwright.transforms import Augment
from segwright.verbs.settings import Settings
from segwright.verbs.source import read_source

IMAGES, DRAWS = 6, 3
"""Rows and columns of the sheet: images evenly spread over `train`, each augmented so many times."""
IGNORED_LIGHT = 0.35
"""Pixels that no loss looks at are darkened to this share."""


def show_augment(settings: Settings, path: str | Path) -> None:
    """Writes a PNG: each cell is a training sample, and beside it the same with its mask drawn over it; what is ignored
    is dark. The samples are those of the run's first passes with `train.seed`.

    Raises:
        DataError: the data cannot be used, or have no split `train`.
    """
    source = read_source(settings)
    if "train" not in source.splits:
        raise DataError("the data have no split 'train', and only training images are augmented. Add one.")
    split, colours = source.splits["train"], class_colours(source.classes, source.colours)
    data = TrainingSet(split, settings.input.pixels(), Augment(settings.augment), settings.train.seed)
    rows = np.unique(np.linspace(0, len(split) - 1, IMAGES).round().astype(int)).tolist()
    cells, titles = [], []
    for index in rows:
        for number in range(DRAWS):
            sample = data[number, index]
            mask = leaves_alone(sample["mask"].numpy(), source.num_classes)
            cells.append(_cell(sample["image"].permute(1, 2, 0).numpy(), mask, colours))
            titles.append(f"{split.path(index).name}, pass {number + 1}")
    write_png(path, grid(cells, titles, DRAWS), quick=True)


def _cell(image: np.ndarray, mask: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) and the same with the mask (H, W) over it, side by side."""
    drawn = overlay(image, mask, colours)
    ignored = mask == IGNORE
    drawn[ignored] = (drawn[ignored] * IGNORED_LIGHT).astype(np.uint8)
    gap = np.full((image.shape[0], 4, 3), 250, np.uint8)
    return np.concatenate([image, gap, drawn], 1)
