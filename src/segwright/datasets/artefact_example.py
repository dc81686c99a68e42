"""The smallest data set in ARTeFACT's layout: documentation and test data in one."""

from pathlib import Path

import numpy as np

from segwright.png import write_png

HEIGHT, WIDTH = 36, 48
IGNORED_ROWS = 4
"""At the top of every image lies what is not the object."""
SAMPLES = {"0a1b": ("Paper", "Photograph", (1, 9)), "2c3d": ("Canvas", "Artistic depiction", (4, 15))}
"""Id -> material, content, the two damages: the first fills the left third, the second the right; clean between."""


def annotation(name: str) -> np.ndarray:
    """(HEIGHT, WIDTH) uint8 class ids."""
    left, right = SAMPLES[name][2]
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[:, : WIDTH // 3], ids[:, -WIDTH // 3 :] = left, right
    ids[:IGNORED_ROWS] = 255
    return ids


def example(folder: str | Path) -> Path:
    """Writes image/, annotation/ and metadata.csv into `folder`, which is made if needed, and returns it."""
    folder = Path(folder)
    random = np.random.default_rng(0)
    rows = ["id,material,content"]
    for name, (material, content, _) in SAMPLES.items():
        ids = annotation(name)
        light = np.where(ids == 255, 240, 90 + 9 * ids.astype(np.int16))
        grey = (light + random.normal(0, 8, ids.shape)).clip(0, 255).astype(np.uint8)
        write_png(folder / "image" / f"{name}.png", np.repeat(grey[:, :, None], 3, axis=2))
        write_png(folder / "annotation" / f"{name}.png", ids)
        rows.append(f"{name},{material},{content}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder
