"""A split of PNG pairs for tests of what stands between a reader and a batch."""

from pathlib import Path

import numpy as np
from PIL import Image

from segwright.images import read_image


class PixelSplit:
    """`<folder>/<i>.png` beside `<folder>/<i>_mask.png`; counts what is decoded."""

    name = "train"

    def __init__(self, folder: Path, length: int) -> None:
        self.folder, self.length, self.decoded = folder, length, 0

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"decoded": 0}  # what was counted does not make it another split

    def __len__(self) -> int:
        return self.length

    def path(self, index: int) -> Path:
        return self.folder / f"{index}.png"

    def annotation(self, index: int) -> Path:
        return self.folder / f"{index}_mask.png"

    def image(self, index: int) -> np.ndarray:
        self.decoded += 1
        return read_image(self.path(index))

    def mask(self, index: int) -> np.ndarray:
        with Image.open(self.annotation(index)) as image:
            return np.array(image)


def write_split(folder: Path, sizes: list[tuple[int, int]], classes: int = 4) -> PixelSplit:
    """Random blobs; the image shows them in other colours."""
    rng = np.random.default_rng(len(sizes))
    folder.mkdir(parents=True, exist_ok=True)
    for index, size in enumerate(sizes):
        ids = np.kron(rng.integers(0, classes, (4, 5)), np.ones((-(-size[0] // 4), -(-size[1] // 5)), int))
        ids = ids[: size[0], : size[1]].astype(np.uint8)
        image = (ids[..., None] * [60, 25, 10] + rng.integers(0, 40, (*size, 3))).astype(np.uint8)
        Image.fromarray(image).save(folder / f"{index}.png")
        Image.fromarray(ids).save(folder / f"{index}_mask.png")
    return PixelSplit(folder, len(sizes))
