"""The smallest data set in SPARK's layout: documentation and test data in one."""

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 96
BODY, PANELS = (255, 0, 0), (0, 0, 255)
SAMPLES: dict[str, list[tuple[str, str]]] = {
    "train": [("VenusExpress", "image_00000"), ("VenusExpress", "image_00001"), ("XMM Newton", "image_00002")],
    "val": [("XMM Newton", "image_00003")],
}
"""Split -> (craft, name). The body is a box of 32 x 32 pixels; on both of its sides is a panel of 16 x 32."""


def boxes(number: int) -> tuple[tuple[int, int, int, int], list[tuple[int, int, int, int]]]:
    """The body and the panels of the craft on an image, as top, left, bottom, right (the last two not in it)."""
    top, left = 16, 8 + 8 * number
    return (top, left + 16, top + 32, left + 48), [
        (top, left, top + 32, left + 16),
        (top, left + 48, top + 32, left + 64),
    ]


def example(folder: str | Path) -> Path:
    """Writes images, masks, tables and two test images into `folder`, which is made if needed, and returns it."""
    folder = Path(folder)
    random = np.random.default_rng(0)
    for split, samples in SAMPLES.items():
        rows = ["Image name,Class,Bounding box"]
        for craft, name in samples:
            number = int(name[-1])
            _write(folder / "images" / craft / split / f"{name}_img.jpg", _picture(number, random))
            _write(folder / "mask" / craft / split / f"{name}_layer.jpg", _layer(number))
            left = 8 + 8 * number
            rows.append(f'{name}_img.jpg,{craft},"({left}, 16, {left + 64}, 48)"')
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")
    for number in range(2):
        _write(folder / "stream-1-test" / f"test_{number:05d}_img.jpg", _picture(number, random))
    return folder


def _picture(number: int, random: np.random.Generator) -> np.ndarray:
    grey = random.normal(20, 6, (SIDE, SIDE))
    body, panels = boxes(number)
    for (top, left, bottom, right), light in [(body, 190), *((panel, 110) for panel in panels)]:
        grey[top:bottom, left:right] += light
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def _layer(number: int) -> np.ndarray:
    layer = np.zeros((SIDE, SIDE, 3), np.uint8)
    body, panels = boxes(number)
    for (top, left, bottom, right), rgb in [(body, BODY), *((panel, PANELS) for panel in panels)]:
        layer[top:bottom, left:right] = rgb
    return layer


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)
