"""What the writers of data sets share: names, masks that can be trusted, and the finished folder.

A writer is `write(source, folder, advance) -> dict`: it fills `folder`, calls `advance()` after each image, and gives
the keys that the reader of that layout needs beside its root to read the same data set.
"""

import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from segwright.ahead import cores
from segwright.datasets.base import IGNORE, Source, Split
from segwright.errors import DataError
from segwright.images import alone_if_large, read_image
from segwright.png import write_png

Advance = Callable[[], object]
Result = TypeVar("Result")


def stems(split: Split, used: set[str]) -> list[str]:
    """A file name without ending for each image: its own, made different where two are alike. Extends `used`."""
    names = []
    for index in range(len(split)):
        own = re.sub(r"[^\w.+-]+", "_", _own(split, index))
        name, count = own, 2
        while name.lower() in used:  # some disks do not tell upper and lower case apart
            name, count = f"{own}-{count}", count + 1
        used.add(name.lower())
        names.append(name)
    return names


def _own(split: Split, index: int) -> str:
    """nnU-Net's image of a case ends in its channel's number, the case does not."""
    name, case = split.path(index).stem, split.annotation(index).stem
    return case if name == f"{case}_0000" else name


def sample(source: Source, split: Split, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) and mask (H, W), uint8. `DataError` where they do not fit each other or the classes."""
    image, mask = split.image(index), split.mask(index)
    if mask.shape != image.shape[:2]:
        raise DataError(
            f"{split.path(index)} is {image.shape[1]} x {image.shape[0]}, its mask {mask.shape[1]} x {mask.shape[0]}; "
            "such a mask lies on nothing. Run segwright check, and mend what it finds."
        )
    known = max(source.num_classes, 2)
    wrong = np.unique(mask[(mask >= known) & (mask != IGNORE)])
    if wrong.size:
        raise DataError(
            f"the mask of {split.path(index)} holds {', '.join(map(str, wrong[:10]))}, which stand for no class (there "
            f"are {known}, from 0). Run segwright check, and mend what it finds."
        )
    return image, mask


def copy_image(split: Split, index: int, image: np.ndarray, target: Path) -> Path:
    """The image's own file under another name, its ending added; as PNG where the file alone is not the image."""
    path = split.path(index)
    try:
        same = np.array_equal(read_image(path), image)
    except DataError:
        same = False
    target.parent.mkdir(parents=True, exist_ok=True)
    if same:
        return Path(shutil.copyfile(path, target.with_name(target.name + path.suffix.lower())))
    write_png(target.with_name(target.name + ".png"), image)
    return target.with_name(target.name + ".png")


def each(split: Split, work: Callable[[int], Result], advance: Advance) -> list[Result]:
    """`work(index)` for every image of the split, several at a time, large ones alone; the results in order."""

    def one(index: int) -> Result:
        with alone_if_large(split.path(index)):
            return work(index)

    results = []
    with ThreadPoolExecutor(min(8, cores())) as pool:
        for result in pool.map(one, range(len(split))):
            results.append(result)
            advance()
    return results
