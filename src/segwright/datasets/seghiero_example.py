"""The smallest data set in SegHiero's layout: documentation and test data in one."""

from itertools import count
from pathlib import Path

import numpy as np

from segwright.png import write_png

HEIGHT, WIDTH = 32, 40
SAMPLES: dict[str, list[tuple[int, ...]]] = {"train": [(0, 1, 2, 3), (3, 2, 1, 0)], "val": [(1, 3, 0, 2)]}
"""Split -> for each image its fine classes, as four upright stripes of ten columns each. Files: 000, 001, 002."""
CONFIG = """dataset:
  root: .
  train: {image_subdir: images/train, mask_subdir: masks/train}
  val: {image_subdir: images/val, mask_subdir: masks/val}
classes:
  fine_names: {0: road, 1: pavement, 2: car, 3: bicycle}
  coarse_names: {0: ground, 1: vehicle}
  coarse_to_fine_map: [[0, 1], [2, 3]]
"""


def stripes(classes: tuple[int, ...]) -> np.ndarray:
    """(HEIGHT, WIDTH) uint8; the lowest two rows are ignored."""
    ids = np.repeat(np.repeat(np.array(classes, np.uint8), WIDTH // len(classes))[None], HEIGHT, axis=0)
    ids[-2:] = 255
    return ids


def example(folder: str | Path) -> Path:
    """Writes config.yaml, images/ and masks/ into `folder`, which is made if needed, and returns it."""
    folder = Path(folder)
    random = np.random.default_rng(0)
    numbers = count()
    for split, samples in SAMPLES.items():
        for classes in samples:
            number = next(numbers)
            ids = stripes(classes)
            light = 60 + 45 * np.where(ids == 255, 0, ids).astype(np.int16)
            grey = (light + random.normal(0, 8, ids.shape)).clip(0, 255).astype(np.uint8)
            write_png(folder / "images" / split / f"{number:03d}.png", np.repeat(grey[:, :, None], 3, axis=2))
            write_png(folder / "masks" / split / f"{number:03d}.png", ids)
    (folder / "config.yaml").write_text(CONFIG)
    return folder
