"""The images' own sizes, and whether images that keep them can share a batch."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from segwright.data.fingerprint import READERS
from segwright.datasets.base import SHOWN, Split
from segwright.errors import ConfigError, DataError
from segwright.images import image_size
from segwright.transforms import Size


def own_size(split: Split, index: int) -> Size:
    """(H, W) from the header; a reader whose images are no files of their own has to decode."""
    try:
        return image_size(split.path(index))
    except DataError:
        height, width = split.mask(index).shape
        return height, width


def refuse_mixed(split: Split, batch_size: int) -> None:
    """For images that go into batches of `batch_size` at their own sizes.

    Raises:
        ConfigError: there are several sizes, and more than one image a batch.
        DataError: a file that cannot be read.
    """
    if batch_size == 1:
        return
    with ThreadPoolExecutor(READERS) as pool:
        sizes = Counter(pool.map(lambda index: own_size(split, index), range(len(split)))).most_common()
    if len(sizes) > 1:
        listed = ", ".join(f"{width} x {height} ({count})" for (height, width), count in sizes[:SHOWN])
        raise ConfigError(
            f"input.size is null and augment.crop none, so the images of {split.name} keep their own sizes, but there "
            f"are {len(sizes)} (width x height, images): {listed}{', ...' if len(sizes) > SHOWN else ''}. A batch of "
            f"train.batch_size={batch_size} images needs one size. Set input.size, augment.crop, or train.batch_size=1."
        )
