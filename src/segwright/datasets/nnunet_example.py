"""The smallest data set in nnU-Net's raw layout: documentation and test data in one."""

import json
from pathlib import Path

import numpy as np

from segwright.png import write_png

SIDE = 40
IGNORE_LABEL = 3
CASES: dict[str, list[str]] = {"Tr": ["eye_000", "eye_001", "eye_002"], "Ts": ["eye_010"]}
FOLDS = [{"train": ["eye_000", "eye_002"], "val": ["eye_001"]}]
LABELS = {"background": 0, "vessel": 1, "disc": 2, "ignore": IGNORE_LABEL}


def label(case: str) -> np.ndarray:
    """(SIDE, SIDE) uint8 as stored: a vessel across, a disc's square on it, and an ignored margin at the left."""
    row = 6 + 3 * (int(case[-3:]) % 10)
    ids = np.zeros((SIDE, SIDE), np.uint8)
    ids[row : row + 3] = 1
    ids[row - 4 : row + 7, 24:34] = 2
    ids[:, :2] = IGNORE_LABEL
    return ids


def example(folder: str | Path) -> Path:
    """Writes dataset.json, images, labels and one fold into `folder`, which is made if needed, and returns it."""
    folder = Path(folder)
    random = np.random.default_rng(0)
    for which, cases in CASES.items():
        for case in cases:
            ids = label(case)
            light = np.array([150, 60, 230, 10])[ids]
            grey = (light + random.normal(0, 8, ids.shape)).clip(0, 255).astype(np.uint8)
            write_png(folder / f"images{which}" / f"{case}_0000.png", np.repeat(grey[:, :, None], 3, axis=2))
            write_png(folder / f"labels{which}" / f"{case}.png", ids)
    content = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": LABELS,
        "numTraining": len(CASES["Tr"]),
        "file_ending": ".png",
        "overwrite_image_reader_writer": "NaturalImage2DIO",
    }
    (folder / "dataset.json").write_text(json.dumps(content, indent=1))
    (folder / "splits_final.json").write_text(json.dumps(FOLDS, indent=1))
    return folder
